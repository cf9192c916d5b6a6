//! Redacting, restoring and checking single texts; state and counters.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::audit::Entry;
use super::metrics::{Request, Type};
use super::reply::Refusal;
use super::sessions::{self, Choices, lock};
use super::{MAX_BODY_BYTES, Shared};
use crate::cli::SpanRecord;
use crate::error::Error;
use crate::vault::Redacted;

#[derive(Deserialize)]
struct Text {
    text: String,
    #[serde(flatten)]
    choices: Flat,
}

/// As [`Choices`], beside other fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Flat {
    session: Option<String>,
    add: Vec<crate::recognizers::denied::DeniedValue>,
    drop: Vec<String>,
}

impl From<Flat> for Choices {
    fn from(flat: Flat) -> Self {
        Self { session: flat.session, add: flat.add, drop: flat.drop }
    }
}

/// A body that was read, or why it was not.
pub(super) fn body(bytes: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the request has more than {MAX_BODY_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        }
        _ => Refusal::bad("the request broke off"),
    })
}

/// Reads JSON. The message tells where it is wrong, not what is there.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Refusal::bad("the request is not UTF-8"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "the request has not the fields it needs",
            _ => "the request is not valid JSON (surrogates come in pairs)",
        };
        Refusal::bad(format!("{what}: line {}, column {}", error.line(), error.column()))
    })
}

impl Shared {
    /// Notes what was done.
    pub(super) fn note(&self, entry: &Entry) {
        let request = Request { endpoint: entry.endpoint, status: entry.status };
        self.metrics.requests.get_or_create(&request).inc();
        for (label, &count) in &entry.spans {
            self.metrics.spans.get_or_create(&Type { label: label.clone() }).inc_by(count as u64);
        }
        self.metrics.tokens.inc_by(entry.tokens as u64);
        if entry.detection_ms > 0.0 {
            self.metrics.detection_seconds.observe(entry.detection_ms / 1e3);
        }
        self.audit.write(entry);
    }

    async fn redact_text(&self, bytes: &[u8], dry: bool, entry: &mut Entry) -> Result<Redacted, Refusal> {
        let Text { text, choices } = parse(bytes)?;
        let choices = Choices::from(choices);
        choices.check()?;
        let answer = self.worker.scan(std::slice::from_ref(&text)).await?;
        (entry.tokens, entry.detection_ms) = (answer.tokens, answer.ms);
        let mut spans = answer.spans.into_iter().next().ok_or(Error::Unavailable)?;
        choices.apply(&text, &mut spans)?;
        let vault = self.sessions.vault(choices.session.as_deref().unwrap_or(sessions::DEFAULT));
        let redacted = if dry {
            sessions::preview(&vault, &text, &spans, &choices.drop)?
        } else {
            lock(&vault).redact_sparing(&text, &spans, &choices.drop)?
        };
        entry.count(&redacted.spans);
        Ok(redacted)
    }

    fn answer<T: IntoResponse>(&self, mut entry: Entry, result: Result<T, Refusal>) -> Response {
        let response = match result {
            Ok(answer) => answer.into_response(),
            Err(refusal) => refusal.into_response(),
        };
        entry.status = response.status().as_u16();
        self.note(&entry);
        response
    }
}

fn record(redacted: &Redacted) -> serde_json::Value {
    let spans: Vec<SpanRecord<'_>> = redacted.spans.iter().map(SpanRecord::from).collect();
    json!({ "redacted": redacted.text, "spans": spans })
}

pub(super) async fn redact(
    State(shared): State<Arc<Shared>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let mut entry = Entry::new("redact");
    let result = match body(bytes) {
        Ok(bytes) => shared.redact_text(&bytes, false, &mut entry).await,
        Err(refusal) => Err(refusal),
    };
    shared.answer(entry, result.map(|redacted| Json(record(&redacted))))
}

pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let mut entry = Entry::new("check");
    let result = match body(bytes) {
        Ok(bytes) => shared.redact_text(&bytes, true, &mut entry).await,
        Err(refusal) => Err(refusal),
    };
    shared.answer(entry, result.map(|redacted| Json(record(&redacted))))
}

pub(super) async fn restore(
    State(shared): State<Arc<Shared>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let restored = |bytes: Bytes| {
        let Text { text, choices } = parse(&bytes)?;
        let vault = shared.sessions.vault(choices.session.as_deref().unwrap_or(sessions::DEFAULT));
        let restored = lock(&vault).restore(&text);
        Ok(Json(
            json!({ "restored": restored.text, "replaced": restored.replaced, "unknown": restored.unknown }),
        ))
    };
    let result = body(bytes).and_then(restored);
    shared.answer(Entry::new("restore"), result)
}

pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if shared.worker.is_alive() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "detection_unavailable", "detection has ended")
            .into_response()
    }
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shared.metrics.text())
        .into_response()
}

pub(super) async fn page(State(shared): State<Arc<Shared>>) -> Response {
    super::page::page(&shared.policy)
}
