//! A request to a chat API: scrub, forward, restore.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Map, Value};

use super::access::Access;
use super::audit::Entry;
use super::conversations::{Choices, Conversation, lock};
use super::protocol::Api;
use super::reply::Refusal;
use super::scrub::{Depth, Place, TextField, Visitor};
use super::{MAX_BODY_BYTES, Shared, answers, api, patience, stream, upstream};
use crate::detect::Span;
use crate::detect::overlap::resolve;
use crate::error::{Error, Result};
use crate::vault::{Scope, Vault};

/// Bytes of an answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Field of a request that is for this proxy and never forwarded.
const OWN_FIELD: &str = "anonymizer";
/// Header that names the session.
const SESSION_HEADER: &str = "x-anonymizer-session";
/// Header of an answer that lists placeholders of no value that the request held.
const UNKNOWN_HEADER: &str = "x-anonymizer-unknown";
/// Header of an answer that lists placeholders left in targets of links and pictures.
const WITHHELD_HEADER: &str = "x-anonymizer-withheld";

/// A request that may leave.
struct Scrubbed {
    body: Vec<u8>,
    answer: AnswerRules,
}

/// How the answer to a request is restored.
#[derive(Clone)]
pub(super) struct AnswerRules {
    pub(super) api: Api,
    /// The values whose placeholders were forwarded.
    pub(super) scope: Arc<Scope>,
    /// Whether the texts of the answer are JSON, in which values are escaped.
    pub(super) json: bool,
    /// The conversation, which keeps the scope for a request that continues this one by its identity.
    pub(super) conversation: Arc<Conversation>,
    /// The key of the request, whose holder has the conversation.
    pub(super) access: Arc<Access>,
}

pub(super) async fn forward(
    shared: Arc<Shared>,
    access: Arc<Access>,
    api: Api,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let request = api::body(bytes)
        .and_then(|bytes| unpacked(bytes, &headers))
        .and_then(|bytes| api::parse::<Map<String, Value>>(&bytes));
    let request = match request {
        Ok(request) => request,
        Err(refusal) => {
            return noted(&shared, Entry::new(api.name()).by(&access), Err(refusal))
                .unwrap_or_else(IntoResponse::into_response);
        }
    };
    let is_stream = request.get("stream") == Some(&Value::Bool(true));
    let work = async move {
        let mut entry = Entry::new(api.name()).by(&access);
        let result = complete(&shared, &access, api, &headers, request, &mut entry).await;
        noted(&shared, entry, result)
    };
    let result = if is_stream { patience::streamed(api, tokio::spawn(work)).await } else { work.await };
    result.unwrap_or_else(IntoResponse::into_response)
}

/// Notes in the log what became of a request.
fn noted(shared: &Shared, mut entry: Entry, result: Result<Response, Refusal>) -> Result<Response, Refusal> {
    entry.status = match &result {
        Ok(response) => response.status().as_u16(),
        Err(refusal) => refusal.status().as_u16(),
    };
    shared.note(&entry);
    result
}

async fn complete(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    api: Api,
    headers: &HeaderMap,
    request: Map<String, Value>,
    entry: &mut Entry,
) -> Result<Response, Refusal> {
    let full =
        |_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests are under way; try again");
    let room = shared.room.try_acquire().map_err(full)?;
    let Scrubbed { body, answer: rules } = scrub(shared, access, api, headers, request, entry).await?;
    entry.forwarded = true;
    let answer = shared.upstream.post(api, body, headers).await?;
    drop(room);
    let kind =
        answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let passed = upstream::passed_back(answer.headers());
    let mut response = if answer.status().is_success() && kind.starts_with("text/event-stream") {
        stream::respond(Arc::clone(shared), rules, answer)
    } else {
        whole(shared, &rules, answer, &kind).await?
    };
    response.headers_mut().extend(passed);
    Ok(response)
}

/// The bytes of a body that may be compressed.
fn unpacked(bytes: Bytes, headers: &HeaderMap) -> Result<Bytes, Refusal> {
    use std::io::Read;
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    match encoding {
        None | Some("identity") => Ok(bytes),
        Some("gzip" | "x-gzip") => {
            let mut plain = Vec::new();
            // One byte more than allowed tells a body that is too large.
            let limit = MAX_BODY_BYTES as u64 + 1;
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .take(limit)
                .read_to_end(&mut plain)
                .map_err(|_| Refusal::bad("the body is not the gzip that Content-Encoding promises"))?;
            if plain.len() > MAX_BODY_BYTES {
                return Err(api::too_large());
            }
            Ok(plain.into())
        }
        Some(_) => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoding",
            "Content-Encoding: only gzip and identity are read",
        )),
    }
}

/// Scrubs a request; what cannot be scrubbed is refused.
async fn scrub(
    shared: &Shared,
    access: &Arc<Access>,
    api: Api,
    headers: &HeaderMap,
    mut request: Map<String, Value>,
    entry: &mut Entry,
) -> Result<Scrubbed, Refusal> {
    if !request.contains_key(api.required()) {
        return Err(Refusal::bad(format!("the request has no field {}", api.required())));
    }
    if api.required() == "messages" && !request["messages"].is_array() {
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
    let mut request = Value::Object(request);
    let mut fields = Vec::new();
    let mut collect = |field| {
        fields.push(field);
        None
    };
    Visitor::new(access.policy.allow_attachments, &mut collect).request(&mut request, api.request())?;
    let spans = find(shared, access, &fields, &choices, entry).await?;
    let previous = request.get("previous_response_id").and_then(Value::as_str);
    let conversation = access.conversations.of(choices.session.as_deref(), previous)?;
    let mut state = lock(&conversation);
    state.vault.follow(&access.policy.vault_rules);
    // Twice: a value found in a later text is then also replaced in the earlier ones.
    redact(&mut state.vault, &fields, &spans, &choices, &mut Entry::new(""))?;
    let texts = redact(&mut state.vault, &fields, &spans, &choices, entry)?;
    let mut scope = Scope::of_request(&state.vault, texts.iter().map(String::as_str));
    // What a request continues by its identity, its answer may speak of.
    if previous.is_some() {
        scope.extend(&state.scope);
    }
    state.scope.extend(&scope);
    drop(state);
    let json = api.wants_json(&request);
    let mut texts = texts.into_iter();
    Visitor::new(access.policy.allow_attachments, &mut |_| texts.next())
        .request(&mut request, api.request())?;
    if access.policy.hint && !scope.is_empty() {
        api.add_hint(&mut request);
    }
    let body = serde_json::to_vec(&request).map_err(|_| Refusal::bad("the request cannot be written"))?;
    Ok(Scrubbed {
        body,
        answer: AnswerRules { api, scope: Arc::new(scope), json, conversation, access: Arc::clone(access) },
    })
}

/// Spans per field, in code points of its value.
async fn find(
    shared: &Shared,
    access: &Access,
    fields: &[TextField],
    choices: &Choices,
    entry: &mut Entry,
) -> Result<Vec<Vec<Span>>, Refusal> {
    let full: Vec<String> =
        fields.iter().filter(|field| field.depth == Depth::Full).map(|field| field.text.clone()).collect();
    let answer = shared.scans.scan(&full).await?;
    (entry.tokens, entry.detection_ms) = (answer.tokens, answer.ms);
    let mut found = answer.spans.into_iter();
    let mut all = Vec::with_capacity(fields.len());
    for field in fields {
        let mut spans = match field.depth {
            Depth::Full => found.next().ok_or(sotto_pii::Error::Unavailable)?,
            Depth::Light => resolve(shared.scans.rules().recognize(&field.text)),
            Depth::Known => Vec::new(),
        };
        access.keep(&mut spans);
        // The field's name before the value stays.
        spans.retain(|span| span.end > field.prefix);
        for span in &mut spans {
            span.start = span.start.max(field.prefix) - field.prefix;
            span.end -= field.prefix;
        }
        if field.depth != Depth::Known {
            choices.apply(&field.value(), &mut spans)?;
        }
        all.push(spans);
    }
    Ok(all)
}

fn redact(
    vault: &mut Vault,
    fields: &[TextField],
    spans: &[Vec<Span>],
    choices: &Choices,
    entry: &mut Entry,
) -> Result<Vec<String>> {
    let redact = |(field, spans): (&TextField, &Vec<Span>)| {
        let redacted = vault.redact_sparing(&field.value(), spans, &choices.drop)?;
        entry.count(&redacted.spans);
        if field.place == Place::Number && redacted.spans.len() == 1 {
            vault.mark_number(&redacted.text);
        }
        Ok(redacted.text)
    };
    fields.iter().zip(spans).map(redact).collect()
}

/// An answer that is not streamed, errors included.
async fn whole(
    shared: &Shared,
    rules: &AnswerRules,
    answer: reqwest::Response,
    kind: &str,
) -> Result<Response, Refusal> {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let bytes = read(answer).await?;
    let mut report = answers::Report::default();
    let body = match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) => {
            answers::restore(&rules.scope, rules.json, &mut value, &mut report);
            if let Some(id) = value.get("id").and_then(Value::as_str).filter(|_| rules.api == Api::Responses)
            {
                rules.access.conversations.continues(id, &rules.conversation);
            }
            value.to_string().into_bytes()
        }
        Err(_) => match String::from_utf8(bytes) {
            Ok(text) => {
                let restored = rules.scope.restore(&text);
                report.unknown.extend(restored.unknown);
                report.withheld.extend(restored.withheld);
                restored.text.into_bytes()
            }
            Err(error) => error.into_bytes(),
        },
    };
    shared.metrics.unknown_placeholders.inc_by(report.unknown.len() as u64);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    for (name, list) in [(UNKNOWN_HEADER, &report.unknown), (WITHHELD_HEADER, &report.withheld)] {
        if !list.is_empty()
            && let Ok(list) = HeaderValue::from_str(&list[..list.len().min(20)].join(" "))
        {
            response.headers_mut().insert(name, list);
        }
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

/// The provider's models, or one of them.
pub(super) async fn models(shared: Arc<Shared>, path: &str, headers: &HeaderMap) -> Response {
    let passed = async {
        let answer = shared.upstream.models(path, headers).await?;
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = upstream::passed_back(answer.headers());
        Ok::<_, Error>((status, headers, [(CONTENT_TYPE, "application/json")], read(answer).await?))
    };
    match passed.await {
        Ok(answer) => answer.into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}
