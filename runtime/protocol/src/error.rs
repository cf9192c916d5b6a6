//! The error type that client and server share, and its form on the wire.
//!
//! Variants are split by blame: the caller (usage, files), the peer (malformed, refused) and the machine (disk,
//! ports). No variant ever carries prompts, activations, keys or credentials.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sotto_storage::StorageError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Whatever can go wrong between a prompt and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A peer or file sent something of the wrong form.
    #[error("{field}: expected {expected}, got {got}")]
    Malformed {
        /// What was read.
        field: &'static str,
        /// The form it should have.
        expected: String,
        /// The form it has; never the data itself.
        got: String,
    },
    /// A value is outside its range.
    #[error("{what} must be {range}, got {got}")]
    OutOfRange {
        /// The value's name.
        what: &'static str,
        /// What it may be, such as "between 1 and 8192" or "at least 1".
        range: String,
        /// What it is.
        got: String,
    },
    /// Two things that belong together do not.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is; never the data itself.
        got: String,
    },
    /// The conversation does not fit the model's context.
    #[error(
        "This model's maximum context length is {limit} tokens. This conversation has {tokens}, and {reserved} are reserved for the answer."
    )]
    ContextExceeded {
        /// Tokens of the conversation.
        tokens: usize,
        /// Tokens that the model can hold.
        limit: usize,
        /// Of those, tokens kept for the answer.
        reserved: usize,
    },
    /// A length exceeds a limit of [`crate::limits`].
    #[error("{field}: {got} exceeds the limit of {limit}")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// Its length.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// No common protocol version.
    #[error(
        "no common protocol version: we speak {ours}, the other side offers {theirs:?}; update the older of the two"
    )]
    Version {
        /// Our version.
        ours: u32,
        /// Theirs.
        theirs: Vec<u32>,
    },
    /// The credential is missing, unknown, malformed or revoked. One variant for all, so that probing tells nothing.
    #[error("the credential was refused; ask the server's operator for a valid one")]
    Credential,
    /// The credential's budget does not cover the request.
    #[error(
        "the credential's budget of {counter} is used up: wanted {wanted}, left {left}; ask the server's operator for more"
    )]
    Budget {
        /// "mask slots" or "body tokens".
        counter: &'static str,
        /// What the request needs.
        wanted: u64,
        /// What is left.
        left: u64,
    },
    /// The lease is malformed, expired, used up, of another model or of an earlier run of the server.
    #[error("lease refused: {0}; open a new one")]
    Lease(&'static str),
    /// The server has no such model.
    #[error("the server has no model {digest}; `sotto serve` prints the digest it serves")]
    UnknownModel {
        /// Hexadecimal digest.
        digest: String,
    },
    /// The model is known but still being prepared.
    #[error("the model is still being prepared; try again in a minute")]
    NotReady,
    /// A digest differs from the pinned one.
    #[error("{what}: expected digest {expected}, got {got}")]
    Digest {
        /// What was hashed.
        what: String,
        /// Hexadecimal digest expected.
        expected: String,
        /// Hexadecimal digest found.
        got: String,
    },
    /// A reply is not what the pinned weights give: the server computes something else.
    #[error(
        "the server's reply to round {round} is not that of the pinned weights; nothing more is sent to it in this session"
    )]
    WrongWeights {
        /// Name of the round.
        round: String,
    },
    /// Decoded values are not what the pinned weights give although the replies are. Depends on decrypted values: for
    /// the local user, when all traffic has ended.
    #[error(
        "{wrong} of {replies} results are not those of the pinned weights although the replies are: the server's masks are wrong"
    )]
    WrongMasks {
        /// Results that did not fit.
        wrong: u64,
        /// Results checked.
        replies: u64,
    },
    /// A batch id was used again with other keys or for another model.
    #[error("this batch id belongs to other keys")]
    BatchConflict,
    /// No such batch for this credential.
    #[error("no such batch")]
    NoSuchBatch,
    /// The batch's words were dropped, or belong to another worker or run: its id cannot be used again.
    #[error("this batch is no longer kept by the server; its slots cannot be used")]
    BatchDead,
    /// A slot came back with other bytes: a copy of the client is alive.
    #[error(
        "a slot was used before with other bytes: a copy of this program may be running; all batches and secrets of this process were dropped"
    )]
    SlotReused,
    /// A wire form that the server does not offer, or that a choice of the user rules out.
    #[error("wire form {wanted}: {why}")]
    WireForm {
        /// What was asked for.
        wanted: String,
        /// Why it cannot be had.
        why: String,
    },
    /// A bounded queue is full.
    #[error("{what} is full; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// The queue.
        what: &'static str,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The server drains before it stops.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The server could not be reached.
    #[error("cannot reach {address}: {reason}")]
    Connect {
        /// "host:port".
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("connection lost: {0}")]
    Transport(String),
    /// The server refused with a reason this build does not know.
    #[error("the server refused ({reason}): {message}")]
    Remote {
        /// Stable word or the gRPC code.
        reason: String,
        /// The server's message.
        message: String,
    },
    /// The peer's certificate is not the pinned one, or TLS failed otherwise.
    #[error("TLS: {0}")]
    Tls(String),
    /// A connect string does not parse.
    #[error("connect string: {0}")]
    ConnectString(String),
    /// The port is taken.
    #[error("address {address} is already in use; choose another with --listen")]
    PortInUse {
        /// "host:port".
        address: String,
    },
    /// The split directory is missing or incomplete.
    #[error("{} is not a split ({missing}); create one with `sotto split MODEL --out {}`", path.display(), path.display())]
    NotASplit {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// No space left.
    #[error("no space left while writing {}; free some and run again", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Any other input or output error.
    #[error("{context}: {source}")]
    Io {
        /// What was done, with the path.
        context: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nobody reads standard output any more. The command line ends without a word about it.
    #[error("standard output is closed")]
    OutputClosed,
    /// The credential store failed.
    #[error("credential store: {0}")]
    Store(String),
    /// Wrong use of the command line or of the library.
    #[error("{0}")]
    Usage(String),
    /// Fetching a model failed.
    #[error("fetch: {0}")]
    Fetch(String),
    /// The client ran out of mask slots for longer than it is willing to wait.
    #[error("no mask slots after {} s: {reason}", waited.as_secs())]
    SlotTimeout {
        /// How long.
        waited: Duration,
        /// What held them up.
        reason: String,
    },
    /// Error of the crypto crate.
    #[error(transparent)]
    FheLayers(#[from] fhe_layers::Error),
    /// Error of the models crate.
    #[error(transparent)]
    Models(sotto_models::Error),
    /// Error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A bug: something that cannot happen did.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Wraps an I/O error; a full disk becomes [`Error::DiskFull`].
    pub fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull { path: path.to_owned() };
        }
        Self::Io { context: format!("{action} {}", path.display()), source }
    }
}

/// Whether a write failed for want of room.
fn is_disk_full(source: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io { path, source } => Self::io("fetching into", &path, source),
            other => Self::Usage(other.to_string()),
        }
    }
}

impl From<sotto_models::Error> for Error {
    fn from(error: sotto_models::Error) -> Self {
        match error {
            sotto_models::Error::Io { path, source } if is_disk_full(&source) => Self::DiskFull { path },
            other => Self::Models(other),
        }
    }
}

/// Stable words of the metadata `sotto-reason`, one per kind of refusal.
pub mod reason {
    /// Wrong form or over a limit.
    pub const MALFORMED: &str = "malformed";
    /// No common version.
    pub const VERSION: &str = "version";
    /// Credential missing, unknown or revoked.
    pub const CREDENTIAL: &str = "credential";
    /// Budget used up.
    pub const BUDGET: &str = "budget";
    /// Lease expired, used up or of another run: open a new one.
    pub const LEASE: &str = "lease";
    /// No such model.
    pub const UNKNOWN_MODEL: &str = "unknown-model";
    /// Model still being prepared.
    pub const NOT_READY: &str = "not-ready";
    /// Batch id used with other keys.
    pub const BATCH_CONFLICT: &str = "batch-conflict";
    /// No such batch.
    pub const NO_SUCH_BATCH: &str = "no-such-batch";
    /// Words dropped, or of another worker: take slots of another batch.
    pub const BATCH_DEAD: &str = "batch-dead";
    /// Slot used before with other bytes: drop every batch.
    pub const SLOT_REUSED: &str = "slot-reused";
    /// Queue full; `retry-after-ms` is set.
    pub const BUSY: &str = "busy";
    /// Draining; `retry-after-ms` is set.
    pub const SHUTTING_DOWN: &str = "shutting-down";
    /// Cancelled by the client or an operator.
    pub const CANCELLED: &str = "cancelled";
}
