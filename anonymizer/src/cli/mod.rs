//! The `anonymize` command line: arguments, then a resolved configuration, then the work.

pub mod args;
mod eval;
mod explain;
mod files;
mod jsonl;
mod proxy;
mod redact;
mod restore;
mod verify;

pub(crate) use jsonl::SpanRecord;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use runtime::cli::output;
use runtime::cli::progress::Bars;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{ModelDetector, ModelOptions};
use crate::scan::{Rules, Scanner};
use args::{Cli, Command, DetectionArgs};

/// Reads the command line, runs it and reports errors; for `main`.
pub fn main() -> ExitCode {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let command = Cli::parse().command;
    match runtime::cli::survive_file_limits().map_err(Error::from).and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Runtime(runtime::Error::OutputClosed)) {
                eprintln!("anonymize: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs one subcommand.
///
/// # Errors
/// What the subcommand reports.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Redact(args) => redact::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Serve(args) => Ok(runtime::cli::serve::run(&args)?),
        Command::Completions(args) => {
            Ok(runtime::cli::man::completions(&args, Cli::command(), &mut std::io::stdout().lock())?)
        }
        Command::Man(args) => {
            Ok(runtime::cli::man::run(&args, Cli::command(), &mut std::io::stdout().lock())?)
        }
    }
}

/// The configuration that arguments name, with what they change of it.
fn config(args: &DetectionArgs) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::open(path)?,
        None => Config::default(),
    };
    if let Some(threshold) = args.threshold {
        config.threshold = threshold;
    }
    Ok(config)
}

/// The scanner that arguments describe.
fn scanner(args: &DetectionArgs) -> Result<Scanner> {
    let config = config(args)?;
    let rules = Arc::new(Rules::new(&config)?);
    let model = ModelDetector::open(&model_options(args)?, config.detect_options(), &Bars::new(args.quiet))?;
    Ok(Scanner::new(rules, Box::new(model)))
}

fn model_options(args: &DetectionArgs) -> Result<ModelOptions> {
    if args.server.is_some() && args.backend != crate::model::BackendChoice::Encrypted {
        return Err(Error::Usage(
            "--server is for the encrypted backend; leave it or --backend out".to_owned(),
        ));
    }
    Ok(ModelOptions { backend: args.backend, server: args.server.clone(), tau: args.tau, program: None })
}

/// Writes to standard output.
fn write_out(bytes: &[u8]) -> Result<()> {
    Ok(output::write(&mut std::io::stdout().lock(), bytes)?)
}
