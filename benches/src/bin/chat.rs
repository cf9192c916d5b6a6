//! Chat on SmolLM2-135M: encrypted against clear, with what starting and talking cost.

use std::process::ExitCode;
use std::time::Duration;

use benches::chat_run::{self, ChatBench};
use benches::check::Checks;
use benches::link::Link;
use benches::machine::Machine;
use benches::output::{envelope, print_json};
use clap::Parser;

/// Measures chat on SmolLM2-135M
#[derive(Parser)]
struct Args {
    /// Grouping of the round trips: plain or fused
    #[arg(long, default_value = "plain", value_parser = |text: &str| chat_run::parse_plan(text))]
    rounds: models::split::plan::PlanKind,
    /// Tokens to decode per backend
    #[arg(long, default_value_t = 256)]
    tokens: usize,
    /// Round-trip time to add, in milliseconds
    #[arg(long, default_value_t = 0.0)]
    rtt_ms: f64,
    /// Link speed to emulate, in Mbit/s
    #[arg(long)]
    link_mbit: Option<f64>,
    /// Leave out the start without tables
    #[arg(long)]
    no_cold: bool,
    /// Print one JSON object as the last line (always on)
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = runtime::cli::serve_if_asked() {
        return Ok(code);
    }
    let args = Args::parse();
    let slow = args.rtt_ms > 0.0 || args.link_mbit.is_some();
    let link = slow.then(|| Link {
        rtt: Duration::from_secs_f64(args.rtt_ms / 1e3),
        bits_per_second: args.link_mbit.map(|mbit| mbit * 1e6),
    });
    let bench = ChatBench { plan: args.rounds, tokens: args.tokens, link, cold: !args.no_cold };
    let machine = Machine::detect(rayon::current_num_threads());
    let mut checks = Checks::new();
    let report = chat_run::run(&bench, &mut checks)?;
    print_json(&envelope(&machine, &checks, &report)?)?;
    Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
