//! Refusals in the form of the OpenAI API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::protocol::Api;
use super::scan_thread::Failure;
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

    /// Nothing came of a request.
    pub(super) fn ended() -> Self {
        Failure::Unavailable("the request ended".to_owned()).into()
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body in the form of an API, for an event in its stream.
    pub(super) fn body_for(&self, api: Api) -> serde_json::Value {
        let mut body = self.body();
        if matches!(api, Api::Messages | Api::Responses) {
            body["type"] = "error".into();
        }
        body
    }

    /// The body.
    pub(super) fn body(&self) -> serde_json::Value {
        json!({ "error": { "message": self.message, "type": "anonymizer_error", "code": self.code } })
    }
}

/// A path that is none.
pub(super) fn not_found() -> Refusal {
    let paths: Vec<String> = Api::ALL.iter().map(|api| format!("POST /v1{}", api.path())).collect();
    let message = format!(
        "no such endpoint; there are {}, GET /v1/models, GET /v1/models/ID, POST /redact, POST /check, POST /restore, \
         GET /healthz, GET /metrics and GET /",
        paths.join(", ")
    );
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// A path that takes another method.
pub(super) fn wrong_method(path: &str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("/v1{path} takes POST"))
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

impl From<sotto_pii::Error> for Refusal {
    fn from(error: sotto_pii::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Upstream(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", error.to_string())
            }
            Error::Pii(sotto_pii::Error::Blocked { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "blocked", error.to_string())
            }
            Error::Pii(sotto_pii::Error::Input { .. }) => Self::bad(error.to_string()),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", other.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
