//! Requests in, objects and events out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::embed::{Embedder, EmbeddingRequest};
use super::wire::{ApiError, ChatRequest, Completion};
use super::worker::{Event, Events, Worker};
use crate::error::Error;

/// What the handlers share.
pub(super) struct State {
    pub(super) worker: Worker,
    pub(super) embedder: Embedder,
    pub(super) model: String,
    pub(super) embedding_model: String,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Reads a request; the message names a place, never the text.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad(format!("not a valid request (line {} column {})", error.line(), error.column()))
    })
}

/// `GET /v1/models`.
pub(super) async fn models(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    Json(json!({
        "object": "list",
        "data": [
            { "id": state.model, "object": "model", "created": 0, "owned_by": "sotto" },
            { "id": state.embedding_model, "object": "model", "created": 0, "owned_by": "sotto" },
        ],
    }))
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat_completions(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: ChatRequest = parsed(&body)?;
    let (stream, usage) = (request.stream, request.wants_usage());
    let (messages, options) = request.parse()?;
    let completion = Completion {
        id: format!("chatcmpl-{}", hex::encode(rand::random::<[u8; 12]>())),
        created: now(),
        model: state.model.clone(),
    };
    let events = state.worker.submit(messages, options)?;
    if stream {
        return Ok(streamed(completion, events, usage));
    }
    whole(&completion, events).await.map(IntoResponse::into_response)
}

async fn whole(completion: &Completion, mut events: Events) -> Result<Json<Value>, ApiError> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Text(_) => {}
            Event::Done(answer) => return Ok(Json(completion.object(&answer))),
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Err(Error::Internal("the session thread ended".to_owned()).into())
}

fn streamed(completion: Completion, events: Events, usage: bool) -> Response {
    let first = completion.chunk(&json!({ "role": "assistant", "content": "" }), None);
    let rest = futures::stream::unfold(events, |mut events| async {
        events.recv().await.map(|event| (event, events))
    })
    .flat_map(move |event| futures::stream::iter(chunks(&completion, event, usage)));
    let all = futures::stream::once(async move { first.to_string() })
        .chain(rest)
        .map(|data| Ok::<_, Infallible>(SseEvent::default().data(data)));
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

/// The events of a stream that one event of the session becomes.
fn chunks(completion: &Completion, event: Event, usage: bool) -> Vec<String> {
    match event {
        Event::Text(text) => vec![completion.chunk(&json!({ "content": text }), None).to_string()],
        Event::Done(answer) => {
            let mut last = vec![completion.chunk(&json!({}), Some(answer.finish)).to_string()];
            if usage {
                last.push(completion.usage_chunk(&answer).to_string());
            }
            last.push("[DONE]".to_owned());
            last
        }
        Event::Failed(error) => vec![ApiError::from(error).object().to_string(), "[DONE]".to_owned()],
    }
}

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let request: EmbeddingRequest = parsed(&body)?;
    let base64 = request.wants_base64();
    let embedded = state.embedder.embed(request.parse()?).await?;
    Ok(Json(embedded.object(base64)))
}

/// Everything else.
pub(super) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there are /v1/models, /v1/chat/completions and /v1/embeddings")
}
