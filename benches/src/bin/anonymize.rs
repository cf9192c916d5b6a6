//! `anonymize`: speed, traffic and labels of the encrypted anonymizer. See `benches/README.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::anonymize_run::{measure, short_document};
use benches::check::Checks;
use benches::machine::Machine;
use benches::output::{envelope, print_json};
use clap::Parser;

/// Scans 100 documents with the encrypted token classifier.
#[derive(Parser)]
struct Args {
    /// Labelled documents.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/pii/dev.jsonl"))]
    documents: PathBuf,
    /// Tokens per batch of masks.
    #[arg(long, default_value_t = anonymizer::model::TAU)]
    tau: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
    /// Scan one short document on this server (how the program calls itself).
    #[arg(long, hide = true)]
    short_document: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = sotto::serve_if_asked() {
        return Ok(code);
    }
    let args = Args::parse();
    if let Some(connect) = &args.short_document {
        short_document(connect)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::detect(std::thread::available_parallelism().map_or(1, usize::from));
    let mut checks = Checks::new();
    let report = measure(&args.documents, args.tau, &mut checks)?;
    if args.json {
        print_json(&envelope(&machine, &checks, &report)?)?;
    } else {
        println!("{}\n{report:#}", machine.line());
    }
    checks.finish()?;
    Ok(ExitCode::SUCCESS)
}
