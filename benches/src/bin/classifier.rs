//! `classifier`: a quantized linear classifier on encrypted digits. See `benches/README.md`.

use benches::{
    classifier::evaluate,
    digits,
    machine::Machine,
    output::{envelope, human_ms, print_json},
};
use clap::Parser;

/// Classifies scikit-learn's digits with 8-bit weights, in clear and under encryption.
#[derive(Parser)]
struct Args {
    /// Test images to classify (all 359 by default).
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    images: usize,
    /// Worker threads (default: all cores).
    #[arg(long)]
    threads: Option<usize>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let machine = Machine::detect(threads);
    let report = evaluate(&digits::load()?, args.images.max(1))?;
    if args.json {
        print_json(&envelope(&machine, &report.checks, &report)?)?;
    } else {
        println!("{}", machine.line());
        println!(
            "accuracy: float {:.2} %, 8-bit {:.2} %, encrypted {:.2} % of {} images",
            100.0 * report.accuracy_float,
            100.0 * report.accuracy_quantized,
            100.0 * report.accuracy_encrypted,
            report.predictions
        );
        println!(
            "{} per encrypted prediction ({} online; a batch of 32 ahead {})",
            human_ms(report.ms_per_prediction),
            human_ms(report.online_ms_per_prediction),
            human_ms(report.batch_ms)
        );
    }
    report.checks.finish()
}
