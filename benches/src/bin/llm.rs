//! The linear layers of whole models by shape: encrypted seconds and bytes per token against clear int8.

use std::process::ExitCode;

use benches::check::Checks;
use benches::llm_run::{self, LlmBench};
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
    /// Tokens that share one batch of keys and masks
    #[arg(long, default_value_t = 64)]
    tokens_per_batch: usize,
    /// Wire form: auto, lean, stateless, full, or lean:B/R/S
    #[arg(long, default_value = "auto")]
    wire: sotto_client::WirePreference,
    /// Worker threads (default: all cores)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print one JSON object as the last line (always on)
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    }
    let machine = Machine::detect(rayon::current_num_threads());
    let mut checks = Checks::new();
    let bench = LlmBench {
        shape: args.shape,
        tokens: usize::try_from(args.tokens)?,
        tau: args.tokens_per_batch,
        wire: args.wire,
    };
    let report = llm_run::run(&bench, &mut checks)?;
    print_json(&envelope(&machine, &checks, &report)?)?;
    Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
