//! Errors of the crates below as refusals.

use std::time::Duration;

use axum::http::StatusCode;
use sotto_http::error::ApiError;
use sotto_protocol::error::{Error, reason};

/// Delay that is suggested when none is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The refusal for `error`.
pub(super) fn refusal(error: Error) -> ApiError {
    let message = error.to_string();
    let with = |status| ApiError::new(status, message.clone());
    match &error {
        Error::ContextExceeded { .. } | Error::Models(sotto_models::Error::ContextFull { .. }) => {
            ApiError::context_exceeded(message, "messages")
        }
        Error::Usage(_)
        | Error::TooLong { .. }
        | Error::OutOfRange { .. }
        | Error::Models(sotto_models::Error::Sampling { .. } | sotto_models::Error::ChatTemplate { .. }) => {
            with(StatusCode::BAD_REQUEST)
        }
        Error::Connect { .. } | Error::Transport(_) | Error::ShuttingDown => {
            with(StatusCode::BAD_GATEWAY).with_code("server_unreachable").with_retry_after(RETRY_AFTER)
        }
        Error::Budget { .. } => with(StatusCode::TOO_MANY_REQUESTS).with_code("insufficient_quota"),
        Error::Remote { reason, .. } if reason == reason::BUDGET => {
            with(StatusCode::TOO_MANY_REQUESTS).with_code("insufficient_quota")
        }
        Error::Busy { retry_after, .. } => {
            with(StatusCode::SERVICE_UNAVAILABLE).with_code("busy").with_retry_after(*retry_after)
        }
        Error::SlotTimeout { .. } | Error::NotReady => {
            with(StatusCode::SERVICE_UNAVAILABLE).with_code("no_masks").with_retry_after(RETRY_AFTER)
        }
        _ => with(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The refusal while the endpoint ends.
pub(super) fn shutting_down() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "this endpoint is shutting down")
        .with_code("shutting_down")
        .with_retry_after(RETRY_AFTER)
}

/// The refusal for a thread of this process that ended.
pub(super) fn thread_ended() -> ApiError {
    refusal(Error::Internal("the session thread ended".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_can_tell_what_to_do() {
        let full = refusal(Error::ContextExceeded { tokens: 9031, limit: 8192, reserved: 1 });
        assert_eq!((full.status().as_u16(), full.code()), (400, Some("context_length_exceeded")));
        assert!(full.message().contains("9031") && full.message().contains("8192"));
        let budget = Error::Budget { counter: "mask slots", wanted: 64, left: 16 };
        assert_eq!(refusal(budget).status().as_u16(), 429);
        assert_eq!(refusal(Error::ShuttingDown).status().as_u16(), 502);
    }
}
