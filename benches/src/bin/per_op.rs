//! `per-op`: what each operation of a decoder costs in clear and under encryption. See `benches/README.md`.

use benches::{
    machine::Machine,
    output::{envelope, human_ms, print_json, table},
    per_op::{Options, Report, measure},
    shapes::ModelShape,
};
use clap::Parser;

/// Measures every operation of a decoder under encryption, next to clear f32.
#[derive(Parser)]
struct Args {
    /// A model in the cache (fetched by `sotto models fetch`) or the path of a GGUF.
    #[arg(long, default_value = "smollm2-135m")]
    model: String,
    /// Positions that attention looks back on.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    context: u32,
    /// Worker threads (default: all cores).
    #[arg(long)]
    threads: Option<usize>,
    /// Leave out the 8-bit lookups.
    #[arg(long)]
    quick: bool,
    /// Leave out the split-phase rows.
    #[arg(long)]
    skip_linear: bool,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let machine = Machine::detect(threads);
    let options =
        Options { context: args.context as usize, threads, quick: args.quick, skip_linear: args.skip_linear };
    let report = measure(ModelShape::load(&args.model)?, &options)?;
    if args.json {
        print_json(&envelope(&machine, &report.checks, &report)?)?;
    } else {
        print!("{}\n{}", machine.line(), text(&report));
    }
    report.checks.finish()
}

fn text(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                format!("{}{}", if row.headline { "* " } else { "  " }, row.name),
                format!("{:.2} %", 100.0 * row.weight_share),
                format!("{:.2} %", 100.0 * row.arithmetic_share),
                human_ms(row.clear_ms),
                human_ms(row.encrypted_ms_measured),
                row.measured_size.clone(),
                format!("~{}", human_ms(row.encrypted_ms_extrapolated)),
                format!("{:.0}", row.precision_bits),
                row.log2_p_fail.map_or_else(|| "-".into(), |p| format!("2^{p:.0}")),
                format!("{:.1e}", row.error),
                row.input_rounding.to_owned(),
            ]
        })
        .collect();
    let header = [
        "op",
        "weights",
        "arithmetic",
        "clear",
        "encrypted",
        "measured on",
        "whole model",
        "bits",
        "p_fail",
        "error",
        "input rounding",
    ];
    format!(
        "{}\nPer token, {} positions. `~` is extrapolated: measured time times layers or bootstraps. `*` rows are the \
         ones to compare by.\nLinear maps hold {:.2} % of the weights and {:.2} % of the arithmetic.\n",
        table(&header, &rows),
        report.context,
        100.0 * report.linear_weight_share,
        100.0 * report.linear_arithmetic_share
    )
}
