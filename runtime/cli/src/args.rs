//! Command-line arguments of the client commands, as typed.
//!
//! Every option also reads an environment variable `SOTTO_<NAME>`; an option on the command line
//! wins over it.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use super::serve::FormChoice;
use sotto_client::WirePreference;

use crate::links::LinkProfile;
use sotto_engine::fetch::{DEFAULT_MODEL, ModelRef};
pub use sotto_engine::open::{BackendChoice, DraftSource};
use sotto_engine::session::DraftLength;
use sotto_protocol::binding::SetPreference;
use sotto_protocol::connect_string::ConnectString;

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

/// Most threads of a server. More than a machine has cores are of no use, and starting very many takes long.
pub(super) const MAX_THREADS: u64 = 1024;

/// Where the linear layers run.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Server to use, as printed by `sotto serve`; without it one is started on this machine
    ///
    /// It holds a credential, and other users of this machine see command lines: @FILE reads it from a file.
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true, value_parser = parse_secret)]
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

    /// Parameter set: auto, default or light (half the memory, a little less precise). Auto is default where this machine
    /// has the memory for it, else light; at a server, what it offers first
    #[arg(long, env = "SOTTO_SET", value_name = "SET", default_value = "auto")]
    pub set: SetPreference,

    /// Memory form of the tables of the server started on this machine
    #[arg(long, env = "SOTTO_FORM", value_enum, default_value_t = FormChoice::Auto)]
    pub form: FormChoice,

    /// Threads of the server started on this machine; all cores by default
    #[arg(long, env = "SOTTO_THREADS", value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_THREADS))]
    pub threads: Option<usize>,

    /// Memory for batches of the server started on this machine, in MiB; an eighth of the free memory when absent
    #[arg(long, env = "SOTTO_BATCH_MEMORY", value_name = "MIB")]
    pub batch_memory: Option<u64>,

    /// Accept a server whose model changed since the last visit, without asking
    #[arg(long, env = "SOTTO_ACCEPT_CHANGED_MODEL")]
    pub accept_changed_model: bool,

    /// Check every reply against this machine's own copy of --model; stop when the server computes with other weights
    #[arg(long, env = "SOTTO_CHECK_WEIGHTS")]
    pub check_weights: bool,

    /// Round the tokens of prompts up to a multiple of this, so that the server sees no exact length; 1 for none. When
    /// absent: 32 with a client part that only its server vouches for, else 1
    #[arg(long, env = "SOTTO_PAD_PROMPT", value_name = "TOKENS", value_parser = parse_multiple)]
    pub pad_prompt: Option<usize>,

    /// Round the passes of answers up to a multiple of this with dummy passes; 1 for none. When absent: 64 with a client
    /// part that only its server vouches for, else 1
    #[arg(long, env = "SOTTO_PAD_ANSWER", value_name = "PASSES", value_parser = parse_multiple)]
    pub pad_answer: Option<usize>,

    /// Wire form: auto, lean, stateless or full, or lean:B/R/S with widths in bits. Auto is lean where one process of the
    /// server does everything, else stateless
    #[arg(long, env = "SOTTO_WIRE", value_name = "FORM", default_value = "auto")]
    pub wire: WirePreference,

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

impl ServerArgs {
    /// What these arguments say to the `serve` of a server started on this machine.
    pub(super) fn serve_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(form) = self.form.to_possible_value() {
            arguments.extend(["--form".into(), form.get_name().into()]);
        }
        if let Some(threads) = self.threads {
            arguments.extend(["--threads".into(), threads.to_string().into()]);
        }
        if let Some(mebibytes) = self.batch_memory {
            arguments.extend(["--batch-memory".into(), mebibytes.to_string().into()]);
        }
        arguments
    }
}

/// Sampling of the next token.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Maximum number of tokens per answer, -1 for no limit but the context [default: 512]
    #[arg(long, env = "SOTTO_MAX_TOKENS", allow_negative_numbers = true, value_parser = parse_max_tokens)]
    pub max_tokens: Option<usize>,

    /// Sampling temperature; 0 takes the likeliest token. If absent: the likeliest, repeats discouraged
    #[arg(long, env = "SOTTO_TEMPERATURE", allow_negative_numbers = true)]
    pub temperature: Option<f32>,

    /// Keep the likeliest tokens up to this total probability [default: 1]
    #[arg(long, env = "SOTTO_TOP_P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,

    /// Keep this many of the likeliest tokens; 0 keeps all [default: 0]
    #[arg(long, env = "SOTTO_TOP_K", allow_negative_numbers = true, value_parser = parse_top_k)]
    pub top_k: Option<usize>,

    /// Drop tokens less likely than this fraction of the likeliest; 0 drops none [default: 0]
    #[arg(long, env = "SOTTO_MIN_P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,

    /// Penalty on recent tokens; 1 is none. If absent: 1.1 without a temperature, none with one
    #[arg(long, env = "SOTTO_REPEAT_PENALTY", allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,

    /// Seed of the sampler; random if absent or -1
    #[arg(long, env = "SOTTO_SEED", allow_negative_numbers = true, value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// Continue after the end-of-text token
    #[arg(long, env = "SOTTO_IGNORE_EOS")]
    pub ignore_eos: bool,
}

/// Drafts of the next tokens, checked several per pass.
#[derive(Clone, Debug, Args)]
pub struct DraftArgs {
    /// Where drafts come from: ngram (the text so far), off, or a small model with the same tokenizer that runs here
    #[arg(long, env = "SOTTO_DRAFT", value_name = "ngram|off|MODEL", default_value = "ngram")]
    pub draft: DraftSource,

    /// Tokens drafted per pass: steady (what the link is worth, the same in every pass), auto, or a number
    ///
    /// The server sees how many tokens each pass has. With auto the number follows the text, so it sees where the text
    /// repeats itself; with steady it learns after some 6 passes, after 8 more, and then every 16 whether drafts pay.
    #[arg(long, env = "SOTTO_DRAFT_LENGTH", value_name = "steady|auto|N", default_value_t = DraftLength::Steady)]
    pub draft_length: DraftLength,
}

/// Arguments of `sotto chat`.
#[derive(Clone, Debug, Args)]
pub struct ChatArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Drafts of the next tokens
    #[command(flatten)]
    pub drafts: DraftArgs,

    /// Sampling of the next token
    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Answer this and leave, instead of a conversation; text on standard input follows it, and `-` stands for that alone
    ///
    /// Other users of this machine see command lines: --prompt-file, or standard input, keeps it from them.
    #[arg(
        short,
        long,
        env = "SOTTO_PROMPT",
        value_parser = parse_prompt,
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub prompt: Option<String>,

    /// The same without the option's name
    #[arg(value_name = "PROMPT", value_parser = parse_prompt, conflicts_with = "prompt")]
    pub text: Option<String>,

    /// As --prompt, read from this file; `-` is standard input
    #[arg(long, env = "SOTTO_PROMPT_FILE", value_name = "FILE", conflicts_with_all = ["prompt", "text"])]
    pub prompt_file: Option<PathBuf>,

    /// File whose text follows the prompt; may be given several times, and `-` is standard input
    #[arg(short, long, env = "SOTTO_FILE", value_name = "FILE")]
    pub file: Vec<PathBuf>,

    /// System message
    #[arg(long, env = "SOTTO_SYSTEM", hide_env_values = true, allow_hyphen_values = true)]
    pub system: Option<String>,

    /// As --system, read from this file
    #[arg(long, env = "SOTTO_SYSTEM_FILE", value_name = "FILE", conflicts_with = "system")]
    pub system_file: Option<PathBuf>,

    /// Named settings of presets.toml: a system message and sampling options, which options on the command line override
    #[arg(long, env = "SOTTO_PRESET", value_name = "NAME")]
    pub preset: Option<String>,

    /// Maximum number of tokens of the model's context to use; old turns are dropped earlier
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

    /// Keep the input history of conversations in this file; off unless given
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
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true, value_parser = parse_secret)]
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

    /// Wire form: auto, lean, stateless or full, or lean:B/R/S with widths in bits
    #[arg(long, env = "SOTTO_WIRE", value_name = "FORM", default_value = "auto")]
    pub wire: WirePreference,

    /// Parameter set: auto shows both, default or light one
    #[arg(long, env = "SOTTO_SET", value_name = "SET", default_value = "auto")]
    pub set: SetPreference,

    /// Tokens of the prompt whose first answer token is estimated
    #[arg(long, env = "SOTTO_PROMPT_TOKENS", value_name = "N", default_value_t = 500)]
    pub prompt_tokens: usize,

    /// Link to assume: lan, metro, country, home or ocean; instead of --link-mbit and --rtt-ms
    #[arg(long, env = "SOTTO_LINK", value_name = "PROFILE", conflicts_with_all = ["link_mbit", "rtt_ms"])]
    pub link: Option<LinkProfile>,

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

/// A further model of `sotto api`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlsoModel {
    /// What requests call it.
    pub name: String,
    /// A built-in name, a hub id or a path.
    pub model: String,
}

/// A model, perhaps with a name for it.
fn parse_also(text: &str) -> Result<AlsoModel, String> {
    let (name, model) = match text.split_once('=') {
        Some((name, model)) if !name.contains(['/', ':']) => (Some(name.trim()), model),
        _ => (None, text),
    };
    let reference = ModelRef::parse(model).map_err(|error| error.to_string())?;
    match name {
        Some("") => Err("the name before = is empty".to_owned()),
        Some(name) => Ok(AlsoModel { name: name.to_owned(), model: model.to_owned() }),
        None => Ok(AlsoModel { name: reference.slug(), model: model.to_owned() }),
    }
}

/// A predictor of `sotto api`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictorArg {
    /// What requests call it.
    pub name: String,
    /// Where it is.
    pub source: PredictorSource,
}

/// Where a predictor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PredictorSource {
    /// A model file, for a server on this machine.
    File(PathBuf),
    /// A server that has one.
    Server(ConnectString),
}

/// A predictor's file or connect string, perhaps with a name for it.
fn parse_predictor(text: &str) -> Result<PredictorArg, String> {
    let (name, place) = match text.split_once('=') {
        Some((name, place)) if !name.contains(['/', ':']) => (Some(name.trim()), place),
        _ => (None, text),
    };
    if name == Some("") {
        return Err("the name before = is empty".to_owned());
    }
    let place = parse_secret(place)?;
    if place.starts_with("sotto://") {
        let name = name.ok_or("a server's predictor needs a name: NAME=sotto://...")?;
        let connect = place.parse::<ConnectString>().map_err(|error| error.to_string())?;
        return Ok(PredictorArg { name: name.to_owned(), source: PredictorSource::Server(connect) });
    }
    let path = PathBuf::from(place);
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = name.map(ToOwned::to_owned).or(stem).ok_or("expected a model file")?;
    Ok(PredictorArg { name, source: PredictorSource::File(path) })
}

/// What token arrays are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenVocabulary {
    /// OpenAI's cl100k_base, as clients of its embedding models send them
    Openai,
    /// The encoder's own vocabulary
    Model,
}

/// Arguments of `sotto ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Address of a running `sotto api`
    #[arg(long, env = "SOTTO_API_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8642", value_parser = parse_listen)]
    pub listen: std::net::SocketAddr,

    /// Its key, or @FILE to read it from a file
    #[arg(long, env = "SOTTO_API_KEY", hide_env_values = true, value_parser = parse_secret)]
    pub api_key: Option<String>,

    /// Print one JSON object as the last line
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,
}

/// Arguments of `sotto api`.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Where the linear layers run
    #[command(flatten)]
    pub server: ServerArgs,

    /// Drafts of the next tokens
    #[command(flatten)]
    pub drafts: DraftArgs,

    /// Address to listen on; loopback only
    #[arg(long, env = "SOTTO_API_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8642", value_parser = parse_listen)]
    pub listen: std::net::SocketAddr,

    /// Sentence encoder for /v1/embeddings: a built-in name, a hub id or a path; started on first use
    #[arg(long, env = "SOTTO_EMBEDDING_MODEL", value_name = "MODEL", default_value = "minilm")]
    pub embedding_model: String,

    /// What token arrays in requests to /v1/embeddings are of
    #[arg(long, env = "SOTTO_EMBEDDING_TOKENS", value_enum, default_value_t = TokenVocabulary::Openai)]
    pub embedding_tokens: TokenVocabulary,

    /// Further chat model, loaded when a request names it; may be given several times
    #[arg(long, env = "SOTTO_ALSO", value_name = "[NAME=]MODEL", value_delimiter = ',', value_parser = parse_also)]
    pub also: Vec<AlsoModel>,

    /// Predictor for /v1/predict: a model file of XGBoost (.json), LightGBM (.txt) or ONNX (.onnx), or NAME= with the connect
    /// string of a server that has one (@FILE reads it from a file); may be given several times
    #[arg(long, env = "SOTTO_API_PREDICTOR", value_name = "[NAME=]FILE", hide_env_values = true, value_parser = parse_predictor)]
    pub predictor: Vec<PredictorArg>,

    /// Offer no chat model, only predictors and embeddings
    #[arg(long, env = "SOTTO_NO_CHAT", conflicts_with = "also")]
    pub no_chat: bool,

    /// Memory that loaded chat models may take together, in MiB; the longest unused are unloaded. No limit when absent
    #[arg(long, env = "SOTTO_MODEL_MEMORY", value_name = "MIB")]
    pub model_memory: Option<u64>,

    /// Key that clients must send, or @FILE to read it from a file; a random one is made and printed if absent or empty
    #[arg(long, env = "SOTTO_API_KEY", hide_env_values = true, value_parser = parse_secret)]
    pub api_key: Option<String>,

    /// Take requests without a key from every program of this machine
    #[arg(long, env = "SOTTO_NO_KEY", conflicts_with = "api_key")]
    pub no_key: bool,

    /// Also take requests of web pages of this origin, such as http://localhost:3000; may be given several times
    #[arg(long, env = "SOTTO_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub allow_origin: Vec<String>,

    /// Also take requests addressed to this host, such as host.docker.internal:8642; may be given several times
    #[arg(long, env = "SOTTO_ALLOW_HOST", value_name = "HOST:PORT", value_delimiter = ',')]
    pub allow_host: Vec<String>,

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

/// Longest file that a secret, a prompt or a system message is read from, in bytes.
const MAX_TEXT_FILE_BYTES: u64 = 4 << 20;

/// The secret itself, or `@FILE` for the content of a file, without white space at its ends.
///
/// # Errors
///
/// What reading the file fails with, naming the file.
pub fn parse_secret(text: &str) -> Result<String, String> {
    match text.strip_prefix('@') {
        None => Ok(text.trim().to_owned()),
        Some(file) => Ok(read_text(file.as_ref())?.trim().to_owned()),
    }
}

/// The text in `file`.
pub(super) fn read_text(file: &std::path::Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut text = String::new();
    let mut open = std::fs::File::open(file).map_err(failed)?.take(MAX_TEXT_FILE_BYTES + 1);
    open.read_to_string(&mut text).map_err(failed)?;
    // A byte order mark, which editors on Windows write, is none of the text.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    if text.len() as u64 > MAX_TEXT_FILE_BYTES {
        return Err(format!("{} has more than {} MB", file.display(), MAX_TEXT_FILE_BYTES >> 20));
    }
    Ok(text)
}

/// A number of tokens; -1 stands for no limit, as in other programs.
pub(super) fn parse_max_tokens(text: &str) -> Result<usize, String> {
    match text.trim() {
        "-1" => Ok(usize::MAX),
        text => {
            text.parse().map_err(|_| "expected a whole number of at least 1, or -1 for no limit".to_owned())
        }
    }
}

/// Any whole number; -1 stands for a random one, as in other programs.
pub(super) fn parse_seed(text: &str) -> Result<u64, String> {
    match text.trim() {
        "-1" => Ok(rand::random()),
        text => text.parse().map_err(|_| "expected a whole number, or -1 for a random one".to_owned()),
    }
}

/// A number of tokens to choose from; -1 stands for all, as in other programs.
pub(super) fn parse_top_k(text: &str) -> Result<usize, String> {
    match text.trim() {
        "-1" => Ok(0),
        text => text.parse().map_err(|_| "expected a whole number, 0 for all tokens".to_owned()),
    }
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
    sotto_protocol::binding::binding(tau).map(|_| tau).map_err(|error| error.to_string())
}

/// An address with a port, or a port of this machine.
fn parse_listen(text: &str) -> Result<std::net::SocketAddr, String> {
    let own = |port: &str| port.parse().ok().map(|port: u16| (std::net::Ipv4Addr::LOCALHOST, port).into());
    let of_name = || text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).and_then(own);
    let parsed = text.parse().ok().or_else(|| own(text)).or_else(of_name);
    parsed.ok_or_else(|| "expected an address with a port, such as 127.0.0.1:8642, or a port".to_owned())
}

/// What browsers send as `Origin`, or `*`.
fn parse_origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map(|(_, host)| host.trim_end_matches('/'));
    match host {
        _ if text == "*" || text == "null" => Ok(text.to_owned()),
        Some(host) if !host.contains('/') => Ok(text.to_owned()),
        _ => {
            Err("expected an origin with its scheme and without a path, such as http://localhost:3000, or *"
                .to_owned())
        }
    }
}

/// A multiple to pad to.
fn parse_multiple(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(multiple) if (1..=4096).contains(&multiple) => Ok(multiple),
        _ => Err(format!("{text:?} is not a number from 1 to 4096")),
    }
}

pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_can_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk-secret\n").unwrap();
        assert_eq!(parse_secret(&format!("@{}", file.path().display())), Ok("sk-secret".to_owned()));
        assert_eq!(parse_secret(" sk-secret\n"), Ok("sk-secret".to_owned()));
        std::fs::write(file.path(), "\u{feff}text").unwrap();
        assert_eq!(read_text(file.path()).as_deref(), Ok("text"));
        assert!(parse_secret("@/nonexistent/file").is_err_and(|error| error.contains("/nonexistent/file")));
    }

    #[test]
    fn addresses_origins_and_models_are_read_as_people_write_them() {
        for text in ["127.0.0.1:80", "localhost:80", ":80", "80"] {
            assert_eq!(parse_listen(text).unwrap().to_string(), "127.0.0.1:80", "{text}");
        }
        assert_eq!(parse_listen("[::1]:80").unwrap().to_string(), "[::1]:80");
        for bad in ["", "localhost", "127.0.0.1", "example.com:80", ":x", "99999"] {
            assert!(parse_listen(bad).is_err(), "{bad:?} was accepted");
        }
        for good in
            ["*", "null", "http://localhost:3000", "http://localhost:3000/", "tauri://localhost", "file://"]
        {
            assert_eq!(parse_origin(good).as_deref(), Ok(good));
        }
        for bad in ["", "localhost:3000", "http://localhost:3000/page"] {
            assert!(parse_origin(bad).is_err(), "{bad:?} was accepted");
        }
        let named = parse_also("small=smollm2-135m").unwrap();
        assert_eq!((named.name.as_str(), named.model.as_str()), ("small", "smollm2-135m"));
        assert_eq!(parse_also("/models/My Model.gguf").unwrap().name, "My_Model");
        assert!(parse_also("=smollm2-135m").is_err());
    }

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "-1", "x", "nan", "1e300"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
