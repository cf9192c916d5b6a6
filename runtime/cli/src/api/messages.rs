//! Anthropic's `POST /v1/messages`: text, whole and streamed.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sotto_engine::session::{Answer, Finish, TokenLogprob};
use sotto_http::anthropic::MessagesRequest;
use sotto_http::chat::ToolChoice;
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::sse::Message;

use super::chat::Counts;
use super::error::refusal;
use super::generation::Work;
use super::routes::{State, in_background};
use super::stream::{self, Narrator};

/// Answers a conversation; refusals have Anthropic's form.
pub(super) async fn messages(Extract(state): Extract<Arc<State>>, body: Bytes) -> Response {
    answer(state, body).await.unwrap_or_else(ApiError::into_anthropic_response)
}

async fn answer(state: Arc<State>, body: Bytes) -> Result<Response, ApiError> {
    let (request, work) = in_background(&state, move |state| {
        let request = MessagesRequest::read(&read::parse(&body)?)?;
        state.check_model(request.model.as_deref())?;
        let prompt = state.prompts.conversation(&request.messages, &[], &ToolChoice::Never)?;
        let options = state.prompts.options(&request.sampling, None, None)?;
        Ok((request, Work { prompts: vec![prompt], answers: 1, options }))
    })
    .await?;
    let prompt_tokens = work.prompts.iter().map(Vec::len).sum();
    let events = state.thread.submit(work).map_err(refusal)?;
    let told = Told { id: new_id("msg"), model: state.model.clone(), prompt_tokens };
    if request.stream {
        return Ok(stream::respond(events, told));
    }
    let answers = stream::whole(events).await?;
    let answer = answers.first().ok_or_else(super::error::thread_ended)?;
    Ok(Json(told.object(answer)).into_response())
}

struct Told {
    id: String,
    model: String,
    prompt_tokens: usize,
}

impl Told {
    fn object(&self, answer: &Answer) -> Value {
        let mut counts = Counts::default();
        counts.add(0, answer);
        let (input, cached, output) = counts.in_and_out();
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [{ "type": "text", "text": answer.text }],
            "stop_reason": stop_reason(answer),
            "stop_sequence": answer.stop_text,
            "usage": {
                "input_tokens": input - cached,
                "cache_read_input_tokens": cached,
                "cache_creation_input_tokens": 0,
                "output_tokens": output,
            },
        })
    }
}

fn stop_reason(answer: &Answer) -> &'static str {
    match (answer.finish, &answer.stop_text) {
        (Finish::Stop, Some(_)) => "stop_sequence",
        (Finish::Stop, None) => "end_turn",
        (Finish::Length | Finish::Cancelled, _) => "max_tokens",
    }
}

impl Narrator for Told {
    fn begin(&mut self) -> Vec<Message> {
        let message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": { "input_tokens": self.prompt_tokens, "output_tokens": 0 },
        });
        let start = json!({ "type": "message_start", "message": message });
        let block = json!({
            "type": "content_block_start",
            "index": 0,
            "content_block": { "type": "text", "text": "" },
        });
        vec![
            Message::named("message_start", start.to_string()),
            Message::named("content_block_start", block.to_string()),
        ]
    }

    fn text(&mut self, _: usize, text: &str, _: &[TokenLogprob]) -> Vec<Message> {
        let delta = json!({
            "type": "content_block_delta",
            "index": 0,
            "delta": { "type": "text_delta", "text": text },
        });
        vec![Message::named("content_block_delta", delta.to_string())]
    }

    fn done(&mut self, _: usize, answer: &Answer) -> Vec<Message> {
        let delta = json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason(answer), "stop_sequence": answer.stop_text },
            "usage": { "output_tokens": answer.token_ids.len() },
        });
        let stop = json!({ "type": "content_block_stop", "index": 0 });
        vec![
            Message::named("content_block_stop", stop.to_string()),
            Message::named("message_delta", delta.to_string()),
            Message::named("message_stop", json!({ "type": "message_stop" }).to_string()),
        ]
    }

    fn end(&mut self) -> Vec<Message> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Message> {
        vec![Message::named("error", error.anthropic_object().to_string())]
    }
}
