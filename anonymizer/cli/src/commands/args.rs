//! Arguments of `anonymize`.
//!
//! Every option also reads an environment variable `SOTTO_<NAME>`; an option on the command line wins over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::documents::Format;
use crate::model::{BOTH, BackendChoice, TAU};

/// Takes personal data out of texts before they leave, and puts it back into what comes back.
///
/// Detection runs a language model whose linear layers are computed, encrypted, on a server that sees neither text nor
/// labels; the rest runs here.
#[derive(Debug, Parser)]
#[command(name = "anonymize", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replace personal data by placeholders
    Redact(RedactArgs),
    /// Put values back where placeholders stand
    Restore(RestoreArgs),
    /// Show what is found in a text, and why
    Explain(ExplainArgs),
    /// Score detection on labelled documents
    Eval(EvalArgs),
    /// Send made-up values through a proxy to a throwaway provider on this machine, and look for them there
    Verify(VerifyArgs),
    /// Stand between programs and a chat API: it sees placeholders, they see values
    Proxy(ProxyArgs),
    /// Offer tools that redact, restore and check texts to an AI application (Model Context Protocol, standard input and output)
    Mcp(McpArgs),
    /// Run linear layers for clients (what the encrypted backend starts on this machine)
    #[command(hide = true)]
    Serve(sotto::serve::ServeArgs),
    /// Print a completion script for a shell
    Completions(sotto::args::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(sotto::man::ManArgs),
}

/// What is detected, and with which model.
#[derive(Clone, Debug, Args)]
pub struct DetectionArgs {
    /// Token classifier that finds what rules cannot: `rampart` for Latin script, `trained` for 30 languages in their own
    /// scripts, `auto` for each where it is better, or a directory with one
    #[arg(long, env = "SOTTO_ANONYMIZE_DETECTOR", value_name = "MODEL", default_value = BOTH)]
    pub detector: String,

    /// Where the linear layers run: on a server, encrypted, or here in clear to compare
    #[arg(long, env = "SOTTO_ANONYMIZE_BACKEND", value_enum, default_value_t = BackendChoice::Encrypted)]
    pub backend: BackendChoice,

    /// Server to use, as printed by `sotto serve`, or a file that holds that; without it one is started on this machine
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING|@FILE", hide_env_values = true)]
    pub server: Option<String>,

    /// Believe --server which model it runs. Without this, its model has to be the one that this program fetches and
    /// splits itself, and every reply is checked against that
    #[arg(long, env = "SOTTO_ANONYMIZE_TRUST_SERVER")]
    pub trust_server: bool,

    /// What counts as personal (TOML)
    #[arg(long, env = "SOTTO_ANONYMIZE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Probability from which a word counts, 0 to 1; lower finds more and flags more
    #[arg(long, env = "SOTTO_ANONYMIZE_THRESHOLD", value_name = "P", value_parser = parse_probability)]
    pub threshold: Option<f32>,

    /// What `redact` does about letters of a script that the model does not know
    #[arg(long, env = "SOTTO_ANONYMIZE_UNKNOWN_SCRIPT", value_enum, default_value_t = UnknownScript::Warn)]
    pub unknown_script: UnknownScript,

    /// Tokens per batch of masks
    #[arg(long, env = "SOTTO_TAU", default_value_t = TAU, hide = true)]
    pub tau: usize,

    /// Show no progress
    #[arg(long, short, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// What to do about letters that the model cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownScript {
    /// Say how many there are
    Warn,
    /// Write nothing and fail
    Fail,
}

/// Where the vault is kept.
#[derive(Clone, Debug, Args)]
pub struct VaultArgs {
    /// File of the vault, encrypted; without it the values are forgotten when the program ends
    #[arg(long, env = "SOTTO_ANONYMIZE_VAULT", value_name = "FILE")]
    pub vault: Option<PathBuf>,

    /// Key file of the vault; made if there is none
    #[arg(
        long,
        env = "SOTTO_ANONYMIZE_KEY_FILE",
        value_name = "FILE",
        requires = "vault",
        conflicts_with = "passphrase_file"
    )]
    pub key_file: Option<PathBuf>,

    /// File whose first line is the vault's passphrase
    #[arg(long, env = "SOTTO_ANONYMIZE_PASSPHRASE_FILE", value_name = "FILE", requires = "vault")]
    pub passphrase_file: Option<PathBuf>,
}

/// Which files are read, and where they are written.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Files and directories; standard input if there are none
    pub paths: Vec<PathBuf>,

    /// What the input is; otherwise the ending of its name tells, and standard input is text
    #[arg(long, env = "SOTTO_ANONYMIZE_FORMAT", value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Write the files here, under their names
    #[arg(long, env = "SOTTO_ANONYMIZE_OUT", value_name = "DIR", conflicts_with = "next_to_input")]
    pub out: Option<PathBuf>,

    /// Write each file next to its input: `a.csv` becomes `a.redacted.csv`, or `a.restored.csv`
    #[arg(long, env = "SOTTO_ANONYMIZE_NEXT_TO_INPUT")]
    pub next_to_input: bool,

    /// Of the files in directories, take only those whose path below the directory fits, such as `**/*.csv`
    #[arg(long, env = "SOTTO_ANONYMIZE_INCLUDE", value_name = "GLOB", value_delimiter = ',')]
    pub include: Vec<String>,

    /// Leave out files and directories whose path below the directory fits, such as `.git`
    #[arg(long, env = "SOTTO_ANONYMIZE_EXCLUDE", value_name = "GLOB", value_delimiter = ',')]
    pub exclude: Vec<String>,

    /// Leave out files whose output is there already, as an interrupted run has left it
    #[arg(long, env = "SOTTO_ANONYMIZE_RESUME", requires = "vault")]
    pub resume: bool,
}

/// Arguments of `anonymize redact`.
#[derive(Clone, Debug, Args)]
pub struct RedactArgs {
    /// Files
    #[command(flatten)]
    pub files: FileArgs,

    /// Read a JSON object with `id` and `text` per line, write one with `id`, `redacted` and `spans`
    #[arg(long, env = "SOTTO_ANONYMIZE_JSONL", conflicts_with = "format")]
    pub jsonl: bool,

    /// Number placeholders anew in every document
    #[arg(long, env = "SOTTO_ANONYMIZE_PER_DOCUMENT", conflicts_with = "vault")]
    pub per_document: bool,

    /// Give values that differ in case alone one placeholder (`Ana`, `ANA`); restoring writes the first of them
    #[arg(long, env = "SOTTO_ANONYMIZE_IGNORE_CASE")]
    pub ignore_case: bool,

    /// What columns of tables hold, by head or number: a type, `scan` or `keep`; others are guessed
    #[arg(
        long,
        env = "SOTTO_ANONYMIZE_COLUMNS",
        value_name = "COLUMN=TYPE,...",
        default_value = "",
        hide_default_value = true
    )]
    pub columns: String,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,

    /// Vault
    #[command(flatten)]
    pub vault: VaultArgs,
}

/// Arguments of `anonymize restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Files
    #[command(flatten)]
    pub files: FileArgs,

    /// Vault
    #[command(flatten)]
    pub vault: VaultArgs,
}

/// Arguments of `anonymize explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The text; standard input if absent
    pub path: Option<PathBuf>,

    /// Print JSON
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,
}

/// Arguments of `anonymize eval`.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// Labelled documents: a JSON object with `id`, `text` and `spans` per line
    pub gold: PathBuf,

    /// Print one JSON object
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// Score again without each rule of detection, and print what the rule is worth here
    #[arg(long, env = "SOTTO_ANONYMIZE_ABLATE", conflicts_with = "json")]
    pub ablate: bool,

    /// Print up to this many spans that were missed or found without cause (shows text)
    #[arg(long, env = "SOTTO_ANONYMIZE_MISTAKES", value_name = "N", default_value_t = 0)]
    pub mistakes: usize,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,
}

/// Arguments of `anonymize verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// English values to plant, the types in turn
    #[arg(long, env = "SOTTO_VERIFY_VALUES", value_name = "N", default_value_t = 210)]
    pub values: usize,

    /// Languages to plant values in, such as `en,de,ru`; all that are known without it
    #[arg(long, env = "SOTTO_VERIFY_LANGUAGES", value_name = "LANGUAGE", value_delimiter = ',')]
    pub languages: Vec<String>,

    /// Seed of the values
    #[arg(long, env = "SOTTO_VERIFY_SEED", value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Print one JSON object
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,
}

/// Arguments of `anonymize proxy`.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// Base address of the provider, e.g. `https://api.example.com/v1`
    #[arg(long, env = "SOTTO_UPSTREAM", value_name = "URL")]
    pub upstream: String,

    /// The provider's key, in a file or in the variable: what is on a command line, others can read
    #[arg(long, env = "SOTTO_UPSTREAM_KEY", value_name = "@FILE", hide_env_values = true)]
    pub upstream_key: Option<String>,

    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, env = "SOTTO_PROXY_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:8643")]
    pub listen: SocketAddr,

    /// Key that programs have to show, in a file or in the variable; a random one is made and printed without it
    #[arg(long, env = "SOTTO_PROXY_KEY", value_name = "@FILE", hide_env_values = true)]
    pub key: Option<String>,

    /// Further keys, with what their holders may do (TOML)
    #[arg(long, env = "SOTTO_PROXY_KEYS", value_name = "FILE")]
    pub keys: Option<PathBuf>,

    /// Append types, counts and times of every request to this file, never values
    #[arg(long, env = "SOTTO_PROXY_AUDIT", value_name = "FILE")]
    pub audit: Option<PathBuf>,

    /// Send pictures, sound and files as they are instead of refusing them
    #[arg(long, env = "SOTTO_PROXY_ALLOW_ATTACHMENTS")]
    pub allow_attachments: bool,

    /// Give values that differ in case alone one placeholder (`Ana`, `ANA`); restoring writes the first of them
    #[arg(long, env = "SOTTO_ANONYMIZE_IGNORE_CASE")]
    pub ignore_case: bool,

    /// Ask the model, in one line of instructions, to keep placeholders as they are
    #[arg(long, env = "SOTTO_PROXY_HINT")]
    pub hint: bool,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,
}

/// Arguments of `anonymize mcp`.
#[derive(Clone, Debug, Args)]
pub struct McpArgs {
    /// Give values that differ in case alone one placeholder (`Ana`, `ANA`); restoring writes the first of them
    #[arg(long, env = "SOTTO_ANONYMIZE_IGNORE_CASE")]
    pub ignore_case: bool,

    /// Detection
    #[command(flatten)]
    pub detection: DetectionArgs,

    /// Vault of the session without a name
    #[command(flatten)]
    pub vault: VaultArgs,
}

fn parse_probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
