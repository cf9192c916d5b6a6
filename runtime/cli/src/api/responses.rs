//! `POST /v1/responses`: text, whole and streamed.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sotto_engine::session::{Answer, Finish, TokenLogprob};
use sotto_http::chat::ToolChoice;
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::response::ResponseRequest;
use sotto_http::sse::Message;

use super::chat::Counts;
use super::error::refusal;
use super::generation::Work;
use super::prompt::grammar;
use super::routes::{State, in_background, now};
use super::stream::{self, Narrator};

/// Answers a conversation.
pub(super) async fn responses(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (request, work) = in_background(&state, move |state| {
        let request = ResponseRequest::read(&read::parse(&body)?)?;
        state.check_model(request.model.as_deref())?;
        let prompt = state.prompts.conversation(&request.messages, &[], &ToolChoice::Never)?;
        let options =
            state.prompts.options(&request.sampling, None, grammar(&request.form, "text.format"))?;
        Ok((request, Work { prompts: vec![prompt], answers: 1, options }))
    })
    .await?;
    let events = state.thread.submit(work).map_err(refusal)?;
    let mut told = Told {
        id: new_id("resp"),
        item: new_id("msg"),
        created: now(),
        model: state.model.clone(),
        sequence: 0,
        text: String::new(),
    };
    if request.stream {
        return Ok(stream::respond(events, told));
    }
    let answers = stream::whole(events).await?;
    let answer = answers.first().ok_or_else(super::error::thread_ended)?;
    told.text.clone_from(&answer.text);
    Ok(Json(told.object(Some(answer))).into_response())
}

/// A response as far as it has been told.
struct Told {
    id: String,
    item: String,
    created: u64,
    model: String,
    sequence: u64,
    text: String,
}

impl Told {
    /// The response; without an answer it is in progress.
    fn object(&self, answer: Option<&Answer>) -> Value {
        let status = match answer.map(|answer| answer.finish) {
            None => "in_progress",
            Some(Finish::Stop) => "completed",
            Some(Finish::Length | Finish::Cancelled) => "incomplete",
        };
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
        let output = match answer {
            None => json!([]),
            Some(_) => json!([self.message(status)]),
        };
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": output,
            "usage": usage,
            "error": null,
            "incomplete_details":
                (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" })),
            "instructions": null,
            "metadata": {},
            "parallel_tool_calls": false,
            "temperature": null,
            "tool_choice": "none",
            "tools": [],
            "top_p": null,
        })
    }

    fn message(&self, status: &str) -> Value {
        json!({
            "type": "message",
            "id": self.item,
            "role": "assistant",
            "status": status,
            "content": [self.part()],
        })
    }

    fn part(&self) -> Value {
        json!({ "type": "output_text", "text": self.text, "annotations": [] })
    }

    fn event(&mut self, name: &'static str, mut fields: Value) -> Message {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Message::named(name, fields.to_string())
    }

    /// An event about the one part of the one message.
    fn part_event(&mut self, name: &'static str, mut fields: Value) -> Message {
        fields["item_id"] = self.item.clone().into();
        fields["output_index"] = 0.into();
        fields["content_index"] = 0.into();
        self.event(name, fields)
    }
}

impl Narrator for Told {
    fn begin(&mut self) -> Vec<Message> {
        let response = self.object(None);
        let mut item = self.message("in_progress");
        item["content"] = json!([]);
        let part = self.part();
        vec![
            self.event("response.created", json!({ "response": response })),
            self.event("response.in_progress", json!({ "response": response })),
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.part_event("response.content_part.added", json!({ "part": part })),
        ]
    }

    fn text(&mut self, _: usize, text: &str, _: &[TokenLogprob]) -> Vec<Message> {
        self.text.push_str(text);
        vec![self.part_event("response.output_text.delta", json!({ "delta": text, "logprobs": [] }))]
    }

    fn done(&mut self, _: usize, answer: &Answer) -> Vec<Message> {
        let (text, part) = (self.text.clone(), self.part());
        let response = self.object(Some(answer));
        let item = response["output"][0].clone();
        let name = match answer.finish {
            Finish::Stop => "response.completed",
            Finish::Length | Finish::Cancelled => "response.incomplete",
        };
        vec![
            self.part_event("response.output_text.done", json!({ "text": text, "logprobs": [] })),
            self.part_event("response.content_part.done", json!({ "part": part })),
            self.event("response.output_item.done", json!({ "output_index": 0, "item": item })),
            self.event(name, json!({ "response": response })),
        ]
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
