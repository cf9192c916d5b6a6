//! Who may ask: holders of the key, from this machine, not from a web page.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use zeroize::Zeroizing;

use super::wire::ApiError;

/// What every request is checked against.
pub(super) struct Guard {
    hosts: Vec<String>,
    key: Zeroizing<String>,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, key: String) -> Self {
        let port = address.port();
        let mut hosts =
            vec![format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        hosts.push(address.to_string());
        Self { hosts, key: Zeroizing::new(key) }
    }

    fn verdict(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(HOST).unwrap_or_default();
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "unknown Host; use the base URL printed at start",
            ));
        }
        if let Some(origin) = text(ORIGIN) {
            let own = origin.strip_prefix("http://").is_some_and(|host| self.hosts.iter().any(|h| h == host));
            if !own {
                return Err(ApiError::new(StatusCode::FORBIDDEN, "requests from web pages are refused"));
            }
        }
        let given = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if same(given.as_bytes(), self.key.as_bytes()) {
            Ok(())
        } else {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "wrong or missing API key; it is printed at start"))
        }
    }
}

/// Compares without telling by its time where two keys differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let mut difference = u8::from(a.len() != b.len());
    for (index, &byte) in b.iter().enumerate() {
        difference |= byte ^ a.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

/// Lets a request through or refuses it.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.verdict(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pairs: &[(&str, &str)]) -> u16 {
        let guard = Guard::new("127.0.0.1:8642".parse().unwrap(), "sk-key".to_owned());
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        guard.verdict(&headers).map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn host_origin_and_key_are_checked() {
        let key = ("authorization", "Bearer sk-key");
        assert_eq!(status(&[("host", "127.0.0.1:8642"), key]), 200);
        assert_eq!(status(&[("host", "LOCALHOST:8642"), key]), 200);
        assert_eq!(status(&[("host", "localhost:8642"), ("origin", "http://localhost:8642"), key]), 200);
        assert_eq!(status(&[("host", "evil.example:8642"), key]), 403);
        assert_eq!(status(&[key]), 403);
        assert_eq!(status(&[("host", "localhost:8642"), ("origin", "https://evil.example"), key]), 403);
        assert_eq!(status(&[("host", "localhost:8642"), ("origin", "null"), key]), 403);
        assert_eq!(status(&[("host", "localhost:8642")]), 401);
        for wrong in ["Bearer sk-ke", "Bearer sk-key2", "Bearer ", "sk-key", "Basic sk-key"] {
            assert_eq!(status(&[("host", "localhost:8642"), ("authorization", wrong)]), 401, "{wrong}");
        }
    }
}
