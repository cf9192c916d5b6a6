//! Anthropic's `POST /v1/messages`, whole and streamed, and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sotto_engine::session::{Answer, Finish, TokenLogprob};
use sotto_http::anthropic::MessagesRequest;
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::sampling::Form;
use sotto_http::sse::Message;
use sotto_http::tool::ToolCall;

use super::chat::Counts;
use super::prompt::Conversation;
use super::routes::{State, in_background};
use super::stream::{self, Narrator};
use super::tools::{Calls, Splitter};

/// Answers a conversation; refusals have Anthropic's form.
pub(super) async fn messages(Extract(state): Extract<Arc<State>>, body: Bytes) -> Response {
    answer(state, body).await.unwrap_or_else(ApiError::into_anthropic_response)
}

async fn answer(state: Arc<State>, body: Bytes) -> Result<Response, ApiError> {
    let request = in_background(move || MessagesRequest::read(&read::parse(&body)?)).await?;
    let model = state.models.get(request.model.as_deref()).await?;
    let name = request.model.clone().unwrap_or_else(|| state.models.names()[0].to_owned());
    let (request, work, calls, model) = in_background(move || {
        let (work, calls) = model.prompts.work(&Conversation {
            messages: &request.messages,
            tools: &request.tools,
            tool_choice: &request.tool_choice,
            sampling: &request.sampling,
            logprobs: None,
            form: (&Form::Text, "messages"),
        })?;
        Ok((request, work, calls, model))
    })
    .await?;
    let prompt_tokens = work.prompts.iter().map(Vec::len).sum();
    let events = model.thread.submit(work)?;
    drop(model);
    let told = Told {
        id: new_id("msg"),
        model: name,
        prompt_tokens,
        splitter: Splitter::new(calls),
        blocks: 0,
        is_open: false,
    };
    if request.stream {
        return Ok(stream::respond(events, told));
    }
    let answers = stream::whole(events).await?;
    let answer = answers.first().ok_or_else(super::error::thread_ended)?;
    Ok(Json(told.object(answer, calls)).into_response())
}

/// Counts the tokens of a request; refusals have Anthropic's form.
pub(super) async fn count_tokens(Extract(state): Extract<Arc<State>>, body: Bytes) -> Response {
    count(&state, body)
        .await
        .map_or_else(ApiError::into_anthropic_response, |count| Json(count).into_response())
}

async fn count(state: &State, body: Bytes) -> Result<Value, ApiError> {
    let request = in_background(move || MessagesRequest::read_to_count(&read::parse(&body)?)).await?;
    let model = state.models.get(request.model.as_deref()).await?;
    in_background(move || {
        let tokens = model.prompts.conversation(&request.messages, &request.tools, &request.tool_choice)?;
        Ok(json!({ "input_tokens": tokens.len() }))
    })
    .await
}

struct Told {
    id: String,
    model: String,
    prompt_tokens: usize,
    splitter: Splitter,
    /// Blocks of content that were begun.
    blocks: usize,
    /// Whether the last of them is a text that may go on.
    is_open: bool,
}

fn call_block(call: &ToolCall) -> Value {
    let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({ "type": "tool_use", "id": new_id("toolu"), "name": call.name, "input": input })
}

impl Told {
    fn object(&self, answer: &Answer, calls: Calls) -> Value {
        let mut counts = Counts::default();
        counts.add(0, answer);
        let (input, cached, output) = counts.in_and_out();
        let (text, calls) = calls.split(answer);
        let mut content = Vec::new();
        if !text.is_empty() || calls.is_empty() {
            content.push(json!({ "type": "text", "text": text }));
        }
        content.extend(calls.iter().map(call_block));
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason(answer, &calls),
            "stop_sequence": answer.stop_text,
            "usage": {
                "input_tokens": input - cached,
                "cache_read_input_tokens": cached,
                "cache_creation_input_tokens": 0,
                "output_tokens": output,
            },
        })
    }

    fn begin_block(&mut self, block: &Value) -> Message {
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        self.blocks += 1;
        Message::named("content_block_start", start.to_string())
    }

    /// A piece of the last block.
    fn delta(&self, delta: &Value) -> Message {
        let event =
            json!({ "type": "content_block_delta", "index": self.blocks.saturating_sub(1), "delta": delta });
        Message::named("content_block_delta", event.to_string())
    }

    fn end_block(&self) -> Message {
        let stop = json!({ "type": "content_block_stop", "index": self.blocks.saturating_sub(1) });
        Message::named("content_block_stop", stop.to_string())
    }

    fn begin_text(&mut self) -> Option<Message> {
        let begins = !std::mem::replace(&mut self.is_open, true);
        begins.then(|| self.begin_block(&json!({ "type": "text", "text": "" })))
    }

    fn more_text(&mut self, text: &str) -> Vec<Message> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut messages: Vec<Message> = self.begin_text().into_iter().collect();
        messages.push(self.delta(&json!({ "type": "text_delta", "text": text })));
        messages
    }
}

fn stop_reason(answer: &Answer, calls: &[ToolCall]) -> &'static str {
    match (answer.finish, &answer.stop_text) {
        _ if !calls.is_empty() => "tool_use",
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
        vec![Message::named("message_start", start.to_string())]
    }

    fn text(&mut self, _: usize, text: &str, _: &[TokenLogprob]) -> Vec<Message> {
        let text = self.splitter.push(text);
        self.more_text(&text)
    }

    fn done(&mut self, _: usize, answer: &Answer) -> Vec<Message> {
        let (rest, calls) = self.splitter.finish(answer);
        let mut messages = self.more_text(&rest);
        if calls.is_empty() {
            // An answer without text is a block, too.
            messages.extend(self.begin_text());
        }
        if std::mem::take(&mut self.is_open) {
            messages.push(self.end_block());
        }
        for call in &calls {
            let mut block = call_block(call);
            block["input"] = json!({});
            messages.push(self.begin_block(&block));
            messages.push(self.delta(&json!({ "type": "input_json_delta", "partial_json": call.arguments })));
            messages.push(self.end_block());
        }
        let delta = json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason(answer, &calls), "stop_sequence": answer.stop_text },
            "usage": { "output_tokens": answer.token_ids.len() },
        });
        messages.push(Message::named("message_delta", delta.to_string()));
        messages.push(Message::named("message_stop", json!({ "type": "message_stop" }).to_string()));
        messages
    }

    fn end(&mut self) -> Vec<Message> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Message> {
        vec![Message::named("error", error.anthropic_object().to_string())]
    }
}
