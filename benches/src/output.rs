//! The one way a binary of this crate answers: JSON on the last line of stdout, the rest on stderr.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{check::Checks, machine::Machine};

/// Wraps a report's own fields with what every report carries: `machine`, `command`, `checks`, `ok`.
///
/// # Errors
/// If `fields` does not serialize to a JSON object.
pub fn envelope(machine: &Machine, checks: &Checks, fields: &impl Serialize) -> anyhow::Result<Value> {
    let Value::Object(mut object) = serde_json::to_value(fields)? else {
        anyhow::bail!("a report is a JSON object");
    };
    object.insert("command".into(), json!(command_line()));
    object.insert("machine".into(), serde_json::to_value(machine)?);
    object.insert("checks".into(), serde_json::to_value(checks)?);
    object.insert("ok".into(), json!(checks.all_ok()));
    Ok(Value::Object(object))
}

/// The command that gives this report, as a person would type it from the repository's root.
#[must_use]
pub fn command_line() -> String {
    let mut args = std::env::args();
    let bin = args.next().unwrap_or_default();
    let bin = std::path::Path::new(&bin).file_name().map(|n| n.to_string_lossy().into_owned());
    let rest: Vec<String> = args.collect();
    let mut line = format!("cargo run --release -q -p benches --bin {}", bin.unwrap_or_default());
    if !rest.is_empty() {
        line.push_str(" -- ");
        line.push_str(&rest.join(" "));
    }
    line
}

/// Writes `report` as one line, the last of stdout.
///
/// # Errors
/// If stdout is closed.
pub fn print_json(report: &Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{report}")?;
    stdout.flush()?;
    Ok(())
}

/// A plain table for people: columns padded to their widest cell, numbers to the right.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (c, &w))| if i == 0 { format!("{c:<w$}") } else { format!("{c:>w$}") })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let mut text = line(&header);
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// A duration in the unit a reader expects: `420 µs`, `15.1 s`, `3.2 h`, `2.1 days`.
#[must_use]
pub fn human_ms(ms: f64) -> String {
    let (value, unit) = match ms {
        ms if ms < 1.0 => (ms * 1e3, "µs"),
        ms if ms < 1e3 => (ms, "ms"),
        ms if ms < 120e3 => (ms / 1e3, "s"),
        ms if ms < 7200e3 => (ms / 60e3, "min"),
        ms if ms < 172_800e3 => (ms / 3600e3, "h"),
        ms => (ms / 86_400e3, "days"),
    };
    if value >= 100.0 {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(human_ms(0.42), "420 µs");
        assert_eq!(human_ms(15_100.0), "15.1 s");
        assert_eq!(human_ms(3.0 * 86_400e3), "3.00 days");
    }

    #[test]
    fn tables_align() {
        let text = table(&["op", "ms"], &[vec!["linear".into(), "1".into()]]);
        assert_eq!(text, "op      ms\nlinear   1\n");
    }
}
