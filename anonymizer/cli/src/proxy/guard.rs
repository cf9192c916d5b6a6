//! Who may ask: holders of the key, from this machine, not from another web page.

use std::net::SocketAddr;
use std::sync::Arc;

use super::access::Access;
use super::reply::Refusal;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};

/// What every request is checked against.
pub(super) struct Guard {
    hosts: Vec<String>,
    keys: Vec<Arc<Access>>,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, keys: Vec<Arc<Access>>) -> Self {
        let port = address.port();
        let names = [
            address.to_string(),
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
        ];
        Self { hosts: names.to_vec(), keys }
    }

    /// Lets requests to this machine's own name through, from programs or from the page served here.
    pub(super) fn check_place(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(HOST.as_str()).unwrap_or_default();
        let is_own = |host: &str| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        if !is_own(host) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "host",
                "unknown Host; use the address printed at start",
            ));
        }
        let foreign = |origin: &str| !origin.strip_prefix("http://").is_some_and(is_own);
        let is_foreign = text(ORIGIN.as_str()).is_some_and(foreign)
            || text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
        if is_foreign {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "origin",
                "requests from other web pages are refused",
            ));
        }
        Ok(())
    }

    /// Lets holders of a key through; says which.
    pub(super) fn check_key(&self, headers: &HeaderMap) -> Result<Arc<Access>, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // Clients of Anthropic show theirs in a header of its own.
        let given = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let given = given.or_else(|| text("x-api-key")).unwrap_or_default();
        let mut found = None;
        // All are compared, whichever fits.
        for access in &self.keys {
            let key = &access.policy.key;
            if !key.is_empty() && same(given.as_bytes(), key.as_bytes()) {
                found = Some(access);
            }
        }
        found.map(Arc::clone).ok_or_else(|| {
            Refusal::new(StatusCode::UNAUTHORIZED, "key", "wrong or missing key; it is printed at start")
        })
    }
}

/// Compares without telling by its time where two keys differ.
fn same(given: &[u8], key: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != key.len());
    for (index, &byte) in key.iter().enumerate() {
        difference |= byte ^ given.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::super::access::KeyPolicy;
    use super::*;
    use crate::vault::VaultRules;
    use zeroize::Zeroizing;

    fn guard(keys: &[&str]) -> Guard {
        let access = |key: &&str| {
            Arc::new(Access::new(KeyPolicy {
                name: (*key).to_owned(),
                key: Zeroizing::new((*key).to_owned()),
                routes: None,
                allow_attachments: false,
                hint: false,
                vault_rules: VaultRules::default(),
            }))
        };
        Guard::new("127.0.0.1:8642".parse().unwrap(), keys.iter().map(access).collect())
    }

    fn verdict(pairs: &[(&str, &str)]) -> u16 {
        let guard = guard(&["key", "second"]);
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let checked = guard.check_place(&headers).and_then(|()| guard.check_key(&headers));
        checked.map_or_else(|refusal| refusal.status().as_u16(), |_| 200)
    }

    #[test]
    fn host_origin_and_key_are_checked() {
        let (host, key) = (("host", "localhost:8642"), ("authorization", "Bearer key"));
        assert_eq!(verdict(&[host, key]), 200);
        assert_eq!(verdict(&[("host", "127.0.0.1:8642"), key, ("origin", "http://127.0.0.1:8642")]), 200);
        assert_eq!(verdict(&[host, key, ("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(verdict(&[key]), 403);
        assert_eq!(verdict(&[("host", "evil.example"), key]), 403);
        assert_eq!(verdict(&[("host", "localhost:1"), key]), 403);
        for origin in ["null", "http://evil.example", "https://localhost:8642", "http://localhost:1"] {
            assert_eq!(verdict(&[host, key, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(verdict(&[host, key, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(verdict(&[host, ("x-api-key", "key")]), 200);
        assert_eq!(verdict(&[host, ("x-api-key", "other")]), 401);
        assert_eq!(verdict(&[host, ("x-api-key", "second")]), 200);
        assert!(guard(&[""]).check_key(&HeaderMap::new()).is_err());
        for wrong in ["", "Bearer ", "Bearer ke", "Bearer keys", "key", "Basic key"] {
            assert_eq!(verdict(&[host, ("authorization", wrong)]), 401, "{wrong}");
        }
    }
}
