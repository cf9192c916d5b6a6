//! Everything that can go wrong while loading, splitting or running a model.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of this crate. Texts name the file and the field and never contain prompts or activations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model file is damaged, truncated or not what its name says.
    #[error("{}: {field}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field or tensor that is wrong.
        field: String,
        /// What is wrong with it.
        reason: String,
        /// The error of the parser, if there is one.
        source: Option<BoxedError>,
    },
    /// The architecture is none of the supported families.
    #[error("unsupported architecture {got:?}, supported are {supported}")]
    UnsupportedArchitecture {
        /// The name found in the file.
        got: String,
        /// The names this crate knows.
        supported: String,
    },
    /// A configuration value is missing, asks for something that is not supported, or contradicts another one.
    #[error("model configuration: {field}: {reason}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The error of the parser, if there is one.
        source: Option<BoxedError>,
    },
    /// A value lies outside its range.
    #[error("{what} must be {range}, got {got}")]
    OutOfRange {
        /// The value.
        what: &'static str,
        /// Its range, in words: `1 to 512`.
        range: String,
        /// The value found.
        got: String,
    },
    /// A tensor that the model needs is not in its source.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("tensor {name}: expected shape {expected:?}, got {got:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// Shape implied by the configuration.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// The model has no tokenizer, or one that cannot be built.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// The chat template does not parse or refuses the conversation.
    #[error("chat template: {reason}")]
    ChatTemplate {
        /// What is wrong.
        reason: String,
    },
    /// Two values that must be equal differ: a split on disk contradicts its manifest or the other half.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What the manifest says.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The input of a round, or its reply, has another shape than the plan says.
    #[error("round {round}: expected {expected}, got {got}")]
    RoundShape {
        /// Index of the round in its plan.
        round: usize,
        /// What the plan says.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The context window has no room for these tokens.
    #[error("context of {limit} tokens: {cached} are in use, {requested} more do not fit")]
    ContextFull {
        /// Context length of the model.
        limit: usize,
        /// Tokens in the cache.
        cached: usize,
        /// Tokens of the refused pass.
        requested: usize,
    },
    /// A product that is an integer came back as something else: noise beyond what the parameters allow, or a server that
    /// computes something else. Depends on decrypted values: for the local user, when the traffic of the prediction has ended.
    #[error(
        "the server's products are not the integers that its model gives; do not trust this server's predictions"
    )]
    Inexact,
    /// A token id is not in the vocabulary.
    #[error("token id {got} is not below the vocabulary size {vocab}")]
    TokenOutOfRange {
        /// The id.
        got: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A value exceeds a limit of [`crate::limits`].
    #[error("{what}: {got} exceeds the limit {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// Value found.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A sampling parameter is out of range.
    #[error("sampling: {field} must be {expected}, got {got}")]
    Sampling {
        /// The parameter.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value.
        got: f64,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A backend of the remote linear layers failed.
    #[error(transparent)]
    Backend(BoxedError),
}

/// The cause of an error, kept for its `source()`.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    /// Wraps an error of a backend implemented outside this crate.
    pub fn backend(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Backend(Box::new(source))
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A damaged file, with the reason in words.
    pub(crate) fn malformed(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        reason: impl std::fmt::Display,
    ) -> Self {
        Self::Malformed { path: path.into(), field: field.into(), reason: reason.to_string(), source: None }
    }

    /// A damaged file, as a parser reported it.
    pub(crate) fn malformed_by(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        source: impl Into<BoxedError>,
    ) -> Self {
        let source = source.into();
        Self::Malformed {
            path: path.into(),
            field: field.into(),
            reason: source.to_string(),
            source: Some(source),
        }
    }

    pub(crate) fn config(field: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Config { field, reason: reason.to_string(), source: None }
    }

    /// An unusable configuration, as a parser reported it.
    pub(crate) fn config_by(field: &'static str, source: impl Into<BoxedError>) -> Self {
        let source = source.into();
        Self::Config { field, reason: source.to_string(), source: Some(source) }
    }

    pub(crate) fn out_of_range(
        what: &'static str,
        range: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Self {
        Self::OutOfRange { what, range: range.to_string(), got: got.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn the_parsers_error_is_kept_as_the_source() {
        let parse = || serde_json::from_str::<u8>("x").unwrap_err();
        for error in [Error::malformed_by("f", "header", parse()), Error::config_by("config.json", parse())] {
            let source = error.source().expect("the parser's error");
            assert!(source.downcast_ref::<serde_json::Error>().is_some());
            assert!(error.to_string().contains(&source.to_string()), "{error}");
        }
        assert_eq!(Error::out_of_range("n", "1 to 5", 6).to_string(), "n must be 1 to 5, got 6");
    }
}
