//! Errors of the command line and the proxy. No message contains text that was to be redacted.

use std::path::Path;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the anonymizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Configuration, detection or the vault.
    #[error(transparent)]
    Pii(#[from] sotto_pii::Error),
    /// The server, the model's files, or the connection to it.
    #[error(transparent)]
    Runtime(#[from] sotto_protocol::Error),
    /// The provider cannot be reached.
    #[error("provider: {0}")]
    Upstream(String),
    /// Something was let through that should not have been.
    #[error("{0}")]
    Leak(String),
    /// Wrong use of the command line.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// An input-output error at `path`.
    pub fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        sotto_pii::Error::io(doing, path, source).into()
    }

    /// An input-output error of something that is not a file.
    pub fn io_of(context: impl Into<String>, source: std::io::Error) -> Self {
        sotto_pii::Error::Io { context: context.into(), source }.into()
    }

    /// An input that is not what it should be. `reason` holds none of its text.
    pub fn input(place: impl Into<String>, reason: impl Into<String>) -> Self {
        sotto_pii::Error::Input { place: place.into(), reason: reason.into() }.into()
    }

    /// Exit code of the command line: 1 something went wrong, 2 wrong use, 3 detection cannot be trusted or reached, 4 a
    /// leak, 141 standard output closed.
    pub fn exit_code(&self) -> u8 {
        use sotto_pii::Error as Pii;
        match self {
            Self::Usage(_) | Self::Pii(Pii::Config { .. }) => 2,
            Self::Pii(Pii::Untrusted | Pii::Unavailable | Pii::Detect(_)) => 3,
            Self::Pii(Pii::Detector(error)) => error.downcast_ref::<Self>().map_or(3, Self::exit_code),
            Self::Leak(_) => 4,
            Self::Runtime(error) => match sotto::exit::exit_code(error) {
                // Unreachable, refused, another model or wrong weights, no slots: nothing was detected.
                3 | 4 | 5 | 10 => 3,
                code @ (2 | 130 | 141) => code,
                _ => 1,
            },
            _ => 1,
        }
    }
}

impl From<sotto_engine::fetch::FetchError> for Error {
    fn from(error: sotto_engine::fetch::FetchError) -> Self {
        Self::Runtime(error.into())
    }
}

/// For [`TextDetector`](crate::scan::TextDetector), whose errors are those of [`sotto_pii`].
impl From<Error> for sotto_pii::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Pii(error) => error,
            other => Self::Detector(Box::new(other)),
        }
    }
}
