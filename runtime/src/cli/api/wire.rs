//! The parts of the OpenAI wire format that are understood.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use models::chat_template::Message;
use models::generate::sampler::SamplerConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::session::{Answer, Finish, GenerateOptions};

/// Tokens of an answer when the request names no number.
const DEFAULT_MAX_TOKENS: usize = 1024;

/// Stop texts per request.
const MAX_STOPS: usize = 16;

/// A refusal, in the form that OpenAI clients show.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON object that carries it, in a body or an event.
    pub(super) fn object(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": null, "code": null } })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Usage(_) | Error::TooLong { .. } => StatusCode::BAD_REQUEST,
            Error::Models(
                models::Error::ContextFull { .. }
                | models::Error::Sampling { .. }
                | models::Error::ChatTemplate { .. },
            ) => StatusCode::BAD_REQUEST,
            Error::Connect { .. } | Error::Transport(_) | Error::ShuttingDown => StatusCode::BAD_GATEWAY,
            Error::Remote { reason, .. } if reason == crate::error::reason::BUDGET => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Error::Budget { .. } | Error::Busy { .. } | Error::SlotTimeout { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.object())).into_response()
    }
}

/// A request for a chat completion; fields that are not listed are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    messages: Vec<WireMessage>,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stop>,
    n: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct WireMessage {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

impl ChatRequest {
    /// Whether the last event of a stream should count tokens.
    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// The conversation and how to continue it.
    pub(super) fn parse(self) -> Result<(Vec<Message>, GenerateOptions), ApiError> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(ApiError::bad("n must be 1"));
        }
        let messages = self.messages.into_iter().map(WireMessage::parse).collect::<Result<Vec<_>, _>>()?;
        if !messages.iter().any(|message| message.role == "user") {
            return Err(ApiError::bad("messages needs at least one message of the user"));
        }
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        };
        if stop.len() > MAX_STOPS {
            return Err(ApiError::bad(format!("at most {MAX_STOPS} stop texts")));
        }
        let defaults = SamplerConfig::asked(self.temperature, self.repeat_penalty);
        let sampler = SamplerConfig {
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            ..defaults
        };
        sampler.validate().map_err(|error| ApiError::bad(error.to_string()))?;
        let max_tokens = self.max_completion_tokens.or(self.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS);
        if max_tokens == 0 {
            return Err(ApiError::bad("max_tokens must be at least 1"));
        }
        let seed = self.seed.unwrap_or_else(rand::random);
        Ok((messages, GenerateOptions { max_tokens, sampler, seed, ignore_eos: false, stop }))
    }
}

impl WireMessage {
    fn parse(self) -> Result<Message, ApiError> {
        let role = match self.role.as_str() {
            "developer" => "system",
            role @ ("system" | "user" | "assistant") => role,
            other => return Err(ApiError::bad(format!("role {other:?} is not supported"))),
        };
        let content = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => parts
                .into_iter()
                .map(|part| match (part.kind.as_str(), part.text) {
                    ("text", Some(text)) => Ok(text),
                    (kind, _) => Err(ApiError::bad(format!("content of type {kind:?} is not supported"))),
                })
                .collect::<Result<Vec<_>, _>>()?
                .join("\n"),
        };
        Ok(Message::new(role, content))
    }
}

/// Identity of one completion in its objects.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Completion {
    /// The whole answer.
    pub(super) fn object(&self, answer: &Answer) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": answer.text },
                "logprobs": null,
                "finish_reason": finish_reason(answer.finish),
            }],
            "usage": usage(answer),
        })
    }

    /// One piece of a streamed answer.
    pub(super) fn chunk(&self, delta: &Value, finish: Option<Finish>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish.map(finish_reason) }],
        })
    }

    /// The event that counts tokens.
    pub(super) fn usage_chunk(&self, answer: &Answer) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [],
            "usage": usage(answer),
        })
    }
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length | Finish::Cancelled => "length",
    }
}

fn usage(answer: &Answer) -> Value {
    let (prompt, completion) = (answer.prompt_tokens, answer.token_ids.len());
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": prompt - answer.prefilled_tokens },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<(Vec<Message>, GenerateOptions), ApiError> {
        serde_json::from_str::<ChatRequest>(json).map_err(|error| ApiError::bad(error.to_string()))?.parse()
    }

    #[test]
    fn requests_are_understood() {
        let (messages, options) = parse(
            r#"{"model":"x","messages":[{"role":"developer","content":"be brief"},
                {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
                "max_tokens":5,"temperature":0,"stop":"END","seed":3,"unknown":1}"#,
        )
        .unwrap();
        assert_eq!(messages, [Message::new("system", "be brief"), Message::new("user", "a\nb")]);
        assert_eq!((options.max_tokens, options.seed, options.stop), (5, 3, vec!["END".to_owned()]));
        assert!(options.sampler.temperature.abs() < f32::EPSILON);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for json in [
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"assistant","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":"x"}],"n":2}"#,
            r#"{"messages":[{"role":"tool","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":"x"}],"temperature":-1}"#,
            r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":0}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
        ] {
            assert!(parse(json).is_err(), "{json} was accepted");
        }
    }
}
