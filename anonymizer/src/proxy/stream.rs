//! Streamed answers: restored event by event, passed on as fast as they are read and no faster.

use std::sync::{Arc, Mutex};
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
use super::reply::Refusal;
use super::restoring::ChunkRestorer;
use super::sessions::lock;
use super::sse::{Event, Parser};
use super::upstream;
use crate::vault::Vault;

/// Pieces that wait for a slow reader; then the provider waits too.
const BUFFERED: usize = 16;
/// Longest wait for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(60);

type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Answers with the restored stream.
pub(super) fn respond(shared: Arc<Shared>, vault: Arc<Mutex<Vault>>, answer: reqwest::Response) -> Response {
    let (pieces, receiver) = mpsc::channel(BUFFERED);
    tokio::spawn(async move {
        shared.metrics.streams.inc();
        let mut relay = Relay { vault, restorer: ChunkRestorer::default(), done: false, pieces };
        if let Err(end) = relay.run(answer).await {
            shared.metrics.streams_broken.inc();
            if let End::Provider(message) = end {
                let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "upstream_broken", message);
                let event = Event { data: Some(refusal.body().to_string()), other: Vec::new() };
                // A reader that is gone needs no error.
                let _ = relay.send(event.to_bytes()).await;
            }
        }
        shared.metrics.unknown_placeholders.inc_by(relay.restorer.unknown.len() as u64);
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
    vault: Arc<Mutex<Vault>>,
    restorer: ChunkRestorer,
    done: bool,
    pieces: Pieces,
}

impl Relay {
    async fn run(&mut self, answer: reqwest::Response) -> Result<(), End> {
        let mut parser = Parser::default();
        let mut bytes = answer.bytes_stream();
        loop {
            let piece = tokio::select! {
                piece = bytes.next() => piece,
                () = self.pieces.closed() => return Err(End::Reader),
            };
            let Some(piece) = piece else { break };
            let piece =
                piece.map_err(|error| End::Provider(format!("provider: {}", upstream::reason(&error))))?;
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
        if !self.done {
            // Half a placeholder is not passed on when its other half can no longer come.
            return Err(End::Provider("the provider ended the stream early".to_owned()));
        }
        Ok(())
    }

    /// The restored form of an event.
    fn event(&mut self, mut event: Event) -> Result<Vec<u8>, &'static str> {
        let Some(data) = &event.data else { return Ok(event.to_bytes()) };
        let vault = lock(&self.vault);
        if data.trim() == "[DONE]" {
            self.done = true;
            let rest = self.restorer.finish(&vault);
            let mut out: Vec<u8> = rest
                .into_iter()
                .flat_map(|chunk| Event { data: Some(chunk.to_string()), other: Vec::new() }.to_bytes())
                .collect();
            let mut unknown = std::mem::take(&mut self.restorer.unknown);
            unknown.truncate(20);
            if !unknown.is_empty() {
                // A comment: readers of events skip it.
                out.extend(format!(": anonymizer: unknown {}\n\n", unknown.join(" ")).into_bytes());
            }
            self.restorer.unknown = unknown;
            out.extend(event.to_bytes());
            return Ok(out);
        }
        let mut chunk: Value =
            serde_json::from_str(data).map_err(|_| "the provider sent an event that is not JSON")?;
        self.restorer.chunk(&vault, &mut chunk);
        drop(vault);
        event.data = Some(chunk.to_string());
        Ok(event.to_bytes())
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), End> {
        let sent = tokio::time::timeout(PATIENCE, self.pieces.send(Ok(Bytes::from(bytes)))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Reader),
        }
    }
}
