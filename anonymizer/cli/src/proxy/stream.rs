//! Streamed answers: restored event by event, passed on as fast as they are read and no faster.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::events::EventRestorer;
use super::forward::AnswerRules;
use super::protocol::Api;
use super::reply::Refusal;
use super::sse::{Event, Parser};
use super::upstream;

/// Pieces that wait for a slow reader; then the provider waits too.
const BUFFERED: usize = 16;
/// Longest wait for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a streamed answer. The longest answers of today's models are a hundredth of it.
const MAX_STREAM_BYTES: usize = 256 << 20;

type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Answers with the restored stream.
pub(super) fn respond(shared: Arc<Shared>, rules: AnswerRules, answer: reqwest::Response) -> Response {
    let (pieces, receiver) = mpsc::channel(BUFFERED);
    tokio::spawn(async move {
        shared.metrics.streams.inc();
        let restorer = EventRestorer::new(rules.api, rules.json);
        let mut relay = Relay { rules, restorer, pieces };
        if let Err(end) = relay.run(answer).await {
            shared.metrics.streams_broken.inc();
            if let End::Provider(message) = end {
                let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "upstream_broken", message);
                let named = relay.rules.api == Api::Messages;
                let other = if named { vec!["event: error".to_owned()] } else { Vec::new() };
                let event = Event { data: Some(refusal.body_for(relay.rules.api).to_string()), other };
                // A reader that is gone needs no error.
                let _ = relay.send(event.to_bytes()).await;
            }
        }
        shared.metrics.unknown_placeholders.inc_by(relay.restorer.report.unknown.len() as u64);
        shared.metrics.streams.dec();
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

/// Why a stream ended early.
enum End {
    /// The reader is gone or too slow.
    Reader,
    /// The provider broke off, or sent what cannot be read.
    Provider(String),
}

struct Relay {
    rules: AnswerRules,
    restorer: EventRestorer,
    pieces: Pieces,
}

impl Relay {
    async fn run(&mut self, answer: reqwest::Response) -> Result<(), End> {
        let mut parser = Parser::default();
        let mut bytes = answer.bytes_stream();
        let mut size = 0;
        loop {
            let piece = tokio::select! {
                piece = bytes.next() => piece,
                () = self.pieces.closed() => return Err(End::Reader),
            };
            let Some(piece) = piece else { break };
            let piece =
                piece.map_err(|error| End::Provider(format!("provider: {}", upstream::reason(&error))))?;
            size += piece.len();
            if size > MAX_STREAM_BYTES {
                return Err(End::Provider(format!("the stream has more than {MAX_STREAM_BYTES} bytes")));
            }
            let events = parser.push(&piece).map_err(|broken| {
                End::Provider(format!("the provider's stream cannot be read ({broken:?})"))
            })?;
            let mut out = Vec::new();
            let mut failure = None;
            for event in events {
                match self.event(event) {
                    Ok(bytes) => out.extend(bytes),
                    Err(message) => {
                        failure = Some(message);
                        break;
                    }
                }
            }
            if !out.is_empty() {
                self.send(out).await?;
            }
            if let Some(message) = failure {
                return Err(End::Provider(message.to_owned()));
            }
        }
        if !self.restorer.done {
            // Half a placeholder is not passed on when its other half can no longer come.
            return Err(End::Provider("the provider ended the stream early".to_owned()));
        }
        Ok(())
    }

    /// The restored form of an event.
    fn event(&mut self, event: Event) -> Result<Vec<u8>, &'static str> {
        let Some(data) = &event.data else { return Ok(event.to_bytes()) };
        if data.trim() == "[DONE]" {
            return Ok(self.end(&event));
        }
        let value: Value =
            serde_json::from_str(data).map_err(|_| "the provider sent an event that is not JSON")?;
        if let Some(id) = value["response"]["id"].as_str().filter(|_| self.rules.api == Api::Responses) {
            self.rules.access.conversations.continues(id, &self.rules.conversation);
        }
        let own = value["type"].clone();
        let restored = self
            .restorer
            .event(&self.rules.scope, value)
            .map_err(|_| "the arguments of the provider's tool calls are too long")?;
        Ok(restored.into_iter().flat_map(|value| written(&event, &own, &value)).collect())
    }

    /// The end of a stream, after what was held back.
    fn end(&mut self, event: &Event) -> Vec<u8> {
        self.restorer.done = true;
        let rest = self.restorer.finish(&self.rules.scope);
        let empty = Event::default();
        let mut out: Vec<u8> = rest.iter().flat_map(|value| written(&empty, &Value::Null, value)).collect();
        for (what, list) in
            [("unknown", &self.restorer.report.unknown), ("withheld", &self.restorer.report.withheld)]
        {
            if !list.is_empty() {
                // A comment: readers of events skip it.
                let list = list[..list.len().min(20)].join(" ");
                out.extend(format!(": anonymizer: {what} {list}\n\n").into_bytes());
            }
        }
        out.extend(event.to_bytes());
        out
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), End> {
        let sent = tokio::time::timeout(PATIENCE, self.pieces.send(Ok(Bytes::from(bytes)))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Reader),
        }
    }
}

/// An event with this value. One that was made here is named after its own type, as the provider names events.
fn written(event: &Event, own: &Value, value: &Value) -> Vec<u8> {
    let is_own = value["type"] == *own;
    let other = event
        .other
        .iter()
        .map(|line| match (line.strip_prefix("event:"), value["type"].as_str()) {
            (Some(_), Some(kind)) if !is_own => format!("event: {kind}"),
            _ => line.clone(),
        })
        .collect();
    Event { data: Some(value.to_string()), other }.to_bytes()
}
