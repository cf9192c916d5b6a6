//! Redacting, restoring and checking single texts; state and counters.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::access::Access;
use super::audit::Entry;
use super::conversations::{Choices, lock};
use super::metrics::{Request, Type};
use super::reply::Refusal;
use super::{MAX_BODY_BYTES, Shared};
use crate::commands::SpanRecord;
use crate::vault::{Redacted, Scope};

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
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Refusal::bad("the request broke off"),
    })
}

/// The refusal of a body that is too large.
pub(super) fn too_large() -> Refusal {
    let message = format!("the request has more than {MAX_BODY_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// Reads JSON. The message tells what is wrong and where, not what is there.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::bad("the request begins with a byte order mark; send JSON without one"));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(Refusal::bad("the request is gzip; say so in Content-Encoding"));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(Refusal::bad(format!("the request is not UTF-8 from byte {} on", error.valid_up_to())));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let reason = error.to_string();
        let what = match error.classify() {
            serde_json::error::Category::Data if is_object(bytes) => {
                "the request has not the fields it needs"
            }
            serde_json::error::Category::Data => "the request is no JSON object",
            serde_json::error::Category::Eof if bytes.iter().all(u8::is_ascii_whitespace) => {
                "the request is empty"
            }
            serde_json::error::Category::Eof => "the request ends in the middle of its JSON",
            _ if reason.contains("surrogate") || reason.contains("hex escape") => {
                "the request holds half of a surrogate pair, or another escape that stands for no character"
            }
            _ if reason.contains("recursion") => "the request is nested too deep",
            _ => "the request is not valid JSON",
        };
        Refusal::bad(format!("{what}: line {}, column {}", error.line(), error.column()))
    })
}

fn is_object(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
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

    async fn redact_text(
        &self,
        access: &Access,
        bytes: &[u8],
        dry: bool,
        entry: &mut Entry,
    ) -> Result<(Redacted, String), Refusal> {
        let Text { text, choices } = parse(bytes)?;
        let choices = Choices::from(choices);
        choices.check()?;
        let answer = self.scans.scan(std::slice::from_ref(&text)).await?;
        (entry.tokens, entry.detection_ms) = (answer.tokens, answer.ms);
        let mut spans = answer.spans.into_iter().next().ok_or(sotto_pii::Error::Unavailable)?;
        access.keep(&mut spans);
        choices.apply(&text, &mut spans)?;
        // Without a name, a session of its own, whose name the answer tells.
        let session = choices.session.clone().unwrap_or_else(|| hex::encode(rand::random::<[u8; 16]>()));
        let named = choices.session.as_deref().or((!dry).then_some(session.as_str()));
        let conversation = access.conversations.of(named, None)?;
        let mut state = lock(&conversation);
        state.vault.follow(&access.policy.vault_rules);
        let redacted = if dry {
            // On a copy, to leave no trace.
            state.vault.clone().redact_sparing(&text, &spans, &choices.drop)?
        } else {
            let redacted = state.vault.redact_sparing(&text, &spans, &choices.drop)?;
            let scope = Scope::of_request(&state.vault, [redacted.text.as_str()]);
            state.scope.extend(&scope);
            redacted
        };
        entry.count(&redacted.spans);
        Ok((redacted, session))
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
    Extension(access): Extension<Arc<Access>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let mut entry = Entry::new("redact").by(&access);
    let result = match body(bytes) {
        Ok(bytes) => shared.redact_text(&access, &bytes, false, &mut entry).await,
        Err(refusal) => Err(refusal),
    };
    let recorded = |(redacted, session): (Redacted, String)| {
        let mut record = record(&redacted);
        record["session"] = session.into();
        Json(record)
    };
    shared.answer(entry, result.map(recorded))
}

pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    Extension(access): Extension<Arc<Access>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let mut entry = Entry::new("check").by(&access);
    let result = match body(bytes) {
        Ok(bytes) => shared.redact_text(&access, &bytes, true, &mut entry).await,
        Err(refusal) => Err(refusal),
    };
    shared.answer(entry, result.map(|(redacted, _)| Json(record(&redacted))))
}

pub(super) async fn restore(
    State(shared): State<Arc<Shared>>,
    Extension(access): Extension<Arc<Access>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let restored = |bytes: Bytes| {
        let Text { text, choices } = parse(&bytes)?;
        let Some(session) = choices.session.as_deref() else {
            return Err(Refusal::bad(
                "name the session that /redact told, or that the request to the API named",
            ));
        };
        let conversation = access.conversations.of(Some(session), None)?;
        let restored = lock(&conversation).scope.restore(&text);
        Ok(Json(json!({
            "restored": restored.text, "replaced": restored.replaced, "unknown": restored.unknown,
            "withheld": restored.withheld,
        })))
    };
    let result = body(bytes).and_then(restored);
    shared.answer(Entry::new("restore").by(&access), result)
}

pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if shared.scans.is_alive() {
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
