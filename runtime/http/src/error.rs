//! Refusals in the form that OpenAI clients understand.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Longest name of a model that a message repeats, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Where Anthropic's endpoint is, whose errors have a form of their own.
const ANTHROPIC_PATH: &str = "/v1/messages";

/// Result of reading a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A refusal. Messages name fields and ranges, never the text of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    code: Option<&'static str>,
    param: Option<String>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A refusal with a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, param: None, retry_after: None }
    }

    /// 400: the request cannot be served as it is.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 for one field: `expected` completes the sentence that begins with its name.
    pub fn field(param: impl Into<String>, expected: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self::bad(format!("{param} {expected}")).with_code("invalid_value").with_param(param)
    }

    /// 400 for a field that this endpoint does not implement.
    pub fn unsupported(param: impl Into<String>, reason: &str) -> Self {
        let param = param.into();
        Self::bad(format!("{param} is not supported: {reason}"))
            .with_code("unsupported_parameter")
            .with_param(param)
    }

    /// 404 for a model that is not here.
    pub fn unknown_model(name: &str, known: &[&str]) -> Self {
        let known = known.join(", ");
        // A name is short; what is long is something else, which is not repeated.
        let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
        let more = if shown.len() < name.len() { "..." } else { "" };
        Self::new(
            StatusCode::NOT_FOUND,
            format!("The model {shown:?}{more} is not here. Available: {known}."),
        )
        .with_code("model_not_found")
        .with_param("model")
    }

    /// 400 for a conversation that does not fit the model.
    pub fn context_exceeded(message: impl Into<String>, param: &str) -> Self {
        Self::bad(message).with_code("context_length_exceeded").with_param(param)
    }

    /// With the code that programs look at.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// With the field at fault.
    #[must_use]
    pub fn with_param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// With the time after which another attempt makes sense.
    #[must_use]
    pub fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field at fault.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The code.
    pub fn code(&self) -> Option<&str> {
        self.code
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON object that carries it, in a body or an event of OpenAI's endpoints.
    pub fn object(&self) -> Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.kind(),
                "param": self.param,
                "code": self.code,
            }
        })
    }

    /// The JSON object that carries it at Anthropic's endpoint.
    pub fn anthropic_object(&self) -> Value {
        let kind = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            status if status.is_server_error() => "api_error",
            _ => self.kind(),
        };
        json!({ "type": "error", "error": { "type": kind, "message": self.message } })
    }

    fn respond(&self, object: Value) -> Response {
        let mut response = (self.status, Json(object)).into_response();
        if let Some(delay) = self.retry_after {
            let seconds = delay.as_secs().max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// As a response in the form that clients of `path` understand.
    pub fn into_response_at(self, path: &str) -> Response {
        if path.starts_with(ANTHROPIC_PATH) { self.into_anthropic_response() } else { self.into_response() }
    }

    /// As a response of Anthropic's endpoint.
    pub fn into_anthropic_response(self) -> Response {
        self.respond(self.anthropic_object())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond(self.object())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_find_code_field_and_delay() {
        let error = ApiError::field("max_tokens", "must be at least 1");
        assert_eq!(error.object()["error"]["param"], "max_tokens");
        assert_eq!(error.object()["error"]["message"], "max_tokens must be at least 1");
        let busy = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy");
        let response = busy.with_retry_after(Duration::from_millis(200)).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(ApiError::unknown_model("x", &["a", "b"]).object()["error"]["code"], "model_not_found");
        let long = ApiError::unknown_model(&"ä".repeat(5000), &["a"]);
        assert!(long.message().len() < 300, "{}", long.message().len());
    }
}
