//! How an error of ours looks to a client: a gRPC status, a stable word, perhaps a waiting time.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use sotto_protocol::error::{Error, reason};
use sotto_protocol::wire::Refusal;
use sotto_protocol::{METADATA_REASON, METADATA_RETRY_AFTER_MS};

/// The status for `error`. Internal errors are logged here and reach the client without their text.
pub(crate) fn status(error: &Error) -> Status {
    let (code, word, retry_after) = classify(error);
    tracing::debug!(%error, "refused");
    let message = if code == Code::Internal {
        tracing::error!(%error, "internal error");
        "internal error; the server's log has more".to_owned()
    } else {
        error.to_string()
    };
    let mut status = Status::new(code, message);
    if let Some(word) = word {
        status.metadata_mut().insert(METADATA_REASON, MetadataValue::from_static(word));
    }
    if let Some(pause) = retry_after {
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(METADATA_RETRY_AFTER_MS, millis.into());
    }
    status
}

/// The same for the framed transport.
pub(crate) fn refusal(status: &Status) -> Refusal {
    let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Refusal {
        code: status.code() as u32,
        reason: text(METADATA_REASON).to_owned(),
        message: status.message().to_owned(),
        retry_after_ms: text(METADATA_RETRY_AFTER_MS).parse().unwrap_or(0),
    }
}

fn classify(error: &Error) -> (Code, Option<&'static str>, Option<Duration>) {
    let (code, word) = match error {
        Error::Malformed { .. } | Error::TooLong { .. } => (Code::InvalidArgument, reason::MALFORMED),
        Error::Version { .. } => (Code::FailedPrecondition, reason::VERSION),
        Error::Credential => (Code::Unauthenticated, reason::CREDENTIAL),
        Error::Budget { .. } => (Code::ResourceExhausted, reason::BUDGET),
        Error::Lease(_) => (Code::PermissionDenied, reason::LEASE),
        Error::UnknownModel { .. } => (Code::NotFound, reason::UNKNOWN_MODEL),
        Error::NotReady => {
            return (Code::Unavailable, Some(reason::NOT_READY), Some(Duration::from_secs(1)));
        }
        Error::BatchConflict => (Code::AlreadyExists, reason::BATCH_CONFLICT),
        Error::BatchDead => (Code::NotFound, reason::BATCH_DEAD),
        Error::SlotReused => (Code::PermissionDenied, reason::SLOT_REUSED),
        Error::NoSuchBatch => (Code::NotFound, reason::NO_SUCH_BATCH),
        Error::Busy { retry_after, .. } => {
            return (Code::ResourceExhausted, Some(reason::BUSY), Some(*retry_after));
        }
        Error::ShuttingDown => {
            return (Code::Unavailable, Some(reason::SHUTTING_DOWN), Some(Duration::from_secs(1)));
        }
        Error::Cancelled => (Code::Cancelled, reason::CANCELLED),
        _ => return (Code::Internal, None, None),
    };
    (code, Some(word), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_says_when_to_come_back() {
        let status = status(&Error::Busy { what: "x", retry_after: Duration::from_millis(250) });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get(METADATA_RETRY_AFTER_MS).unwrap(), "250");
        assert_eq!(status.metadata().get(METADATA_REASON).unwrap(), reason::BUSY);
    }

    #[test]
    fn internal_errors_keep_their_text_to_themselves() {
        let status = status(&Error::Internal("/etc/secret-path".to_owned()));
        assert!(!status.message().contains("secret"));
    }
}
