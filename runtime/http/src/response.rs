//! `POST /v1/responses`: text and tools, whole and streamed.

use serde_json::Value;

use crate::chat::{ChatMessage, Role, content_text};
use crate::error::{ApiError, Result};
use crate::fields::RESPONSE;
use crate::read::Fields;
use crate::sampling::{Form, Sampling, form};
use crate::tool::{Shape, Tool, ToolCall, ToolChoice, tool_choice, tools};

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
    /// Tools.
    pub tools: Vec<Tool>,
    /// Which of them.
    pub tool_choice: ToolChoice,
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
                    messages.extend(read_item(index, item)?);
                }
            }
            _ => return Err(ApiError::field("input", "must be a text or an array of messages")),
        }
        if messages.is_empty() {
            return Err(ApiError::field("input", "must contain at least one message"));
        }
        let tools = tools(&fields, Shape::Flat)?;
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
            tool_choice: tool_choice(&fields, &tools, Shape::Flat)?,
            tools,
        })
    }
}

/// One item; `None` for one that the model is not shown.
fn read_item(index: usize, item: &Value) -> Result<Option<ChatMessage>> {
    let path = format!("input[{index}].");
    let fields = Fields::of(item, &path)?;
    let message = |role, text| ChatMessage { role, text, calls: Vec::new() };
    let need =
        |name: &str| fields.text(name)?.ok_or_else(|| ApiError::field(fields.name(name), "must be a string"));
    match fields.text("type")? {
        None | Some("message") => {}
        Some("function_call") => {
            need("call_id")?;
            let arguments = fields.text("arguments")?.unwrap_or("{}").to_owned();
            let calls = vec![ToolCall { name: need("name")?.to_owned(), arguments }];
            return Ok(Some(ChatMessage { calls, ..message(Role::Assistant, String::new()) }));
        }
        Some("function_call_output") => {
            need("call_id")?;
            let output = fields.get("output").unwrap_or(&Value::Null);
            return Ok(Some(message(Role::Tool, content_text(output, &fields.name("output"))?)));
        }
        // Thoughts are not part of what a model is shown again.
        Some("reasoning") => return Ok(None),
        Some(_) => {
            let expected = "must be message, function_call or function_call_output";
            return Err(ApiError::field(fields.name("type"), expected));
        }
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
    Ok(Some(message(role, content_text(content, &fields.name("content"))?)))
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
            (json!({ "input": [{ "type": "computer_call" }] }), "input[0].type"),
            (json!({ "input": [{ "type": "function_call_output", "output": "x" }] }), "input[0].call_id"),
            (json!({ "input": [{ "type": "function_call_output", "call_id": "c" }] }), "input[0].output"),
            (json!({ "input": [{ "type": "reasoning", "summary": [] }] }), "input"),
            (json!({ "input": "x", "tools": [{ "type": "web_search" }] }), "tools[0].type"),
            (json!({ "input": "x", "previous_response_id": "r" }), "previous_response_id"),
            (json!({ "input": "x", "truncation": "auto" }), "truncation"),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }

    #[test]
    fn calls_and_their_outputs_are_messages() {
        let request = ResponseRequest::read(&json!({ "input": [
            { "role": "user", "content": "What is the weather?" },
            { "type": "reasoning", "summary": [] },
            { "type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\":\"Oslo\"}" },
            { "type": "function_call_output", "call_id": "c1", "output": "17" },
        ]}))
        .unwrap();
        let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
        assert_eq!(request.messages[1].calls[0].name, "weather");
    }
}
