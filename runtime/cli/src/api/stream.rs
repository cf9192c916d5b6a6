//! From the events of a request to a response, whole or streamed.

use std::collections::VecDeque;

use axum::response::Response;
use futures::stream;
use sotto_engine::session::{Answer, TokenLogprob};
use sotto_http::error::ApiError;
use sotto_http::sse::{self, Message};

use super::error::thread_ended;
use super::generation::{Event, Events};

/// Turns what happens to the answers of one request into the events of a stream.
pub(super) trait Narrator: Send + 'static {
    /// Before anything happened.
    fn begin(&mut self) -> Vec<Message>;
    /// More text of answer `index`.
    fn text(&mut self, index: usize, text: &str, tokens: &[TokenLogprob]) -> Vec<Message>;
    /// The end of answer `index`.
    fn done(&mut self, index: usize, answer: &Answer) -> Vec<Message>;
    /// After the last answer.
    fn end(&mut self) -> Vec<Message>;
    /// The end of all, early.
    fn failed(&mut self, error: &ApiError) -> Vec<Message>;
}

/// The answers of a request, once all are there.
///
/// # Errors
/// The refusal that ended it.
pub(super) async fn whole(mut events: Events) -> Result<Vec<Answer>, ApiError> {
    let mut answers = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Text { .. } => {}
            Event::Done { index, answer } => answers.push((index, *answer)),
            Event::Failed(error) => return Err(error),
        }
    }
    // They ran side by side and ended in any order.
    answers.sort_by_key(|(index, _)| *index);
    if answers.is_empty() {
        Err(thread_ended())
    } else {
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

struct Streaming<N> {
    events: Events,
    narrator: N,
    ready: VecDeque<Message>,
    ended: bool,
}

/// Streams the events of a request as `narrator` tells them.
pub(super) fn respond(events: Events, mut narrator: impl Narrator) -> Response {
    let ready = narrator.begin().into();
    let state = Streaming { events, narrator, ready, ended: false };
    sse::respond(stream::unfold(state, |mut state| async move {
        loop {
            if let Some(message) = state.ready.pop_front() {
                return Some((message, state));
            }
            if state.ended {
                return None;
            }
            let messages = match state.events.recv().await {
                Some(Event::Text { index, text, tokens }) => state.narrator.text(index, &text, &tokens),
                Some(Event::Done { index, answer }) => state.narrator.done(index, &answer),
                Some(Event::Failed(error)) => {
                    state.ended = true;
                    state.narrator.failed(&error)
                }
                None => {
                    state.ended = true;
                    state.narrator.end()
                }
            };
            state.ready.extend(messages);
        }
    }))
}
