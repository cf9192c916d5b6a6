//! Two kinds of picture, both on logarithmic axes: bars (one quantity, many contestants) and lines (cost against size).

use std::path::Path;

use anyhow::anyhow;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// A bar: its label, its value in milliseconds, its colour, and whether it was measured (or extrapolated: hatched).
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) ms: f64,
    pub(super) colour: RGBColor,
    pub(super) measured: bool,
}

/// A line of a log-log plot.
pub(super) struct Line {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Ours.
pub(super) const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x4d);
/// Clear computation.
pub(super) const CLEAR: RGBColor = RGBColor(0x60, 0x7d, 0x8b);
/// Other libraries.
pub(super) const PEER: RGBColor = RGBColor(0xc7, 0x52, 0x1c);
/// Everything under TFHE.
pub(super) const TFHE: RGBColor = RGBColor(0x8e, 0x24, 0x6c);

const PALETTE: [RGBColor; 6] =
    [OURS, PEER, RGBColor(0x1f, 0x5f, 0xb4), TFHE, CLEAR, RGBColor(0xb8, 0x86, 0x0b)];
const FONT: &str = "sans-serif";
/// Of a letter of a tick's name, on average, in pixels.
const LETTER_WIDTH: i32 = 6;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Round times a reader knows, for the ticks of a time axis.
const TICKS: [(f64, &str); 15] = [
    (0.001, "1 µs"),
    (0.01, "10 µs"),
    (0.1, "0.1 ms"),
    (1.0, "1 ms"),
    (10.0, "10 ms"),
    (100.0, "0.1 s"),
    (1e3, "1 s"),
    (10e3, "10 s"),
    (60e3, "1 min"),
    (600e3, "10 min"),
    (3600e3, "1 h"),
    (86_400e3, "1 day"),
    (864_000e3, "10 days"),
    (8_640_000e3, "100 days"),
    (31_557_600e3 * 10.0, "10 years"),
];

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

fn text(size: u32, colour: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    TextStyle { font: (FONT, size).into_font(), color: colour.to_backend_color(), pos: Pos::new(h, v) }
}

/// Draws horizontal bars on a logarithmic time axis, in the given order.
///
/// # Errors
/// If the file cannot be written or there is no positive value.
pub(super) fn bars(file: &Path, title: &str, note: &str, bars: &[Bar]) -> anyhow::Result<()> {
    let shown: Vec<&Bar> = bars.iter().filter(|b| b.ms.is_finite() && b.ms > 0.0).collect();
    let (Some(least), Some(most)) =
        (shown.iter().map(|b| b.ms).reduce(f64::min), shown.iter().map(|b| b.ms).reduce(f64::max))
    else {
        anyhow::bail!("{title}: nothing to draw");
    };
    let below = |v: f64| TICKS.iter().rev().find(|t| t.0 < v * 0.3).map_or(TICKS[0].0, |t| t.0);
    let above = |v: f64| TICKS.iter().find(|t| t.0 > v * 1.2).map_or(most * 2.0, |t| t.0);
    let (low, high) = (below(least).log10(), above(most).log10());
    let (row, top, left, right, width) = (34, 64, 370, 110, 1000);
    let height = top + row * shown.len() as i32 + 70;
    let x_of =
        |ms: f64| left + ((ms.log10() - low) / (high - low) * f64::from(width - left - right)).round() as i32;
    let root = SVGBackend::new(file, (width as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    root.draw_text(title, &text(21, INK, HPos::Left, VPos::Top), (18, 16)).map_err(failed)?;
    let bottom = top + row * shown.len() as i32;
    let mut free_from = i32::MIN;
    for (ms, name) in TICKS.iter().filter(|t| t.0.log10() >= low - 1e-9 && t.0.log10() <= high + 1e-9) {
        let x = x_of(*ms);
        let grid = PathElement::new(vec![(x, top - 6), (x, bottom + 4)], RGBColor(0xdd, 0xdd, 0xdd));
        root.draw(&grid).map_err(failed)?;
        // A name that would touch the one before it is left out.
        let half = name.chars().count() as i32 * LETTER_WIDTH / 2;
        if x - half >= free_from {
            root.draw_text(name, &text(13, INK, HPos::Center, VPos::Top), (x, bottom + 8)).map_err(failed)?;
            free_from = x + half + LETTER_WIDTH;
        }
    }
    for (i, bar) in shown.iter().enumerate() {
        let y = top + row * i as i32;
        bar_row(&root, bar, (x_of(10f64.powf(low)), x_of(bar.ms)), y, left)?;
    }
    root.draw_text(note, &text(13, RGBColor(0x55, 0x55, 0x55), HPos::Left, VPos::Top), (18, bottom + 40))
        .map_err(failed)?;
    root.present().map_err(failed)
}

fn bar_row(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    bar: &Bar,
    (from, to): (i32, i32),
    y: i32,
    left: i32,
) -> anyhow::Result<()> {
    let corners = [(from, y + 3), (to, y + 25)];
    let fill = if bar.measured { bar.colour.filled() } else { bar.colour.mix(0.35).filled() };
    root.draw(&Rectangle::new(corners, fill)).map_err(failed)?;
    root.draw(&Rectangle::new(corners, bar.colour.stroke_width(1))).map_err(failed)?;
    root.draw_text(&bar.label, &text(14, INK, HPos::Right, VPos::Center), (left - 10, y + 15))
        .map_err(failed)?;
    let sign = if bar.measured { "" } else { "~" };
    let value = format!("{sign}{}", crate::output::human_ms(bar.ms));
    root.draw_text(&value, &text(15, INK, HPos::Left, VPos::Center), (to + 7, y + 15)).map_err(failed)
}

/// Draws lines on two logarithmic axes with a legend.
///
/// # Errors
/// If the file cannot be written or no line has a point.
pub(super) fn lines(
    file: &Path,
    title: &str,
    (x_name, y_name): (&str, &str),
    lines: &[Line],
) -> anyhow::Result<()> {
    let points: Vec<(f64, f64)> =
        lines.iter().flat_map(|l| l.points.iter().copied()).filter(|p| p.0 > 0.0 && p.1 > 0.0).collect();
    anyhow::ensure!(!points.is_empty(), "{title}: nothing to draw");
    let ends = |pick: fn(&(f64, f64)) -> f64| {
        points.iter().map(pick).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    };
    // Sizes double, so the x axis is the logarithm to base two itself, with a label at each power.
    let ((least, most), (bottom, top)) = (ends(|p| p.0), ends(|p| p.1));
    let x_range = (least.log2() - 0.3)..(most.log2() + 0.3);
    let doublings = (most / least).log2().ceil() as usize + 2;
    // Room above for the legend.
    let y_range = (bottom / 1.5)..(top * 8.0);
    let root = SVGBackend::new(file, (900, 560)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 21).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(x_range, y_range.log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_labels(doublings)
        .x_desc(x_name)
        .y_desc(y_name)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .x_label_formatter(&|x| format!("{:.0}", x.exp2()))
        .y_label_formatter(&|y| if *y >= 1.0 { format!("{y:.0}") } else { format!("{y}") })
        .light_line_style(RGBColor(0xf0, 0xf0, 0xf0))
        .draw()
        .map_err(failed)?;
    for (i, line) in lines.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        let good: Vec<(f64, f64)> =
            line.points.iter().filter(|p| p.0 > 0.0 && p.1 > 0.0).map(|p| (p.0.log2(), p.1)).collect();
        chart
            .draw_series(LineSeries::new(good.iter().copied(), colour.stroke_width(2)))
            .map_err(failed)?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(3)));
        chart.draw_series(good.iter().map(|p| Circle::new(*p, 4, colour.filled()))).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .label_font((FONT, 15))
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)
}
