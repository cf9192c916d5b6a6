//! The `sotto` command line.

pub mod api;
pub mod args;
pub mod chat;
pub mod doctor;
pub mod interrupt;
pub mod models;
pub mod open;
pub mod progress;
pub mod selftest;
mod selftest_texts;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};

/// Private chat with a language model whose linear layers run, encrypted, on a server.
#[derive(Debug, Parser)]
#[command(name = "sotto", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk to a model; without --server one is started on this machine
    Chat(Box<args::ChatArgs>),
    /// Offer the model to other programs as an OpenAI-compatible endpoint on this machine
    Api(args::ApiArgs),
    /// Compare float, int8 and encrypted arithmetic on this machine
    Selftest(args::SelftestArgs),
    /// Check what this machine can do
    Doctor(args::DoctorArgs),
    /// Show, fetch and delete models on this machine
    Models(args::ModelsArgs),
    /// Print a completion script for a shell
    Completions(args::CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Reads the command line, runs it and reports errors; for `main`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sotto: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs one subcommand.
///
/// # Errors
///
/// What the subcommand reports.
pub fn run(command: Command) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Chat(args) => {
            drop(out);
            chat::run(&args)
        }
        Command::Api(args) => api::run(&args, &mut out),
        Command::Selftest(args) => selftest::run(&args, &mut out),
        Command::Doctor(args) => doctor::run(&args, &mut out),
        Command::Models(args) => models::run(&args, &mut out),
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "sotto", &mut out);
            Ok(())
        }
        Command::Man => clap_mangen::Man::new(Cli::command())
            .render(&mut out)
            .and_then(|()| out.flush())
            .map_err(|source| Error::Io { context: "writing to standard output".to_owned(), source }),
    }
}
