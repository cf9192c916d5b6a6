//! The APIs that the proxy speaks, as data: which places of a request belong to the protocol.
//!
//! A place that no table names holds data, and data is scanned: a field is not left alone for its name, but for where it
//! is and what it holds. So a new field of an API is scanned before anybody here knows it.

mod chat;
mod messages;
mod plain;
mod responses;

use serde_json::{Value, json};

/// An endpoint whose requests are scrubbed and whose answers are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// OpenAI completions.
    Completions,
    /// OpenAI embeddings.
    Embeddings,
    /// OpenAI moderations.
    Moderations,
    /// Anthropic messages.
    Messages,
}

impl Api {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Chat, Self::Responses, Self::Completions, Self::Embeddings, Self::Moderations, Self::Messages];

    /// The path below the base address.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Moderations => "/moderations",
            Self::Messages => "/messages",
        }
    }

    /// The name in the audit log and the metrics.
    pub(super) fn name(self) -> &'static str {
        self.path().trim_start_matches('/').split('/').next().unwrap_or_default()
    }

    /// The field that a request must have.
    pub(super) fn required(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages => "messages",
            Self::Completions => "prompt",
            Self::Responses | Self::Embeddings | Self::Moderations => "input",
        }
    }

    /// What is where in a request.
    pub(super) fn request(self) -> &'static Shape {
        match self {
            Self::Chat => &chat::REQUEST,
            Self::Responses => &responses::REQUEST,
            Self::Completions => &plain::COMPLETIONS,
            Self::Embeddings => &plain::EMBEDDINGS,
            Self::Moderations => &plain::MODERATIONS,
            Self::Messages => &messages::REQUEST,
        }
    }

    /// Whether a request asks for an answer that is JSON.
    pub(super) fn wants_json(self, request: &Value) -> bool {
        let format = match self {
            Self::Responses => &request["text"]["format"]["type"],
            _ => &request["response_format"]["type"],
        };
        matches!(format.as_str(), Some("json_object" | "json_schema"))
    }
}

/// What a model is told about placeholders.
const HINT: &str = "Words in square brackets with a number, such as [LABEL_1], stand for values that were taken out of the \
                    texts. Use them where you would use the values, and write them exactly as they are.";

impl Api {
    /// Adds a line of instructions about placeholders, where the API has a place for it.
    pub(super) fn add_hint(self, request: &mut Value) {
        let place = match self {
            Self::Chat => {
                let messages = request["messages"].as_array_mut();
                return messages
                    .into_iter()
                    .for_each(|list| list.insert(0, json!({ "role": "system", "content": HINT })));
            }
            Self::Messages => &mut request["system"],
            Self::Responses => &mut request["instructions"],
            Self::Completions | Self::Embeddings | Self::Moderations => return,
        };
        match place {
            Value::Null => *place = HINT.into(),
            Value::String(text) => text.push_str(&format!("\n\n{HINT}")),
            Value::Array(blocks) => blocks.push(json!({ "type": "text", "text": HINT })),
            // No instructions at all; the provider will say so.
            _ => {}
        }
    }
}

/// What a place of a request holds. A value of another form than the place has is data.
pub(super) enum Shape {
    /// Anything that people or programs say: scanned by model and recognizers, keys and numbers too.
    Data,
    /// A text. Numbers in its place, which would be tokens, are refused.
    Text,
    /// A word of the protocol ([`WORDS`]).
    Word,
    /// A name in a program, or of a model: scanned by the recognizers.
    Name,
    /// An identity that a provider made up.
    Identity,
    /// A number that sets something.
    Setting,
    /// Ciphertext or a signature of the provider, which it wants back unchanged.
    Opaque,
    /// JSON in a string.
    Arguments,
    /// A JSON Schema.
    Schema,
    /// Numbers by token, as in `logit_bias`.
    Weights,
    /// A picture, sound or file.
    Attachment,
    /// The first of these that a value has the form of: a string is no object.
    OneOf(&'static [Shape]),
    /// A list of values of one shape.
    List(&'static Shape),
    /// Fields by name. Others are data.
    Fields(&'static [(&'static str, Shape)]),
    /// An object whose `type` says which fields it has. Of another type, it is data or, if it looks so, an attachment.
    Tagged(&'static [(&'static str, &'static [(&'static str, Shape)])]),
    /// A text, a part or a list of parts, which are as in [`Shape::Tagged`]; other parts are attachments.
    Content(&'static [(&'static str, &'static [(&'static str, Shape)])]),
}

/// Words that mean the same whoever sends them: roles, types, levels.
pub(super) const WORDS: &[&str] = &[
    // Roles.
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "model",
    // Types of parts, items, tools and formats.
    "text",
    "input_text",
    "output_text",
    "refusal",
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "summary_text",
    "reasoning_text",
    "item_reference",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "image_url",
    "input_image",
    "image",
    "input_audio",
    "input_file",
    "file",
    "document",
    "base64",
    "url",
    "content",
    "web_search",
    "web_search_preview",
    "file_search",
    "computer_use_preview",
    "code_interpreter",
    "mcp",
    "custom",
    "ephemeral",
    "json_object",
    "json_schema",
    "grammar",
    "lark",
    "regex",
    // Choices, levels, tiers.
    "auto",
    "none",
    "required",
    "any",
    "minimal",
    "low",
    "medium",
    "high",
    "default",
    "flex",
    "priority",
    "scale",
    "standard_only",
    "disabled",
    "enabled",
    "concise",
    "detailed",
    "in_progress",
    "completed",
    "incomplete",
    "float",
    "audio",
    "allowed_tools",
    "adaptive",
    "max",
    "xhigh",
    "in-memory",
    "24h",
    "5m",
    "1h",
    // JSON Schema.
    "object",
    "array",
    "string",
    "number",
    "integer",
    "boolean",
    "null",
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
    // What an answer ended with, which clients send back.
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "chat.completion",
    "response",
];

/// Settings that most APIs share.
macro_rules! with_settings {
    ($($field:expr),* $(,)?) => {
        &[
            ("model", Shape::Name),
            ("temperature", Shape::Setting),
            ("top_p", Shape::Setting),
            ("top_k", Shape::Setting),
            ("n", Shape::Setting),
            ("seed", Shape::Setting),
            ("max_tokens", Shape::Setting),
            ("max_completion_tokens", Shape::Setting),
            ("max_output_tokens", Shape::Setting),
            ("presence_penalty", Shape::Setting),
            ("frequency_penalty", Shape::Setting),
            ("top_logprobs", Shape::Setting),
            ("service_tier", Shape::Word),
            $($field,)*
        ]
    };
}
use with_settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_goes_where_instructions_go() {
        let hinted = |api: Api, mut request: Value| {
            api.add_hint(&mut request);
            request
        };
        assert_eq!(hinted(Api::Chat, json!({"messages": []}))["messages"][0]["content"], HINT);
        assert_eq!(hinted(Api::Messages, json!({}))["system"], HINT);
        assert_eq!(hinted(Api::Messages, json!({"system": [{"type": "text"}]}))["system"][1]["text"], HINT);
        let own = hinted(Api::Responses, json!({"instructions": "Be brief."}));
        assert_eq!(own["instructions"], format!("Be brief.\n\n{HINT}"));
        assert_eq!(hinted(Api::Embeddings, json!({"input": "x"})), json!({"input": "x"}));
    }
}
