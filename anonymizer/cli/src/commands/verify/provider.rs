//! A throwaway provider on loopback: it keeps what it gets and says it back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::error::{Error, Result};

/// Header that tells requests apart; the proxy passes it on.
pub(super) const MARK: &str = "openai-project";
/// Characters of an answer's pieces: shorter than any placeholder.
const PIECE: usize = 3;

/// What arrived, by mark.
#[derive(Clone, Default)]
pub(super) struct Provider {
    seen: Arc<Mutex<HashMap<String, String>>>,
}

impl Provider {
    /// Starts serving; returns the base address.
    pub(super) async fn start(&self) -> Result<String> {
        let failed = |source| Error::io_of("listening", source);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!("provider: {error}");
            }
        });
        Ok(format!("http://{address}/v1"))
    }

    /// What arrived under a mark, with JSON escapes undone.
    pub(super) fn seen(&self, mark: &str) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(mark)
    }
}

async fn answer(State(provider): State<Provider>, headers: HeaderMap, bytes: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mark = headers.get(MARK).and_then(|mark| mark.to_str().ok()).unwrap_or_default().to_owned();
    let mut strings = String::new();
    all_strings(&request, &mut strings);
    provider.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(mark, strings);
    let said = request["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    if request["stream"] != true {
        return axum::Json(
            json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": said } }] }),
        )
        .into_response();
    }
    let chars: Vec<char> = said.chars().collect();
    let mut events: Vec<String> = chars
        .chunks(PIECE)
        .map(|piece| {
            let piece: String = piece.iter().collect();
            let chunk =
                json!({ "choices": [{ "index": 0, "delta": { "content": piece }, "finish_reason": null }] });
            format!("data: {chunk}\n\n")
        })
        .collect();
    events.push("data: [DONE]\n\n".to_owned());
    let body = Body::from_stream(stream::iter(events.into_iter().map(Ok::<_, std::io::Error>)));
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Every string of a value, keys included.
fn all_strings(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Value::Array(values) => values.iter().for_each(|value| all_strings(value, out)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            out.push_str(name);
            out.push('\n');
            all_strings(value, out);
        }),
        Value::Number(number) => {
            out.push_str(&number.to_string());
            out.push('\n');
        }
        _ => {}
    }
}
