//! Server-sent events with signs of life.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;

/// Silence after which a comment is sent, so that proxies and clients do not give up.
pub const PING: Duration = Duration::from_secs(5);

/// One event: the JSON text, and its name where the protocol has names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name.
    pub name: Option<&'static str>,
    /// One line of text.
    pub data: String,
}

impl Message {
    /// An event without a name.
    pub fn data(data: impl Into<String>) -> Self {
        Self { name: None, data: data.into() }
    }

    /// An event with a name.
    pub fn named(name: &'static str, data: impl Into<String>) -> Self {
        Self { name: Some(name), data: data.into() }
    }
}

/// The response that streams `messages`, with a comment after each [`PING`] of silence, for proxies not to buffer.
pub fn respond(messages: impl Stream<Item = Message> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    let events = messages.map(|message| {
        let event = Event::default().data(message.data);
        Ok::<_, Infallible>(match message.name {
            Some(name) => event.event(name),
            None => event,
        })
    });
    let keep_alive = KeepAlive::new().interval(PING).text("ping");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
