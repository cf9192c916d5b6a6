//! What can go wrong. No message contains text that was to be redacted.

use std::path::Path;

use crate::detect::DetectError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the anonymizer, by who can mend them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself or the program.
    #[error("configuration: {field}: expected {expected}, got {got}")]
    Config {
        /// The field.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// An input is not what it should be.
    #[error("{place}: {reason}")]
    Input {
        /// File or line.
        place: String,
        /// What is wrong, without its text.
        reason: String,
    },
    /// A saved vault cannot be read or written.
    #[error("vault {path}: {reason}")]
    Vault {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A text holds a value of a type that the configuration does not let leave.
    #[error(
        "blocked: the text holds a value of the type {label}, which the configuration does not let leave"
    )]
    Blocked {
        /// The type.
        label: String,
    },
    /// Reading or writing failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Detection failed: nothing is known about the texts.
    #[error("detection: {0}")]
    Detect(#[from] DetectError),
    /// The model of detection, its files or the server of its linear layers.
    #[error("{0}")]
    Detector(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server answered wrongly about a sentence whose labels are known.
    #[error(
        "detection cannot be trusted: a canary sentence came back with wrong labels; nothing was let through"
    )]
    Untrusted,
    /// Detection ended while it was needed.
    #[error("detection is not available")]
    Unavailable,
}

impl Error {
    /// An input-output error at `path`.
    pub fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { context: format!("{doing} {}", path.display()), source }
    }
}
