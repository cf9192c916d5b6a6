//! `POST /v1/responses`: text and tools, whole and streamed.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sotto_engine::session::{Answer, Finish, TokenLogprob};
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::response::ResponseRequest;
use sotto_http::sse::Message;
use sotto_http::tool::ToolCall;

use super::chat::Counts;
use super::prompt::Conversation;
use super::routes::{State, in_background, now};
use super::stream::{self, Narrator};
use super::tools::{Calls, Splitter};

/// Answers a conversation.
pub(super) async fn responses(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request = in_background(move || ResponseRequest::read(&read::parse(&body)?)).await?;
    let model = state.models.get(request.model.as_deref()).await?;
    let name = request.model.clone().unwrap_or_else(|| state.models.names()[0].to_owned());
    let (request, work, calls, model) = in_background(move || {
        let (work, calls) = model.prompts.work(&Conversation {
            messages: &request.messages,
            tools: &request.tools,
            tool_choice: &request.tool_choice,
            sampling: &request.sampling,
            logprobs: None,
            form: (&request.form, "text.format"),
        })?;
        Ok((request, work, calls, model))
    })
    .await?;
    let events = model.thread.submit(work)?;
    drop(model);
    let mut told = Told {
        id: new_id("resp"),
        created: now(),
        model: name,
        sequence: 0,
        splitter: Splitter::new(calls),
        text: None,
        output: Vec::new(),
    };
    if request.stream {
        return Ok(stream::respond(events, told));
    }
    let answers = stream::whole(events).await?;
    let answer = answers.first().ok_or_else(super::error::thread_ended)?;
    told.tell_whole(answer, calls);
    Ok(Json(told.object(Some(answer))).into_response())
}

/// The message of a response while its text comes.
struct Open {
    id: String,
    text: String,
}

impl Open {
    fn item(&self, status: &str) -> Value {
        json!({
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": status,
            "content": [self.part()],
        })
    }

    fn part(&self) -> Value {
        json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": [] })
    }
}

/// A response as far as it has been told.
struct Told {
    id: String,
    created: u64,
    model: String,
    sequence: u64,
    splitter: Splitter,
    /// The message, once it has text.
    text: Option<Open>,
    /// Items that are whole.
    output: Vec<Value>,
}

fn status(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop => "completed",
        Finish::Length | Finish::Cancelled => "incomplete",
    }
}

fn call_item(call: &ToolCall) -> Value {
    json!({
        "type": "function_call",
        "id": new_id("fc"),
        "call_id": new_id("call"),
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    })
}

impl Told {
    /// Takes a whole answer.
    fn tell_whole(&mut self, answer: &Answer, calls: Calls) {
        let (text, calls) = calls.split(answer);
        if !text.is_empty() || calls.is_empty() {
            self.output.push(Open { id: new_id("msg"), text }.item(status(answer)));
        }
        self.output.extend(calls.iter().map(call_item));
    }

    /// The response; without an answer it is in progress.
    fn object(&self, answer: Option<&Answer>) -> Value {
        let status = answer.map_or("in_progress", status);
        let usage = answer.map(|answer| {
            let mut counts = Counts::default();
            counts.add(0, answer);
            let (input, cached, output) = counts.in_and_out();
            json!({
                "input_tokens": input,
                "input_tokens_details": { "cached_tokens": cached },
                "output_tokens": output,
                "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": input + output,
            })
        });
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": self.output,
            "usage": usage,
            "error": null,
            "incomplete_details":
                (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" })),
            "instructions": null,
            "metadata": {},
            "parallel_tool_calls": false,
            "temperature": null,
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
        })
    }

    fn event(&mut self, name: &'static str, mut fields: Value) -> Message {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Message::named(name, fields.to_string())
    }

    /// An event about the item `id`, which is the next one to become whole.
    fn item_event(&mut self, name: &'static str, id: &str, mut fields: Value) -> Message {
        fields["item_id"] = id.into();
        fields["output_index"] = self.output.len().into();
        self.event(name, fields)
    }

    /// An event about the one part of the message.
    fn part_event(&mut self, name: &'static str, id: &str, mut fields: Value) -> Message {
        fields["content_index"] = 0.into();
        self.item_event(name, id, fields)
    }

    /// Begins the message, if it has not begun.
    fn begin_text(&mut self) -> (String, Vec<Message>) {
        if let Some(open) = &self.text {
            return (open.id.clone(), Vec::new());
        }
        let open = Open { id: new_id("msg"), text: String::new() };
        let (id, mut item, part) = (open.id.clone(), open.item("in_progress"), open.part());
        item["content"] = json!([]);
        self.text = Some(open);
        let place = self.output.len();
        let messages = vec![
            self.event("response.output_item.added", json!({ "output_index": place, "item": item })),
            self.part_event("response.content_part.added", &id, json!({ "part": part })),
        ];
        (id, messages)
    }

    fn more_text(&mut self, text: &str) -> Vec<Message> {
        if text.is_empty() {
            return Vec::new();
        }
        let (id, mut messages) = self.begin_text();
        if let Some(open) = &mut self.text {
            open.text.push_str(text);
        }
        let delta = json!({ "delta": text, "logprobs": [] });
        messages.push(self.part_event("response.output_text.delta", &id, delta));
        messages
    }

    fn end_text(&mut self, status: &str) -> Vec<Message> {
        let Some(open) = self.text.take() else { return Vec::new() };
        let (place, item) = (self.output.len(), open.item(status));
        let text = json!({ "text": open.text, "logprobs": [] });
        let messages = vec![
            self.part_event("response.output_text.done", &open.id, text),
            self.part_event("response.content_part.done", &open.id, json!({ "part": open.part() })),
            self.event("response.output_item.done", json!({ "output_index": place, "item": item })),
        ];
        self.output.push(item);
        messages
    }

    fn whole_call(&mut self, call: &ToolCall) -> Vec<Message> {
        let (place, item) = (self.output.len(), call_item(call));
        let mut begun = item.clone();
        begun["arguments"] = "".into();
        begun["status"] = "in_progress".into();
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        let arguments = json!({ "arguments": call.arguments, "name": call.name });
        let messages = vec![
            self.event("response.output_item.added", json!({ "output_index": place, "item": begun })),
            self.item_event(
                "response.function_call_arguments.delta",
                &id,
                json!({ "delta": call.arguments }),
            ),
            self.item_event("response.function_call_arguments.done", &id, arguments),
            self.event("response.output_item.done", json!({ "output_index": place, "item": item })),
        ];
        self.output.push(item);
        messages
    }
}

impl Narrator for Told {
    fn begin(&mut self) -> Vec<Message> {
        let response = self.object(None);
        vec![
            self.event("response.created", json!({ "response": response })),
            self.event("response.in_progress", json!({ "response": response })),
        ]
    }

    fn text(&mut self, _: usize, text: &str, _: &[TokenLogprob]) -> Vec<Message> {
        let text = self.splitter.push(text);
        self.more_text(&text)
    }

    fn done(&mut self, _: usize, answer: &Answer) -> Vec<Message> {
        let (rest, calls) = self.splitter.finish(answer);
        let mut messages = self.more_text(&rest);
        if calls.is_empty() {
            // An answer without text is a message, too.
            messages.extend(self.begin_text().1);
        }
        messages.extend(self.end_text(status(answer)));
        for call in &calls {
            messages.extend(self.whole_call(call));
        }
        let name = match answer.finish {
            Finish::Stop => "response.completed",
            Finish::Length | Finish::Cancelled => "response.incomplete",
        };
        let response = self.object(Some(answer));
        messages.push(self.event(name, json!({ "response": response })));
        messages
    }

    fn end(&mut self) -> Vec<Message> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Message> {
        let mut response = self.object(None);
        response["status"] = "failed".into();
        let code = error.code().unwrap_or("server_error");
        response["error"] = json!({ "code": code, "message": error.message() });
        vec![self.event("response.failed", json!({ "response": response }))]
    }
}
