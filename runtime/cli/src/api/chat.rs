//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sotto_engine::session::{Answer, Finish, TokenLogprob};
use sotto_engine::token_bytes::TokenBytes;
use sotto_http::chat::ChatRequest;
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::sse::Message;
use sotto_http::tool::ToolCall;

use super::prompt::Conversation;
use super::routes::{State, in_background, now};
use super::stream::{self, Narrator};
use super::tools::{Calls, Splitter};

/// Answers a conversation.
pub(super) async fn completions(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request = in_background(move || ChatRequest::read(&read::parse(&body)?)).await?;
    let model = state.models.get(request.model.as_deref()).await?;
    let name = request.model.clone().unwrap_or_else(|| state.models.names()[0].to_owned());
    let (request, work, calls, model) = in_background(move || {
        let (work, calls) = model.prompts.work(&Conversation {
            messages: &request.messages,
            tools: &request.tools,
            tool_choice: &request.tool_choice,
            sampling: &request.sampling,
            logprobs: request.logprobs,
            form: (&request.form, "response_format"),
        })?;
        Ok((request, work, calls, model))
    })
    .await?;
    let names = Names { id: new_id("chatcmpl"), created: now(), model: name };
    let answers = work.answers;
    let events = model.thread.submit(work)?;
    let bytes = model.prompts.bytes().clone();
    drop(model);
    if request.stream {
        let narrator = Chunks {
            names,
            bytes,
            usage: request.include_usage,
            logprobs: request.logprobs.is_some(),
            splitters: (0..answers).map(|_| Splitter::new(calls)).collect(),
            counts: Counts::default(),
        };
        return Ok(stream::respond(events, narrator));
    }
    let answers = stream::whole(events).await?;
    let mut counts = Counts::default();
    let choices: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| {
            counts.add(index, answer);
            choice(index, answer, calls, &bytes, request.logprobs.is_some())
        })
        .collect();
    Ok(Json(names.object("chat.completion", &json!(choices), Some(counts.object()))).into_response())
}

/// What is the same in all objects of one response.
struct Names {
    id: String,
    created: u64,
    model: String,
}

impl Names {
    fn object(&self, kind: &str, choices: &Value, usage: Option<Value>) -> Value {
        let mut object = json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }
}

/// Tokens of a request: the prompt once, the answers together.
#[derive(Default)]
pub(super) struct Counts {
    prompt: usize,
    cached: usize,
    completion: usize,
}

impl Counts {
    /// Adds answer `index` of those to one prompt.
    pub(super) fn add(&mut self, index: usize, answer: &Answer) {
        if index == 0 {
            self.prompt += answer.prompt_tokens;
            self.cached += answer.prompt_tokens - answer.prefilled_tokens;
        }
        self.completion += answer.token_ids.len();
    }

    /// As `usage`.
    pub(super) fn object(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": { "cached_tokens": self.cached },
        })
    }

    /// As `usage` of responses and messages.
    pub(super) fn in_and_out(&self) -> (usize, usize, usize) {
        (self.prompt, self.cached, self.completion)
    }
}

/// Why an answer ended, in OpenAI's words.
pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length | Finish::Cancelled => "length",
    }
}

fn choice(index: usize, answer: &Answer, calls: Calls, bytes: &TokenBytes, logprobs: bool) -> Value {
    let (text, calls) = calls.split(answer);
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
    let mut finish = finish_reason(answer.finish);
    if !calls.is_empty() {
        finish = "tool_calls";
        message["tool_calls"] = json!(calls.iter().map(call_object).collect::<Vec<_>>());
        if text.is_empty() {
            message["content"] = Value::Null;
        }
    }
    let logprobs = if logprobs { logprob_object(&answer.logprobs, bytes) } else { Value::Null };
    json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish })
}

fn call_object(call: &ToolCall) -> Value {
    json!({
        "id": new_id("call"),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

/// Log-probabilities in OpenAI's form.
fn logprob_object(tokens: &[TokenLogprob], bytes: &TokenBytes) -> Value {
    let entry = |id: u32, logprob: f32| {
        let bytes = bytes.of(id);
        json!({
            "token": String::from_utf8_lossy(&bytes),
            // JSON has no infinity; OpenAI writes this for what is practically impossible.
            "logprob": logprob.max(-9999.0),
            "bytes": bytes,
        })
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let mut object = entry(token.id, token.logprob);
            object["top_logprobs"] =
                token.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect::<Vec<_>>().into();
            object
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// Chunks of a streamed response.
struct Chunks {
    names: Names,
    bytes: TokenBytes,
    usage: bool,
    logprobs: bool,
    splitters: Vec<Splitter>,
    counts: Counts,
}

impl Chunks {
    fn chunk(&self, index: usize, delta: &Value, logprobs: Value, finish: Option<&str>) -> Message {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
        Message::data(self.names.object("chat.completion.chunk", &json!([choice]), None).to_string())
    }

    fn calls_chunk(&self, index: usize, calls: &[ToolCall]) -> Message {
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(place, call)| {
                let mut object = call_object(call);
                object["index"] = place.into();
                object
            })
            .collect();
        self.chunk(index, &json!({ "tool_calls": calls }), Value::Null, None)
    }
}

impl Narrator for Chunks {
    fn begin(&mut self) -> Vec<Message> {
        let delta = json!({ "role": "assistant", "content": "" });
        (0..self.splitters.len()).map(|index| self.chunk(index, &delta, Value::Null, None)).collect()
    }

    fn text(&mut self, index: usize, text: &str, tokens: &[TokenLogprob]) -> Vec<Message> {
        let text = self.splitters.get_mut(index).map(|splitter| splitter.push(text)).unwrap_or_default();
        if text.is_empty() {
            return Vec::new();
        }
        let logprobs = if self.logprobs { logprob_object(tokens, &self.bytes) } else { Value::Null };
        vec![self.chunk(index, &json!({ "content": text }), logprobs, None)]
    }

    fn done(&mut self, index: usize, answer: &Answer) -> Vec<Message> {
        self.counts.add(index, answer);
        let mut messages = Vec::new();
        let finished = self.splitters.get_mut(index).map(|splitter| splitter.finish(answer));
        let (rest, calls) = finished.unwrap_or_default();
        if !rest.is_empty() {
            messages.push(self.chunk(index, &json!({ "content": rest }), Value::Null, None));
        }
        let mut finish = finish_reason(answer.finish);
        if !calls.is_empty() {
            finish = "tool_calls";
            messages.push(self.calls_chunk(index, &calls));
        }
        messages.push(self.chunk(index, &json!({}), Value::Null, Some(finish)));
        messages
    }

    fn end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.usage {
            let usage = self.counts.object();
            let object = self.names.object("chat.completion.chunk", &json!([]), Some(usage));
            messages.push(Message::data(object.to_string()));
        }
        messages.push(Message::data("[DONE]"));
        messages
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Message> {
        vec![Message::data(error.object().to_string()), Message::data("[DONE]")]
    }
}
