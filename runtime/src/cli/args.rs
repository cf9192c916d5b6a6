//! Command-line arguments of the client commands, as typed.
//!
//! Every option also reads an environment variable `SOTTO_<NAME>`; an option on the command line
//! wins over it.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use crate::fetch::DEFAULT_MODEL;
use crate::split_store;

/// How rounds are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoundsChoice {
    /// Four round trips per transformer block.
    Plain,
    /// Two round trips per transformer block; worth it on slow links.
    Fused,
    /// Whichever suits the measured round-trip time, among the plans the server offers.
    Auto,
}

/// Which arithmetic carries the linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// Encrypted, on the server.
    Remote,
    /// In clear on this machine with the server's int8 weights (a reference; needs the whole split).
    Int8,
    /// In clear on this machine with the original weights in f32 (a reference).
    Dense,
    /// The encrypted path's noise added to clear arithmetic (a reference).
    Simulated,
}

/// Where the linear layers run.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Server to use, as printed by `sotto serve`; without it one is started on this machine
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true)]
    pub server: Option<String>,

    /// Model for the server started on this machine: a built-in name, a hub id or a path
    #[arg(long, env = "SOTTO_MODEL", value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub model: String,

    /// Grouping of the round trips
    #[arg(long, env = "SOTTO_ROUNDS", value_enum, default_value_t = RoundsChoice::Auto)]
    pub rounds: RoundsChoice,

    /// Arithmetic of the linear layers; all but `remote` are references that run here in clear
    #[arg(long, env = "SOTTO_BACKEND", value_enum, default_value_t = BackendChoice::Remote, hide = true)]
    pub backend: BackendChoice,

    /// Tokens per batch of masks
    #[arg(long, env = "SOTTO_TAU", default_value_t = 64, value_parser = parse_tau, hide = true)]
    pub tau: usize,

    /// Accept a server whose model changed since the last visit, without asking
    #[arg(long, env = "SOTTO_ACCEPT_CHANGED_MODEL")]
    pub accept_changed_model: bool,

    /// Check every reply against this machine's own copy of --model; stop when the server computes with other weights
    #[arg(long, env = "SOTTO_CHECK_WEIGHTS")]
    pub check_weights: bool,

    /// Longest wait for masks without a sign of progress before giving up
    #[arg(
        long,
        env = "SOTTO_MASK_TIMEOUT_S",
        value_name = "SECONDS",
        default_value = "120",
        value_parser = parse_seconds
    )]
    pub mask_timeout_s: Duration,
}

/// Sampling of the next token.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Most tokens to generate per answer
    #[arg(long, env = "SOTTO_MAX_TOKENS", default_value_t = 512)]
    pub max_tokens: usize,

    /// Sampling temperature; 0 takes the likeliest token. When absent: the likeliest, repeats discouraged
    #[arg(long, env = "SOTTO_TEMPERATURE")]
    pub temperature: Option<f32>,

    /// Keep the likeliest tokens up to this total probability
    #[arg(long, env = "SOTTO_TOP_P", default_value_t = 0.95)]
    pub top_p: f64,

    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, env = "SOTTO_TOP_K", default_value_t = 0)]
    pub top_k: usize,

    /// Drop tokens less likely than this fraction of the likeliest; 0 drops none
    #[arg(long, env = "SOTTO_MIN_P", default_value_t = 0.0)]
    pub min_p: f64,

    /// Penalty on recent tokens; 1 is none. When absent: 1.1 without a temperature, none with one
    #[arg(long, env = "SOTTO_REPEAT_PENALTY")]
    pub repeat_penalty: Option<f32>,

    /// Seed of the sampler; random when absent
    #[arg(long, env = "SOTTO_SEED")]
    pub seed: Option<u64>,

    /// Generate on past the end-of-text token
    #[arg(long, env = "SOTTO_IGNORE_EOS")]
    pub ignore_eos: bool,
}

/// Arguments of `sotto chat`.
#[derive(Clone, Debug, Args)]
pub struct ChatArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Sampling of the next token
    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Answer this and leave, instead of a conversation
    #[arg(short, long, env = "SOTTO_PROMPT", value_parser = parse_prompt)]
    pub prompt: Option<String>,

    /// System message
    #[arg(long, env = "SOTTO_SYSTEM")]
    pub system: Option<String>,

    /// Use at most this many tokens of the model's context; old turns are dropped earlier
    #[arg(
        long,
        env = "SOTTO_CONTEXT",
        value_name = "TOKENS",
        value_parser = RangedU64ValueParser::<usize>::new().range(64..)
    )]
    pub context: Option<usize>,

    /// Continue a conversation saved with /save
    #[arg(long, env = "SOTTO_LOAD", value_name = "FILE")]
    pub load: Option<PathBuf>,

    /// Keep the input history in this file; off unless given
    #[arg(long, env = "SOTTO_HISTORY", value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Print one JSON object as the last line instead of streaming the answer
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// No progress bars and no statistics
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Arguments of `sotto selftest`.
#[derive(Clone, Debug, Args)]
pub struct SelftestArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Tokens to generate per prompt
    #[arg(long, env = "SOTTO_SELFTEST_TOKENS", default_value_t = 64)]
    pub tokens: usize,

    /// How many of the built-in prompts to run
    #[arg(long, env = "SOTTO_SELFTEST_PROMPTS", default_value_t = 10)]
    pub prompts: usize,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Arguments of `sotto doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Also check that this server answers
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true)]
    pub server: Option<String>,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,
}

/// Arguments of `sotto estimate`.
#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    /// Model to judge: a built-in name, a hub id or a path
    #[arg(long, env = "SOTTO_MODEL", value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub model: String,

    /// Tokens per batch of masks
    #[arg(long, env = "SOTTO_TAU", default_value_t = 64, value_parser = parse_tau)]
    pub tau: usize,

    /// Link speed to assume, in Mbit/s
    #[arg(long, env = "SOTTO_LINK_MBIT", default_value_t = 100.0)]
    pub link_mbit: f64,

    /// Round-trip time to assume, in milliseconds
    #[arg(long, env = "SOTTO_RTT_MS", default_value_t = 20.0)]
    pub rtt_ms: f64,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,
}

/// Arguments of `sotto models`.
#[derive(Clone, Debug, Args)]
pub struct ModelsArgs {
    /// What to do
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// What `sotto models` can do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ModelsAction {
    /// Show models, splits and tables on this machine, with their sizes
    List {
        /// Print one JSON object as the last line
        #[arg(long, env = "SOTTO_JSON")]
        json: bool,
    },
    /// Download a model
    Fetch {
        /// A built-in name or a hub id
        model: String,
        /// No progress bars
        #[arg(short, long, env = "SOTTO_QUIET")]
        quiet: bool,
    },
    /// Delete a model with its splits and tables
    Remove {
        /// Name as shown by `sotto models list`
        model: String,
    },
}

/// Arguments of `sotto api`.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Address to listen on; loopback only
    #[arg(long, env = "SOTTO_API_LISTEN", default_value = "127.0.0.1:8642")]
    pub listen: std::net::SocketAddr,

    /// Sentence encoder behind /v1/embeddings: a built-in name, a hub id or a path; started on first use
    #[arg(long, env = "SOTTO_EMBEDDING_MODEL", value_name = "MODEL", default_value = "minilm")]
    pub embedding_model: String,

    /// Key that clients must send; a random one is made and printed when absent
    #[arg(long, env = "SOTTO_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Arguments of `sotto completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    pub shell: clap_complete::Shell,
}

fn parse_prompt(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("the message is empty; leave the option out for a conversation".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Tokens per batch for which there are parameters.
pub(super) fn parse_tau(text: &str) -> Result<usize, String> {
    let tau = text.parse().map_err(|_| format!("{text:?} is not a number of tokens"))?;
    split_store::binding(tau).map(|_| tau).map_err(|error| error.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "-1", "x", "nan", "1e300"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
