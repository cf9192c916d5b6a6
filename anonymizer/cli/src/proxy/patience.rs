//! Streams whose detection takes long: the client is told that something is under way.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::protocol::Api;
use super::reply::Refusal;
use super::sse::Event;

/// Time after which a stream begins although its answer has not: until then an error has its status.
const BEGIN_AFTER: Duration = Duration::from_secs(8);
/// Time between signs of life. Clients and proxies give up after 30 seconds or more of silence.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Ends a task that nobody waits for any more.
struct Abort(JoinHandle<Result<Response, Refusal>>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the answer to a request for a stream. If it takes long, the stream begins with comments, which clients skip.
pub(super) async fn streamed(
    api: Api,
    task: JoinHandle<Result<Response, Refusal>>,
) -> Result<Response, Refusal> {
    streamed_from(api, task, BEGIN_AFTER, PING_EVERY).await
}

async fn streamed_from(
    api: Api,
    task: JoinHandle<Result<Response, Refusal>>,
    begin_after: Duration,
    ping_every: Duration,
) -> Result<Response, Refusal> {
    let mut task = Abort(task);
    if let Ok(done) = tokio::time::timeout(begin_after, &mut task.0).await {
        return done.unwrap_or_else(|_| Err(Refusal::ended()));
    }
    let (pieces, receiver) = mpsc::channel::<Result<Bytes, axum::Error>>(1);
    tokio::spawn(async move {
        let answer = loop {
            tokio::select! {
                done = &mut task.0 => break done.unwrap_or_else(|_| Err(Refusal::ended())),
                () = pieces.closed() => return,
                () = tokio::time::sleep(ping_every) => {
                    if pieces.send(Ok(Bytes::from_static(b": ping\n\n"))).await.is_err() {
                        return;
                    }
                }
            }
        };
        let is_stream = |answer: &Response| {
            answer
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
        };
        let mut body = match answer {
            Ok(answer) if is_stream(&answer) => answer.into_body(),
            // What would have had a status of its own comes as an event.
            Ok(answer) => {
                let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap_or_default();
                Body::from(event(api, &String::from_utf8_lossy(&bytes)))
            }
            Err(refusal) => Body::from(event(api, &refusal.body_for(api).to_string())),
        }
        .into_data_stream();
        while let Some(piece) = body.next().await {
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

fn event(api: Api, data: &str) -> Vec<u8> {
    let other = if api == Api::Messages { vec!["event: error".to_owned()] } else { Vec::new() };
    Event { data: Some(data.replace(['\n', '\r'], " ")), other }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_late_stream_begins_with_pings() {
        let begun = |task| {
            let soon = Duration::from_millis(1);
            streamed_from(Api::Chat, task, soon, soon)
        };
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let late = tokio::spawn(async {
            wait.await.unwrap();
            Ok(([(CONTENT_TYPE, "text/event-stream")], "data: [DONE]\n\n").into_response())
        });
        let mut body = begun(late).await.unwrap().into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), ": ping\n\n");
        go.send(()).unwrap();
        let mut rest = String::new();
        while let Some(piece) = body.next().await {
            rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        assert_eq!(rest.replace(": ping\n\n", ""), "data: [DONE]\n\n");

        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let failing = tokio::spawn(async {
            wait.await.unwrap();
            Err(Refusal::ended())
        });
        let response = begun(failing).await.unwrap();
        go.send(()).unwrap();
        assert!(text(response).await.contains("detection_unavailable"));
        let early = tokio::spawn(async { Err(Refusal::ended()) });
        assert!(streamed(Api::Chat, early).await.is_err(), "an early error has its status");
    }
}
