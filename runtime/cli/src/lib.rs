//! The `sotto` command line.
//!
//! Each subcommand is a module with its arguments and a `run`; [`main`] parses, runs and turns errors into messages and
//! exit codes. Everything that does not print or parse arguments lives in `sotto_engine` and the crates below it.
//!
//! | module | subcommand |
//! |---|---|
//! | [`chat`], [`api`], [`ps`] | conversations in the terminal and over HTTP |
//! | [`predict`] | predictions for the rows of a table |
//! | [`serve`], [`split`], [`keys`], [`credential`] | running a server |
//! | [`selftest`], [`audit`], [`doctor`], [`estimate`] | checking and measuring |
//! | [`models`] | models on this machine |
//!
//! # Example
//! ```
//! use clap::Parser;
//!
//! let cli = sotto::Cli::try_parse_from(["sotto", "chat", "--prompt", "Hello"])?;
//! assert!(matches!(cli.command, sotto::Command::Chat(_)));
//! # Ok::<(), clap::Error>(())
//! ```

#[macro_use]
pub mod output;
pub mod api;
pub mod args;
pub mod audit;
pub mod chat;
pub mod credential;
pub mod doctor;
pub mod estimate;
pub mod exit;
mod hardening;
pub mod interrupt;
pub mod keys;
pub mod links;
pub mod man;
pub mod models;
pub mod open;
pub mod predict;
pub mod progress;
pub mod ps;
pub mod selftest;
mod selftest_texts;
pub mod serve;
mod speed;
pub mod split;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use sotto_protocol::error::{Error, Result};

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
    /// Chat with a model (starts a local server unless --server is given)
    Chat(Box<args::ChatArgs>),
    /// Serve an OpenAI-compatible API on this machine
    Api(args::ApiArgs),
    /// Predict the rows of a table with trees, a linear model or a small network
    Predict(predict::PredictArgs),
    /// Show what a running `sotto api` has loaded
    Ps(args::PsArgs),
    /// Run linear layers for clients, encrypted
    Serve(serve::ServeArgs),
    /// Split a model into what clients get and what the server keeps
    Split(split::SplitArgs),
    /// Make the certificate and signing key that the processes of one server share
    Keys(keys::KeysArgs),
    /// Manage credentials and budgets
    Credential(credential::CredentialArgs),
    /// Compare float, int8 and encrypted arithmetic on this machine
    Selftest(args::SelftestArgs),
    /// Check that a server uses the weights it names; measure how few tokens give weights away
    Audit(audit::AuditArgs),
    /// Check what this machine can do
    Doctor(args::DoctorArgs),
    /// Estimate memory, disk, traffic and speed of a model before using it
    Estimate(args::EstimateArgs),
    /// Show, fetch and delete models on this machine
    Models(args::ModelsArgs),
    /// Print a completion script for a shell
    Completions(args::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(man::ManArgs),
}

/// Reads the command line, runs it and reports errors; for `main`.
pub fn main() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let command = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    report(survive_file_limits().and_then(|()| run(command)))
}

/// `command` without the environment variables that are set to nothing: they count as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&'static str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// Lets a write beyond the limit on the size of files (`ulimit -f`) fail, where it would kill the process silently (SIGXFSZ).
///
/// # Errors
///
/// [`Error::Io`] when the system lets no handler be installed.
pub fn survive_file_limits() -> Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default())
        .map_err(|source| Error::Io { context: "installing a signal handler".to_owned(), source })?;
    Ok(())
}

/// Serves when the first argument is `serve`, for programs other than `sotto` that start an
/// [`Embedded`](sotto_engine::embedded::Embedded) server: call it first thing in `main` and return what it gives.
pub fn serve_if_asked() -> Option<ExitCode> {
    let asked = std::env::args_os().nth(1).is_some_and(|argument| argument == "serve");
    asked.then(main)
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::OutputClosed) {
                note!("sotto: {error}");
            }
            ExitCode::from(exit::exit_code(&error))
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
            hardening::seal_memory();
            chat::run(&args)
        }
        Command::Api(args) => {
            hardening::seal_memory();
            api::run(&args, &mut out)
        }
        Command::Predict(args) => {
            hardening::seal_memory();
            predict::run(&args, &mut out)
        }
        Command::Ps(args) => ps::run(&args, &mut out),
        Command::Serve(args) => {
            drop(out);
            serve::run(&args)
        }
        Command::Split(args) => split::run(&args, &mut out),
        Command::Keys(args) => keys::run(&args, &mut out),
        Command::Credential(args) => credential::run(&args, &mut out),
        Command::Selftest(args) => selftest::run(&args, &mut out),
        Command::Audit(args) => audit::run(&args, &mut out),
        Command::Doctor(args) => doctor::run(&args, &mut out),
        Command::Estimate(args) => estimate::run(&args, &mut out),
        Command::Models(args) => models::run(&args, &mut out),
        Command::Completions(args) => man::completions(&args, Cli::command(), &mut out),
        Command::Man(args) => man::run(&args, Cli::command(), &mut out),
    }
}
