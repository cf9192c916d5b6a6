//! Refusals in the form of the OpenAI API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::worker::Failure;
use crate::error::Error;

/// A request that is not carried out, and why. Never holds text of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, also of an event in a stream.
    pub(super) fn body(&self) -> serde_json::Value {
        json!({ "error": { "message": self.message, "type": "anonymizer_error", "code": self.code } })
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Untrusted => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "detection_untrusted",
                "detection answered wrongly about a canary sentence; nothing was forwarded",
            ),
            Failure::Unavailable(reason) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "detection_unavailable",
                format!("detection is not available, nothing was forwarded: {reason}"),
            ),
            Failure::Busy => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "too many requests wait for detection; try again",
            ),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Upstream(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", error.to_string())
            }
            Error::Input { .. } => Self::bad(error.to_string()),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", other.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
