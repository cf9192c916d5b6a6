//! `/v1/chat/completions`: scrub, forward, restore.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Map, Value};

use super::audit::Entry;
use super::reply::Refusal;
use super::scrub::{Depth, Slot, Visitor, refuse_attachments};
use super::sessions::{self, Choices, lock};
use super::{Shared, api, restoring, stream, upstream};
use crate::detect::Span;
use crate::detect::overlap::resolve;
use crate::error::{Error, Result};
use crate::vault::Vault;

/// Bytes of an answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Field of a request that is for this proxy and never forwarded.
const OWN_FIELD: &str = "anonymizer";
/// Header that names the session.
const SESSION_HEADER: &str = "x-anonymizer-session";
/// Header of an answer that lists placeholders nobody knows.
const UNKNOWN_HEADER: &str = "x-anonymizer-unknown";

/// A request that may leave.
struct Scrubbed {
    body: Vec<u8>,
    vault: Arc<Mutex<Vault>>,
}

pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let mut entry = Entry::new("chat");
    let result = complete(&shared, &headers, bytes, &mut entry).await;
    let response = result.unwrap_or_else(IntoResponse::into_response);
    entry.status = response.status().as_u16();
    shared.note(&entry);
    response
}

async fn complete(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
    entry: &mut Entry,
) -> Result<Response, Refusal> {
    let bytes = api::body(bytes)?;
    let full =
        |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests are under way; try again");
    let room = shared.room.try_acquire().map_err(full)?;
    let request = api::parse::<Map<String, Value>>(&bytes)?;
    let Scrubbed { body, vault } = scrub(shared, headers, request, entry).await?;
    entry.forwarded = true;
    let answer = shared.upstream.chat(body, headers).await?;
    drop(room);
    let kind =
        answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    if answer.status().is_success() && kind.starts_with("text/event-stream") {
        return Ok(stream::respond(Arc::clone(shared), vault, answer));
    }
    whole(shared, &vault, answer, &kind).await
}

/// Scrubs a request; what cannot be scrubbed is refused.
async fn scrub(
    shared: &Shared,
    headers: &HeaderMap,
    mut request: Map<String, Value>,
    entry: &mut Entry,
) -> Result<Scrubbed, Refusal> {
    if !request.get("messages").is_some_and(Value::is_array) {
        return Err(Refusal::bad("the request has no list of messages"));
    }
    let own = request.shift_remove(OWN_FIELD);
    let mut choices: Choices = match own {
        Some(own) => serde_json::from_value(own)
            .map_err(|_| Refusal::bad("field anonymizer: session, add and drop"))?,
        None => Choices::default(),
    };
    if let Some(name) = headers.get(SESSION_HEADER).and_then(|name| name.to_str().ok()) {
        choices.session = Some(name.to_owned());
    }
    choices.check()?;
    if !shared.allow_attachments {
        refuse_attachments(&request)?;
    }
    let mut slots = Vec::new();
    Visitor::new(&mut |slot| {
        slots.push(slot);
        None
    })
    .request(&mut request);
    let spans = find(shared, &slots, &choices, entry).await?;
    let vault = shared.sessions.vault(choices.session.as_deref().unwrap_or(sessions::DEFAULT));
    let texts = {
        let mut vault = lock(&vault);
        // Twice: a value found in a later text is then also replaced in the earlier ones.
        redact(&mut vault, &slots, &spans, &choices, &mut Entry::new("chat"))?;
        redact(&mut vault, &slots, &spans, &choices, entry)?
    };
    let mut texts = texts.into_iter();
    Visitor::new(&mut |_| texts.next()).request(&mut request);
    let body = serde_json::to_vec(&request).map_err(|_| Refusal::bad("the request cannot be written"))?;
    Ok(Scrubbed { body, vault })
}

/// Spans per slot, in code points of its value.
async fn find(
    shared: &Shared,
    slots: &[Slot],
    choices: &Choices,
    entry: &mut Entry,
) -> Result<Vec<Vec<Span>>, Refusal> {
    let full: Vec<String> =
        slots.iter().filter(|slot| slot.depth == Depth::Full).map(|slot| slot.text.clone()).collect();
    let answer = shared.worker.scan(&full).await?;
    (entry.tokens, entry.detection_ms) = (answer.tokens, answer.ms);
    let mut found = answer.spans.into_iter();
    let mut all = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut spans = match slot.depth {
            Depth::Full => found.next().ok_or(Error::Unavailable)?,
            Depth::Light => resolve(shared.worker.rules().recognize(&slot.text)),
        };
        // The field's name in front of the value stays.
        spans.retain(|span| span.end > slot.prefix);
        for span in &mut spans {
            span.start = span.start.max(slot.prefix) - slot.prefix;
            span.end -= slot.prefix;
        }
        choices.apply(&value(slot), &mut spans)?;
        all.push(spans);
    }
    Ok(all)
}

fn value(slot: &Slot) -> String {
    slot.text.chars().skip(slot.prefix).collect()
}

fn redact(
    vault: &mut Vault,
    slots: &[Slot],
    spans: &[Vec<Span>],
    choices: &Choices,
    entry: &mut Entry,
) -> Result<Vec<String>> {
    let redact = |(slot, spans): (&Slot, &Vec<Span>)| {
        let redacted = vault.redact_sparing(&value(slot), spans, &choices.drop)?;
        entry.count(&redacted.spans);
        Ok(redacted.text)
    };
    slots.iter().zip(spans).map(redact).collect()
}

/// An answer that is not streamed, errors included.
async fn whole(
    shared: &Shared,
    vault: &Mutex<Vault>,
    answer: reqwest::Response,
    kind: &str,
) -> Result<Response, Refusal> {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let bytes = read(answer).await?;
    let (body, unknown) = match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) => {
            let unknown = restoring::restore_all(&lock(vault), &mut value);
            (value.to_string().into_bytes(), unknown)
        }
        Err(_) => match String::from_utf8(bytes) {
            Ok(text) => {
                let restored = lock(vault).restore(&text);
                (restored.text.into_bytes(), restored.unknown)
            }
            Err(error) => (error.into_bytes(), Vec::new()),
        },
    };
    shared.metrics.unknown_placeholders.inc_by(unknown.len() as u64);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if !unknown.is_empty()
        && let Ok(list) = HeaderValue::from_str(&unknown[..unknown.len().min(20)].join(" "))
    {
        response.headers_mut().insert(UNKNOWN_HEADER, list);
    }
    Ok(response)
}

async fn read(answer: reqwest::Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| Error::Upstream(upstream::reason(&error)))?);
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(Error::Upstream(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")));
        }
    }
    Ok(bytes)
}

pub(super) async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let passed = async {
        let answer = shared.upstream.models().await?;
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok::<_, Error>((status, [(CONTENT_TYPE, "application/json")], read(answer).await?))
    };
    match passed.await {
        Ok(answer) => answer.into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}
