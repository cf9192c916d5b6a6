//! The provider.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use zeroize::Zeroizing;

use super::protocol::Api;
use crate::error::{Error, Result};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of the provider.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// Headers of a request that the provider needs and that say nothing about the text.
const PASSED: [&str; 6] = [
    "openai-organization",
    "openai-project",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
    "user-agent",
];
/// Headers of an answer that programs need: when to come back, and what to tell the provider's support.
const PASSED_BACK: [&str; 5] =
    ["retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "request-id"];
/// How further headers of that kind begin.
const PASSED_BACK_PREFIXES: [&str; 3] = ["x-ratelimit-", "anthropic-ratelimit-", "openai-"];

/// The headers of an answer that are passed on.
pub(super) fn passed_back(headers: &HeaderMap) -> HeaderMap {
    let is_passed = |name: &str| {
        PASSED_BACK.contains(&name) || PASSED_BACK_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let passed = headers.iter().filter(|(name, _)| is_passed(name.as_str()));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Where scrubbed requests go.
pub(super) struct Upstream {
    client: reqwest::Client,
    base: String,
    key: Option<Zeroizing<String>>,
}

impl Upstream {
    /// A provider at a base address such as `https://api.example.com/v1`.
    pub(super) fn new(base: &str, key: Option<Zeroizing<String>>) -> Result<Self> {
        // An empty key is none.
        let key = key.filter(|key| !key.trim().is_empty());
        let refused = |got: &str| sotto_pii::Error::Config {
            field: "upstream".to_owned(),
            expected: "an http or https address such as https://api.example.com/v1".to_owned(),
            got: got.to_owned(),
        };
        let url = Url::parse(base).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() {
            return Err(refused("an address of another kind").into());
        }
        if url.scheme() == "http" && !is_here(&url) {
            tracing::warn!(
                "the provider's address is http: requests, answers and its key cross the network unencrypted"
            );
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            // Where a provider sends us, nobody has agreed to send texts.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Upstream(reason(&error)))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// Sends a scrubbed request.
    pub(super) async fn post(
        &self,
        api: Api,
        body: Vec<u8>,
        headers: &HeaderMap,
    ) -> Result<reqwest::Response> {
        let mut request = self.client.post(format!("{}{}", self.base, api.path())).body(body);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(accept) = headers.get(ACCEPT) {
            request = request.header(ACCEPT, accept);
        }
        self.send(passed(request, headers), api == Api::Messages).await
    }

    /// Asks for the provider's models, `path` being `/models` or one below it.
    pub(super) async fn models(&self, path: &str, headers: &HeaderMap) -> Result<reqwest::Response> {
        let request = passed(self.client.get(format!("{}{path}", self.base)), headers);
        self.send(request, headers.contains_key("anthropic-version")).await
    }

    /// Sends a request with the key, as OpenAI or as Anthropic expects it.
    async fn send(&self, mut request: reqwest::RequestBuilder, anthropic: bool) -> Result<reqwest::Response> {
        if let Some(key) = &self.key {
            let (name, value) = match anthropic {
                true => (HeaderName::from_static("x-api-key"), Zeroizing::new(key.to_string())),
                false => (AUTHORIZATION, Zeroizing::new(format!("Bearer {}", key.as_str()))),
            };
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                Error::Usage("the provider's key holds characters that no header can".to_owned())
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        request.send().await.map_err(|error| Error::Upstream(reason(&error)))
    }
}

/// A request with the headers of the client's that are passed on.
fn passed(request: reqwest::RequestBuilder, headers: &HeaderMap) -> reqwest::RequestBuilder {
    let values = PASSED.iter().filter_map(|name| Some((*name, headers.get(*name)?)));
    values.fold(request, |request, (name, value)| request.header(name, value))
}

/// Whether an address is one of this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// What went wrong, without the address: it may hold a password.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the request failed"
    };
    kind.to_owned()
}
