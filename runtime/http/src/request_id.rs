//! An id for each request, and JSON bodies for the errors that the framework makes.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::error::ApiError;

/// The header that carries the id.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The same in Anthropic's protocol.
pub const ANTHROPIC_HEADER: HeaderName = HeaderName::from_static("request-id");

/// Gives each response an `x-request-id`, and a JSON body if it is an error without one.
pub async fn label(request: Request<Body>, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_json {
        let message = match status {
            StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take {method}"),
            StatusCode::PAYLOAD_TOO_LARGE => "the request body is too large".to_owned(),
            _ => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        };
        let allow = response.headers().get(axum::http::header::ALLOW).cloned();
        response = ApiError::new(status, message).into_response_at(&path);
        if let Some(allow) = allow {
            response.headers_mut().insert(axum::http::header::ALLOW, allow);
        }
    }
    if status == StatusCode::SERVICE_UNAVAILABLE && !response.headers().contains_key(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    }
    if let Ok(id) = HeaderValue::from_str(&new_id("req")) {
        response.headers_mut().insert(ANTHROPIC_HEADER, id.clone());
        response.headers_mut().insert(HEADER, id);
    }
    response
}

/// `prefix-` and 96 random bits in hexadecimal.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 12]>()))
}
