//! Refusals of the server as errors of this crate.

use std::time::Duration;

use tonic::{Code, Status};

use crate::terminal::drives_terminal;
use sotto_protocol::error::{Error, reason};
use sotto_protocol::wire::Refusal;
use sotto_protocol::{METADATA_REASON, METADATA_RETRY_AFTER_MS};

/// Longest server message that is shown, in bytes.
const MAX_MESSAGE_BYTES: usize = 300;

/// Pause before trying again when the server names none.
const DEFAULT_RETRY: Duration = Duration::from_millis(200);

/// The error that a gRPC status stands for.
pub(crate) fn refused(status: &Status) -> Error {
    let word = metadata(status, METADATA_REASON).unwrap_or_default();
    match word {
        reason::CREDENTIAL => Error::Credential,
        reason::BUDGET => Error::Remote { reason: word.to_owned(), message: shown(status) },
        reason::LEASE => Error::Lease("the server no longer accepts it"),
        reason::NOT_READY => Error::NotReady,
        reason::BATCH_CONFLICT => Error::BatchConflict,
        reason::BATCH_DEAD => Error::BatchDead,
        reason::SLOT_REUSED => Error::SlotReused,
        reason::NO_SUCH_BATCH => Error::NoSuchBatch,
        reason::BUSY => Error::Busy { what: "the server's queue", retry_after: retry_after(status) },
        reason::SHUTTING_DOWN => Error::ShuttingDown,
        reason::CANCELLED => Error::Cancelled,
        "" => match status.code() {
            Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled => Error::Transport(shown(status)),
            Code::Unauthenticated => Error::Credential,
            code => Error::Remote { reason: format!("{code:?}"), message: shown(status) },
        },
        other => Error::Remote { reason: other.to_owned(), message: shown(status) },
    }
}

/// A refusal of the framed transport as the status that it would be.
pub(crate) fn of_refusal(refusal: Refusal) -> Status {
    let mut status = Status::new(Code::from_i32(refusal.code.cast_signed()), refusal.message);
    // A word that is no metadata is none that this program knows.
    if let Ok(word) = refusal.reason.parse() {
        status.metadata_mut().insert(METADATA_REASON, word);
    }
    status.metadata_mut().insert(METADATA_RETRY_AFTER_MS, refusal.retry_after_ms.into());
    status
}

fn metadata<'a>(status: &'a Status, key: &str) -> Option<&'a str> {
    status.metadata().get(key)?.to_str().ok()
}

fn retry_after(status: &Status) -> Duration {
    metadata(status, METADATA_RETRY_AFTER_MS)
        .and_then(|text| text.parse().ok())
        .map_or(DEFAULT_RETRY, Duration::from_millis)
}

/// The server's message without control characters, which could drive a terminal, and of bounded length.
fn shown(status: &Status) -> String {
    let message: String = status.message().chars().filter(|&c| !drives_terminal(c)).collect();
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, message: &str, word: Option<&str>) -> Status {
        let mut status = Status::new(code, message);
        if let Some(word) = word {
            status.metadata_mut().insert(METADATA_REASON, word.parse().unwrap());
        }
        status
    }

    #[test]
    fn words_decide_before_codes() {
        assert!(matches!(refused(&status(Code::Unknown, "", Some("credential"))), Error::Credential));
        assert!(matches!(refused(&status(Code::Unknown, "", Some("lease"))), Error::Lease(_)));
        assert!(matches!(refused(&status(Code::Unavailable, "gone", None)), Error::Transport(_)));
        assert!(
            matches!(refused(&status(Code::InvalidArgument, "x", Some("new-word"))), Error::Remote { reason, .. } if reason == "new-word")
        );
    }

    #[test]
    fn messages_are_tamed() {
        let text = shown(&status(Code::Internal, &format!("\u{1b}[2J\u{202e}{}", "é".repeat(400)), None));
        assert!(text.len() <= MAX_MESSAGE_BYTES && text.starts_with("[2J"));
    }
}
