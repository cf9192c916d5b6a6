//! The provider.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of the provider.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// Headers of a request that the provider needs and that say nothing about the text.
const PASSED: &[&str] = &["openai-organization", "openai-project", "openai-beta"];

/// Where scrubbed requests go.
pub(super) struct Upstream {
    client: reqwest::Client,
    base: String,
    key: Option<Zeroizing<String>>,
}

impl Upstream {
    /// A provider at a base address such as `https://api.example.com/v1`.
    pub(super) fn new(base: &str, key: Option<Zeroizing<String>>) -> Result<Self> {
        let refused = |got: &str| Error::Config {
            field: "upstream".to_owned(),
            expected: "an http or https address such as https://api.example.com/v1".to_owned(),
            got: got.to_owned(),
        };
        let url = Url::parse(base).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() {
            return Err(refused("an address of another kind"));
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
    pub(super) async fn chat(&self, body: Vec<u8>, headers: &HeaderMap) -> Result<reqwest::Response> {
        let mut request = self.client.post(format!("{}/chat/completions", self.base)).body(body);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(accept) = headers.get(ACCEPT) {
            request = request.header(ACCEPT, accept);
        }
        for name in PASSED {
            if let Some(value) = headers.get(*name) {
                request = request.header(*name, value);
            }
        }
        self.send(request).await
    }

    /// Asks for the provider's models.
    pub(super) async fn models(&self) -> Result<reqwest::Response> {
        self.send(self.client.get(format!("{}/models", self.base))).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        if let Some(key) = &self.key {
            let value = Zeroizing::new(format!("Bearer {}", key.as_str()));
            request = request.header(AUTHORIZATION, value.as_str());
        }
        request.send().await.map_err(|error| Error::Upstream(reason(&error)))
    }
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
