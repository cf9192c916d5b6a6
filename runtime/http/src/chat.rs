//! `POST /v1/chat/completions`.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::fields::CHAT;
use crate::read::Fields;
use crate::sampling::{Form, Sampling, form, wants_usage};
use crate::tool::{Shape, Tool, ToolCall, ToolChoice, tool_choice, tools};

/// Largest number of likeliest tokens per token.
pub const MAX_TOP_LOGPROBS: u64 = 20;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions; `developer` is the same.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub text: String,
    /// Calls of tools, in a message of the assistant.
    pub calls: Vec<ToolCall>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// The conversation, with at least one message.
    pub messages: Vec<ChatMessage>,
    /// Whether to stream.
    pub stream: bool,
    /// Whether the last event of a stream counts tokens.
    pub include_usage: bool,
    /// How to generate.
    pub sampling: Sampling,
    /// Log-probabilities, with this many of the likeliest tokens each.
    pub logprobs: Option<usize>,
    /// The form of the answer.
    pub form: Form,
    /// Tools.
    pub tools: Vec<Tool>,
    /// Which of them.
    pub tool_choice: ToolChoice,
}

impl ChatRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, CHAT)?;
        let messages = fields.list("messages")?.unwrap_or_default();
        if messages.is_empty() {
            return Err(ApiError::field("messages", "must contain at least one message"));
        }
        let messages: Vec<ChatMessage> =
            messages.iter().enumerate().map(|(index, value)| message(index, value)).collect::<Result<_>>()?;
        if let Some(modalities) = fields.list("modalities")?
            && modalities.iter().any(|kind| kind != "text")
        {
            return Err(ApiError::field("modalities", "must be [\"text\"]: the model writes text only"));
        }
        let tools = tools(&fields, Shape::Nested)?;
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            messages,
            stream: fields.flag("stream")?,
            include_usage: wants_usage(&fields)?,
            sampling: Sampling::read(&fields, &["max_completion_tokens", "max_tokens"])?,
            logprobs: logprobs(&fields)?,
            form: form(fields.get("response_format"), "response_format")?,
            tool_choice: tool_choice(&fields, &tools, Shape::Nested)?,
            tools,
        })
    }
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>> {
    let wanted = fields.flag("logprobs")?;
    let top = fields.whole("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(ApiError::field("top_logprobs", "needs logprobs to be true"));
    }
    Ok(wanted.then(|| top.unwrap_or(0) as usize))
}

fn message(index: usize, value: &Value) -> Result<ChatMessage> {
    let path = format!("messages[{index}].");
    let fields = Fields::of(value, &path)?;
    let role = match fields.text("role")? {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        _ => {
            let expected = "must be system, developer, user, assistant or tool";
            return Err(ApiError::field(fields.name("role"), expected));
        }
    };
    if role == Role::Tool && fields.text("tool_call_id")?.is_none() && fields.text("name")?.is_none() {
        return Err(ApiError::field(fields.name("tool_call_id"), "must be a string"));
    }
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    let calls = calls
        .iter()
        .enumerate()
        .map(|(place, value)| call(&format!("{path}tool_calls[{place}]."), value))
        .collect::<Result<Vec<_>>>()?;
    let text = match fields.get("content") {
        Some(content) => content_text(content, &fields.name("content"))?,
        None if role == Role::Assistant => String::new(),
        None => return Err(ApiError::field(fields.name("content"), "must be a string or an array of parts")),
    };
    Ok(ChatMessage { role, text, calls })
}

/// The text of a message: a string, or parts of type `text`.
///
/// # Errors
/// 400 that names the part.
pub fn content_text(content: &Value, name: &str) -> Result<String> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().enumerate().map(|(index, part)| {
                let path = format!("{name}[{index}].");
                let fields = Fields::of(part, &path)?;
                match fields.text("type")? {
                    Some("text" | "input_text" | "output_text") => fields
                        .text("text")?
                        .ok_or_else(|| ApiError::field(fields.name("text"), "must be a string")),
                    // What a model of OpenAI's said instead of an answer.
                    Some("refusal") => fields
                        .text("refusal")?
                        .ok_or_else(|| ApiError::field(fields.name("refusal"), "must be a string")),
                    _ => Err(ApiError::field(fields.name("type"), "must be text: the model reads text only")),
                }
            });
            Ok(texts.collect::<Result<Vec<_>>>()?.join("\n"))
        }
        _ => Err(ApiError::field(name, "must be a string or an array of parts")),
    }
}

fn call(path: &str, value: &Value) -> Result<ToolCall> {
    let function = Fields::of(value, path)?.get("function").unwrap_or(value);
    let inner = format!("{path}function.");
    let fields = Fields::of(function, &inner)?;
    let name =
        fields.text("name")?.ok_or_else(|| ApiError::field(fields.name("name"), "must be a string"))?;
    let arguments = fields.text("arguments")?.unwrap_or("{}");
    Ok(ToolCall { name: name.to_owned(), arguments: arguments.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(mut body: Value) -> Result<ChatRequest> {
        body.as_object_mut()
            .unwrap()
            .entry("messages")
            .or_insert_with(|| json!([{ "role": "user", "content": "x" }]));
        ChatRequest::read(&body)
    }

    #[test]
    fn requests_are_understood() {
        let request = read(json!({
            "model": "x",
            "messages": [
                { "role": "developer", "content": "be brief" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                { "role": "assistant", "content": null,
                  "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
                { "role": "tool", "tool_call_id": "c1", "content": "42" },
            ],
            "stream": null, "temperature": 0, "stop": "END", "seed": 3, "unknown": 1,
        }))
        .unwrap();
        assert_eq!((request.messages[0].role, request.messages[1].text.as_str()), (Role::System, "a\nb"));
        assert_eq!(
            request.messages[2].calls,
            [ToolCall { name: "f".to_owned(), arguments: "{}".to_owned() }]
        );
        assert_eq!(request.messages[3].role, Role::Tool);
        assert_eq!(request.sampling.stop, ["END"]);
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, param) in [
            (json!({ "messages": [] }), "messages"),
            (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), "messages[0].role"),
            (json!({ "messages": [{ "role": "user", "content": 5 }] }), "messages[0].content"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
                "messages[0].content[0].type",
            ),
            (
                json!({ "messages": [{ "role": "tool", "tool_call_id": null, "content": "42" }] }),
                "messages[0].tool_call_id",
            ),
            (json!({ "messages": ["x"] }), "messages[0]"),
            (json!({ "stream": "yes" }), "stream"),
            (json!({ "top_logprobs": 2 }), "top_logprobs"),
            (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
            (json!({ "response_format": { "type": "bogus" } }), "response_format.type"),
            (json!({ "tools": [{ "type": "retrieval" }] }), "tools[0].type"),
            (json!({ "tool_choice": "required" }), "tool_choice"),
            (json!({ "tool_choice": { "type": "function", "function": { "name": "g" } } }), "tool_choice"),
            (json!({ "modalities": ["audio"] }), "modalities"),
            (json!({ "functions": [{ "name": "f" }] }), "functions"),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
