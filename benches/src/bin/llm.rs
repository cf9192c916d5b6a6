//! The linear layers of whole models by shape: encrypted seconds and bytes per token against clear int8.

use std::process::ExitCode;

use benches::check::Checks;
use benches::llm_run;
use benches::machine::Machine;
use benches::output::{envelope, print_json};
use clap::Parser;

/// Measures the linear layers of a model's blocks, random weights
#[derive(Parser)]
struct Args {
    /// gpt2, smollm2-135m or llama-3.2-1b
    #[arg(long, default_value = "gpt2")]
    shape: String,
    /// Tokens to run
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    tokens: u64,
    /// Print one JSON object as the last line (always on)
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let machine = Machine::detect(rayon::current_num_threads());
    let mut checks = Checks::new();
    let report = llm_run::run(&args.shape, usize::try_from(args.tokens)?, &mut checks)?;
    print_json(&envelope(&machine, &checks, &report)?)?;
    Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
