//! Who may ask: holders of the key, from this machine, not from a web page that was not allowed.

use std::net::SocketAddr;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::ApiError;

/// What stands before a key in `Authorization`.
const BEARER: &[u8] = b"bearer ";

/// What every request is checked against.
pub struct Guard {
    hosts: Vec<String>,
    /// Hosts that are taken with any port.
    names: Vec<String>,
    origins: Vec<String>,
    key: Option<Zeroizing<String>>,
}

impl Guard {
    /// Takes requests to `address` by any of this machine's names; without a key, from every program of this machine.
    pub fn new(address: SocketAddr, key: Option<Zeroizing<String>>) -> Self {
        let port = address.port();
        let hosts = vec![
            address.to_string(),
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
        ];
        Self { hosts, names: Vec::new(), origins: Vec::new(), key }
    }

    /// Also takes requests whose `Host` is one of these, such as `host.docker.internal:8642`; without a port, with any.
    #[must_use]
    pub fn allow_hosts(mut self, hosts: &[String]) -> Self {
        let (names, hosts): (Vec<_>, Vec<_>) =
            hosts.iter().cloned().partition(|host| without_port(host) == host);
        self.names.extend(names);
        self.hosts.extend(hosts);
        self
    }

    /// Also takes requests of web pages of these origins, such as `http://localhost:3000`; `*` stands for all.
    #[must_use]
    pub fn allow_origins(mut self, origins: &[String]) -> Self {
        self.origins.extend(origins.iter().map(|origin| origin.trim_end_matches('/').to_owned()));
        self
    }

    fn is_own_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(without_port(host)))
    }

    /// The origin that a browser may be told it is allowed, if the request has one that was allowed by name.
    pub fn allowed_origin<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let origin = headers.get(ORIGIN)?.to_str().ok()?;
        let allowed = |known: &String| known == "*" || known.eq_ignore_ascii_case(origin);
        self.origins.iter().any(allowed).then_some(origin)
    }

    /// Checks that a request is addressed to this machine and does not come from a page that was not allowed.
    ///
    /// # Errors
    /// 403 for an unknown `Host` or a foreign page.
    pub fn check_place(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if !self.is_own_host(text(HOST.as_str()).unwrap_or_default()) {
            let message =
                "unknown Host; use the base URL printed at start, or allow the name with --allow-host";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("unknown_host"));
        }
        if self.allowed_origin(headers).is_some() {
            return Ok(());
        }
        let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|host| self.is_own_host(host));
        let foreign = text(ORIGIN.as_str()).is_some_and(|origin| !own(origin))
            || text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
        if foreign {
            let message = "requests from web pages are refused; allow one with --allow-origin";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("foreign_origin"));
        }
        Ok(())
    }

    /// Checks the key, in `Authorization: Bearer` or, as Anthropic's clients send it, in `x-api-key`.
    ///
    /// # Errors
    /// 401 for a wrong or missing key.
    pub fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        // A key need not be ASCII, so these are bytes.
        let bytes = |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii());
        let bearer = bytes(AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, given) = value.split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then(|| given.trim_ascii())
        });
        // Takes the same time wherever two keys of one length differ.
        let is_right = |given: &[u8]| bool::from(given.ct_eq(key.trim().as_bytes()));
        if [bearer, bytes("x-api-key")].into_iter().flatten().any(is_right) {
            return Ok(());
        }
        let message = "wrong or missing API key; it is printed at start";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
    }
}

/// The host of `HOST:PORT`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address in brackets may have colons and no port.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_at(guard: &Guard, pairs: &[(&str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let checked = guard.check_place(&headers).and_then(|()| guard.check_key(&headers));
        checked.map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    fn guard() -> Guard {
        Guard::new("127.0.0.1:8642".parse().unwrap(), Some(Zeroizing::new("key".to_owned())))
    }

    #[test]
    fn host_origin_and_key_are_checked() {
        let status = |pairs: &[(&str, &str)]| status_at(&guard(), pairs);
        let (host, key) = (("host", "localhost:8642"), ("authorization", "Bearer key"));
        assert_eq!(status(&[host, key]), 200);
        assert_eq!(status(&[("host", "LOCALHOST:8642"), ("authorization", "bearer key")]), 200);
        assert_eq!(status(&[host, ("x-api-key", "key")]), 200);
        assert_eq!(status(&[host, ("authorization", "Bearer  key ")]), 200);
        assert_eq!(status(&[host, ("authorization", "Bearer none"), ("x-api-key", "key")]), 200);
        assert_eq!(status(&[("host", "127.0.0.1:8642"), key, ("origin", "http://127.0.0.1:8642")]), 200);
        assert_eq!(status(&[host, key, ("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(status(&[key]), 403);
        for foreign in ["evil.example", "localhost:1", "evil.example:8642"] {
            assert_eq!(status(&[("host", foreign), key]), 403, "{foreign}");
        }
        for origin in ["null", "http://evil.example", "https://localhost:8642", "http://localhost:1"] {
            assert_eq!(status(&[host, key, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(status(&[host, key, ("sec-fetch-site", "cross-site")]), 403);
        for wrong in ["", "Bearer ", "Bearer ke", "Bearer keys", "key", "Basic key"] {
            assert_eq!(status(&[host, ("authorization", wrong)]), 401, "{wrong}");
        }
    }

    #[test]
    fn a_key_need_not_be_ascii_and_a_host_may_have_any_port() {
        let key = Some(Zeroizing::new(" k\u{e9}y\n".to_owned()));
        let guard = Guard::new("127.0.0.1:8642".parse().unwrap(), key)
            .allow_hosts(&["box.example".to_owned(), "[fe80::1]".to_owned()]);
        let mut headers = HeaderMap::new();
        let value = axum::http::HeaderValue::from_bytes("Bearer k\u{e9}y".as_bytes()).unwrap();
        headers.insert(AUTHORIZATION, value);
        for (host, expected) in [
            ("box.example", true),
            ("BOX.example:99", true),
            ("[fe80::1]:1", true),
            ("[fe80::1]", true),
            ("other.example", false),
            ("box.example.evil:1", false),
            ("[fe80::2]:1", false),
        ] {
            headers.insert(HOST, host.parse().unwrap());
            assert_eq!(guard.check_place(&headers).is_ok(), expected, "{host}");
        }
        assert!(guard.check_key(&headers).is_ok());
    }

    #[test]
    fn named_hosts_and_origins_are_let_through_and_no_others() {
        let guard = guard()
            .allow_hosts(&["host.docker.internal:8642".to_owned()])
            .allow_origins(&["http://localhost:3000/".to_owned()]);
        let key = ("authorization", "Bearer key");
        let docker = ("host", "host.docker.internal:8642");
        assert_eq!(status_at(&guard, &[docker, key]), 200);
        let page = ("origin", "http://localhost:3000");
        assert_eq!(status_at(&guard, &[docker, key, page, ("sec-fetch-site", "cross-site")]), 200);
        assert_eq!(status_at(&guard, &[docker, page]), 401, "an origin is not a key");
        assert_eq!(status_at(&guard, &[docker, key, ("origin", "http://localhost:3001")]), 403);
    }
}
