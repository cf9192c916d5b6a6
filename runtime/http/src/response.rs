//! `POST /v1/responses`: text, whole and streamed.

use serde_json::Value;

use crate::chat::{ChatMessage, Role, content_text};
use crate::error::{ApiError, Result};
use crate::fields::RESPONSE;
use crate::read::Fields;
use crate::sampling::{Form, Sampling, form};

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// The conversation, instructions first.
    pub messages: Vec<ChatMessage>,
    /// Whether to stream.
    pub stream: bool,
    /// How to generate.
    pub sampling: Sampling,
    /// The form of the answer.
    pub form: Form,
}

impl ResponseRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, RESPONSE)?;
        if let Some(kind) = fields.text("truncation")?
            && kind != "disabled"
        {
            return Err(ApiError::field(
                "truncation",
                "must be disabled: no part of a conversation is dropped",
            ));
        }
        let message = |role, text| ChatMessage { role, text, calls: Vec::new() };
        let mut messages = Vec::new();
        if let Some(text) = fields.text("instructions")? {
            messages.push(message(Role::System, text.to_owned()));
        }
        match fields.get("input") {
            Some(Value::String(text)) => messages.push(message(Role::User, text.clone())),
            Some(Value::Array(items)) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    messages.push(read_item(index, item)?);
                }
            }
            _ => return Err(ApiError::field("input", "must be a text or an array of messages")),
        }
        let format = match fields.get("text") {
            None => None,
            Some(text) => Fields::of(text, "text.")?.get("format"),
        };
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            messages,
            stream: fields.flag("stream")?,
            sampling: Sampling::read(&fields, &["max_output_tokens"])?,
            form: form(format, "text.format")?,
        })
    }
}

fn read_item(index: usize, item: &Value) -> Result<ChatMessage> {
    let path = format!("input[{index}].");
    let fields = Fields::of(item, &path)?;
    if !matches!(fields.text("type")?, None | Some("message")) {
        return Err(ApiError::field(fields.name("type"), "must be message"));
    }
    let role = match fields.text("role")? {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => {
            return Err(ApiError::field(fields.name("role"), "must be system, developer, user or assistant"));
        }
    };
    let content = fields.get("content").unwrap_or(&Value::Null);
    Ok(ChatMessage { role, text: content_text(content, &fields.name("content"))?, calls: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn input_is_a_text_or_messages() {
        let read = |body: Value| ResponseRequest::read(&body);
        let text = read(json!({ "input": "hi", "instructions": "be brief", "store": true })).unwrap();
        assert_eq!(
            text.messages.iter().map(|message| message.role).collect::<Vec<_>>(),
            [Role::System, Role::User]
        );
        let parts = json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hi" }] }]);
        assert_eq!(read(json!({ "input": parts })).unwrap().messages[0].text, "hi");
        for (body, param) in [
            (json!({}), "input"),
            (json!({ "input": [{ "type": "function_call_output" }] }), "input[0].type"),
            (json!({ "input": "x", "previous_response_id": "r" }), "previous_response_id"),
            (json!({ "input": "x", "truncation": "auto" }), "truncation"),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
