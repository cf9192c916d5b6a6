//! Anthropic's `POST /v1/messages`: text, whole and streamed.

use serde_json::Value;

use crate::chat::{ChatMessage, Role, content_text};
use crate::error::{ApiError, Result};
use crate::fields::ANTHROPIC;
use crate::read::Fields;
use crate::sampling::{MAX_STOPS, Sampling};

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
}

impl MessagesRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, ANTHROPIC)?;
        let mut sampling = Sampling::read(&fields, &["max_tokens"])?;
        if sampling.max_tokens.is_none() {
            return Err(ApiError::field("max_tokens", "must be a whole number of at least 1"));
        }
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
            let path = format!("messages[{index}].");
            let fields = Fields::of(item, &path)?;
            let role = match fields.text("role")? {
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                _ => return Err(ApiError::field(fields.name("role"), "must be user or assistant")),
            };
            let content = fields.get("content").unwrap_or(&Value::Null);
            let text = content_text(content, &fields.name("content"))?;
            messages.push(ChatMessage { role, text, calls: Vec::new() });
        }
        let model = fields.text("model")?.map(ToOwned::to_owned);
        Ok(Self { model, messages, stream: fields.flag("stream")?, sampling })
    }
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
        ] {
            assert_eq!(MessagesRequest::read(&body).unwrap_err().param(), Some(param), "{body}");
        }
        let off = json!({ "messages": user, "max_tokens": 5, "thinking": { "type": "disabled" } });
        assert!(MessagesRequest::read(&off).is_ok());
    }
}
