//! Exit codes of the command line. Only programs have them; the crates below know errors alone.

use std::io::ErrorKind;

use sotto_protocol::error::{Error, reason};

/// Exit code of the command line for `error`: 1 other, 2 usage, 3 unreachable, 4 refused, 5 mismatch, 6 files missing or
/// damaged, 7 port in use, 8 disk full, 9 fetch failed, 10 out of slots, 130 cancelled, 141 standard output closed
/// (as a program that the signal for it ends).
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Usage(_)
        | Error::ConnectString(_)
        | Error::OutOfRange { .. }
        | Error::WireForm { .. }
        | Error::ContextExceeded { .. } => 2,
        Error::Connect { .. } | Error::Transport(_) | Error::ShuttingDown => 3,
        Error::Credential | Error::Budget { .. } | Error::Lease(_) | Error::Busy { .. } => 4,
        Error::Remote { reason, .. } if reason == reason::BUDGET => 4,
        Error::Remote { reason, .. }
            if [reason::VERSION, reason::UNKNOWN_MODEL].contains(&reason.as_str()) =>
        {
            5
        }
        Error::Version { .. } | Error::Digest { .. } | Error::UnknownModel { .. } | Error::Tls(_) => 5,
        Error::WrongWeights { .. } | Error::WrongMasks { .. } | Error::SlotReused => 5,
        Error::NotASplit { .. } => 6,
        Error::Io { source, .. }
            if [ErrorKind::NotFound, ErrorKind::IsADirectory].contains(&source.kind()) =>
        {
            6
        }
        Error::Models(error) => models_exit_code(error),
        Error::PortInUse { .. } => 7,
        Error::DiskFull { .. } => 8,
        Error::Fetch(_) => 9,
        Error::SlotTimeout { .. } => 10,
        Error::Cancelled => 130,
        Error::OutputClosed => 141,
        _ => 1,
    }
}

/// The model's files are missing or damaged, or a value is out of range.
fn models_exit_code(error: &sotto_models::Error) -> u8 {
    match error {
        sotto_models::Error::Io { .. }
        | sotto_models::Error::Malformed { .. }
        | sotto_models::Error::Mismatch { .. }
        | sotto_models::Error::UnsupportedArchitecture { .. }
        | sotto_models::Error::Config { .. }
        | sotto_models::Error::MissingTensor { .. }
        | sotto_models::Error::TensorShape { .. }
        | sotto_models::Error::Tokenizer { .. }
        | sotto_models::Error::Limit { .. } => 6,
        sotto_models::Error::Inexact => 5,
        sotto_models::Error::ContextFull { .. } | sotto_models::Error::Sampling { .. } => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_files_keep_their_exit_codes() {
        let remote = |reason: &str| Error::Remote { reason: reason.to_owned(), message: String::new() };
        let models = |error: sotto_models::Error| exit_code(&Error::from(error));
        let io = |kind: ErrorKind| sotto_models::Error::Io { path: "x".into(), source: kind.into() };
        let sampling = sotto_models::Error::Sampling { field: "top_p", expected: "a share", got: 2.0 };
        for (got, expected) in [
            (exit_code(&remote(reason::VERSION)), 5),
            (exit_code(&remote(reason::UNKNOWN_MODEL)), 5),
            (exit_code(&remote(reason::BUDGET)), 4),
            (exit_code(&remote("new-word")), 1),
            (models(io(ErrorKind::StorageFull)), 8),
            (models(io(ErrorKind::FileTooLarge)), 8),
            (models(io(ErrorKind::NotFound)), 6),
            (models(sotto_models::Error::MissingTensor { name: "w".to_owned() }), 6),
            (models(sampling), 2),
        ] {
            assert_eq!(got, expected);
        }
    }
}
