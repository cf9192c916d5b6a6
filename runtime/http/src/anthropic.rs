//! Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`: text and tools, whole and streamed.

use serde_json::Value;

use crate::chat::{ChatMessage, Role, content_text};
use crate::error::{ApiError, Result};
use crate::fields::ANTHROPIC;
use crate::read::Fields;
use crate::sampling::{MAX_STOPS, Sampling};
use crate::tool::{Shape, Tool, ToolCall, ToolChoice, tool_choice, tools};

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct MessagesRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// The conversation, the system message first.
    pub messages: Vec<ChatMessage>,
    /// Whether to stream.
    pub stream: bool,
    /// How to generate.
    pub sampling: Sampling,
    /// Tools.
    pub tools: Vec<Tool>,
    /// Which of them.
    pub tool_choice: ToolChoice,
}

impl MessagesRequest {
    /// Reads a request for an answer.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let request = Self::read_to_count(body)?;
        if request.sampling.max_tokens.is_none() {
            return Err(ApiError::field("max_tokens", "must be a whole number of at least 1"));
        }
        Ok(request)
    }

    /// Reads a request whose tokens are to be counted, which needs no `max_tokens`.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read_to_count(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, ANTHROPIC)?;
        let mut sampling = Sampling::read(&fields, &["max_tokens"])?;
        sampling.stop = fields.texts("stop_sequences", MAX_STOPS)?;
        let mut messages = Vec::new();
        if let Some(system) = fields.get("system") {
            let text = content_text(system, "system")?;
            messages.push(ChatMessage { role: Role::System, text, calls: Vec::new() });
        }
        let items = fields.list("messages")?.unwrap_or_default();
        if items.is_empty() {
            return Err(ApiError::field("messages", "must contain at least one message"));
        }
        for (index, item) in items.iter().enumerate() {
            read_message(&format!("messages[{index}]."), item, &mut messages)?;
        }
        let tools = tools(&fields, Shape::Anthropic)?;
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            messages,
            stream: fields.flag("stream")?,
            sampling,
            tool_choice: tool_choice(&fields, &tools, Shape::Anthropic)?,
            tools,
        })
    }
}

/// A message of the user becomes one for the results of tools in it, each, and one for its text.
fn read_message(path: &str, item: &Value, messages: &mut Vec<ChatMessage>) -> Result<()> {
    let fields = Fields::of(item, path)?;
    let role = match fields.text("role")? {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        // Newer models of Anthropic's take instructions in the middle, too.
        Some("system") => Role::System,
        _ => return Err(ApiError::field(fields.name("role"), "must be user or assistant")),
    };
    let name = fields.name("content");
    let Some(blocks) = fields.get("content").and_then(Value::as_array) else {
        let text = content_text(fields.get("content").unwrap_or(&Value::Null), &name)?;
        messages.push(ChatMessage { role, text, calls: Vec::new() });
        return Ok(());
    };
    let (mut texts, mut calls, mut results) = (Vec::new(), Vec::new(), 0);
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{name}[{index}].");
        let fields = Fields::of(block, &path)?;
        let need = |field: &str| {
            let text = fields.text(field)?;
            text.ok_or_else(|| ApiError::field(fields.name(field), "must be a string"))
        };
        match (fields.text("type")?, role) {
            (Some("text"), _) => texts.push(need("text")?.to_owned()),
            // Thoughts are not part of what a model is shown again.
            (Some("thinking" | "redacted_thinking"), Role::Assistant) => {}
            (Some("tool_use"), Role::Assistant) => {
                let input = fields.get("input").map_or_else(|| "{}".to_owned(), Value::to_string);
                calls.push(ToolCall { name: need("name")?.to_owned(), arguments: input });
            }
            (Some("tool_result"), Role::User) => {
                need("tool_use_id")?;
                let text = match fields.get("content") {
                    None => String::new(),
                    Some(content) => content_text(content, &fields.name("content"))?,
                };
                messages.push(ChatMessage { role: Role::Tool, text, calls: Vec::new() });
                results += 1;
            }
            _ => {
                let expected = "must be text, tool_use or tool_result: the model reads text only";
                return Err(ApiError::field(fields.name("type"), expected));
            }
        }
    }
    if results == 0 || !texts.is_empty() {
        messages.push(ChatMessage { role, text: texts.join("\n"), calls });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_checked() {
        let user = json!([{ "role": "user", "content": "hi" }]);
        let request = MessagesRequest::read(&json!({
            "messages": user, "system": [{ "type": "text", "text": "be brief" }], "max_tokens": 5, "stop_sequences": ["x"],
        }))
        .unwrap();
        assert_eq!(request.messages[0].role, Role::System);
        assert_eq!((request.sampling.max_tokens, request.sampling.stop), (Some(5), vec!["x".to_owned()]));
        for (body, param) in [
            (json!({ "messages": user }), "max_tokens"),
            (json!({ "messages": [], "max_tokens": 5 }), "messages"),
            (json!({ "messages": user, "max_tokens": 5, "thinking": { "type": "enabled" } }), "thinking"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }], "max_tokens": 5 }),
                "messages[0].content[0].type",
            ),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_result" }] }], "max_tokens": 5 }),
                "messages[0].content[0].tool_use_id",
            ),
            (
                json!({ "messages": [{ "role": "user", "content": null }], "max_tokens": 5 }),
                "messages[0].content",
            ),
        ] {
            assert_eq!(MessagesRequest::read(&body).unwrap_err().param(), Some(param), "{body}");
        }
        let off = json!({ "messages": user, "max_tokens": 5, "thinking": { "type": "disabled" } });
        assert!(MessagesRequest::read(&off).is_ok());
    }

    #[test]
    fn calls_and_results_are_messages_of_their_own() {
        let request = MessagesRequest::read_to_count(&json!({
            "messages": [
                { "role": "user", "content": "What is the weather?" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "x" },
                    { "type": "text", "text": "I look." },
                    { "type": "tool_use", "id": "t1", "name": "weather", "input": { "city": "Oslo" } },
                ]},
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "text", "text": "17" }] },
                    { "type": "tool_result", "tool_use_id": "t2", "is_error": true },
                    { "type": "text", "text": "And?" },
                ]},
            ],
            "tools": [{ "name": "weather", "input_schema": { "type": "object" } }],
            "n": 99,
        }))
        .unwrap();
        let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::User]);
        assert_eq!(request.messages[1].text, "I look.");
        assert_eq!(request.messages[1].calls[0].arguments, "{\"city\":\"Oslo\"}");
        assert_eq!((request.messages[2].text.as_str(), request.tools.len()), ("17", 1));
        assert_eq!(request.sampling.answers, 1, "what is not listed is ignored");
    }
}
