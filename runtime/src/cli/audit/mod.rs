//! `sotto audit`: what can be proven about a server, and what can be taken from it.

mod integrity;

use std::io::Write;

use clap::{Args, Subcommand};

use super::args::ServerArgs;
use crate::error::{Error, Result};

/// Arguments of `sotto audit`.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// What to audit
    #[command(subcommand)]
    pub action: AuditAction,
}

/// What can be audited.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditAction {
    /// Check that a server multiplies by the weights it names, against one's own copy of them
    Integrity(Box<IntegrityArgs>),
}

/// Arguments of `sotto audit integrity`.
#[derive(Clone, Debug, Args)]
pub struct IntegrityArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Tokens to generate; every reply on the way is checked
    #[arg(long, env = "SOTTO_AUDIT_TOKENS", default_value_t = 64)]
    pub tokens: usize,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Runs `sotto audit`.
///
/// # Errors
///
/// Of the audits: what `sotto chat` can fail with, and their findings.
pub fn run(args: &AuditArgs, out: &mut dyn Write) -> Result<()> {
    match &args.action {
        AuditAction::Integrity(args) => integrity::run(args, out),
    }
}

fn write_line(out: &mut dyn Write, text: &str) -> Result<()> {
    writeln!(out, "{text}")
        .map_err(|source| Error::Io { context: "writing to standard output".to_owned(), source })
}
