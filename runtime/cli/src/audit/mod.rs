//! `sotto audit`: what can be proven about a server, and what can be taken from it.

mod extraction;
mod integrity;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::ServerArgs;
use sotto_engine::fetch::DEFAULT_MODEL;
use sotto_protocol::error::Result;

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
    /// Run both known attacks against a layer on this machine: how many tokens give its weights away
    Extraction(ExtractionArgs),
}

/// Arguments of `sotto audit extraction`.
#[derive(Clone, Debug, Args)]
pub struct ExtractionArgs {
    /// Model whose layer is attacked: a built-in name, a hub id or a path
    #[arg(long, env = "SOTTO_MODEL", value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub model: String,

    /// Layer to attack: a round, or one of its matrices
    #[arg(long, env = "SOTTO_LAYER", value_name = "NAME", default_value = "blk.0.attn_output")]
    pub layer: String,

    /// Use the plan with two round trips per transformer block
    #[arg(long, env = "SOTTO_FUSED")]
    pub fused: bool,

    /// Honest tokens to observe; twice the layer's inputs when absent
    #[arg(long, env = "SOTTO_AUDIT_TOKENS", value_name = "N")]
    pub tokens: Option<usize>,

    /// What the honest client reads; when absent it answers built-in prompts
    #[arg(long, env = "SOTTO_TEXT", value_name = "FILE")]
    pub text: Option<PathBuf>,

    /// Tokens per batch of masks
    #[arg(long, env = "SOTTO_TAU", default_value_t = 64, hide = true)]
    pub tau: usize,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
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
        AuditAction::Extraction(args) => extraction::run(args, out),
    }
}
