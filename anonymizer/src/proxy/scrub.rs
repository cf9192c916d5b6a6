//! Which texts of a request are scrubbed, and how.
//!
//! Every string of a request is looked at. What people and tools say (messages, tool calls' arguments value by value,
//! `user`, `metadata`) is scanned by the model; other strings, also those of fields unknown here, by the recognizers and
//! for values known already. Names that the protocol needs (roles, types, identities, function names, the model) are left.

use serde_json::{Map, Value};

use super::reply::Refusal;
use axum::http::StatusCode;

/// How a text is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Recognizers and model.
    Full,
    /// Recognizers and known values.
    Light,
}

/// A text of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// What the scan sees: possibly the name of a field in front of the value, for context.
    pub(super) text: String,
    /// Code points in front of the value.
    pub(super) prefix: usize,
    pub(super) depth: Depth,
}

/// Fields whose strings belong to the protocol, at any depth.
const STRUCTURE: &[&str] = &[
    "role",
    "type",
    "id",
    "tool_call_id",
    "call_id",
    "model",
    "object",
    "finish_reason",
    "detail",
    "format",
];
/// Top-level fields that are left alone altogether.
const SETTINGS: &[&str] = &[
    "model",
    "response_format",
    "tool_choice",
    "function_call",
    "service_tier",
    "reasoning_effort",
    "modalities",
    "logit_bias",
];
/// Parts of a message that hold text.
const TEXT_PARTS: &[&str] = &["text", "input_text", "output_text", "refusal", "thinking", "reasoning"];
/// Digits from which a number could be somebody's.
const LONG_NUMBER: usize = 7;
/// JSON inside a string inside JSON is read this deep.
const MAX_DEPTH: usize = 64;

/// Sees the texts of a request, in an order that depends on its structure only. What `each` returns takes a text's place;
/// `None` leaves it.
pub(super) struct Visitor<'a> {
    each: &'a mut dyn FnMut(Slot) -> Option<String>,
}

impl<'a> Visitor<'a> {
    pub(super) fn new(each: &'a mut dyn FnMut(Slot) -> Option<String>) -> Self {
        Self { each }
    }

    /// Visits a request.
    pub(super) fn request(&mut self, request: &mut Map<String, Value>) {
        for (name, value) in request.iter_mut() {
            match name.as_str() {
                "messages" => {
                    value.as_array_mut().into_iter().flatten().for_each(|message| self.message(message))
                }
                "user" | "metadata" | "prediction" | "safety_identifier" => {
                    self.any(value, Depth::Full, name, 0)
                }
                name if SETTINGS.contains(&name) => {}
                name => self.any(value, Depth::Light, name, 0),
            }
        }
    }

    fn message(&mut self, message: &mut Value) {
        let Some(fields) = message.as_object_mut() else { return self.any(message, Depth::Full, "", 0) };
        for (name, value) in fields.iter_mut() {
            match name.as_str() {
                "tool_calls" => {
                    value.as_array_mut().into_iter().flatten().for_each(|call| self.tool_call(call))
                }
                "function_call" => self.function(value),
                // Blocks that hold text; others were refused or allowed before.
                "content" if value.is_array() => {
                    for part in value.as_array_mut().into_iter().flatten() {
                        if attachment(part).is_none() {
                            self.any(part, Depth::Full, "", 0);
                        }
                    }
                }
                name if STRUCTURE.contains(&name) => {}
                _ => self.any(value, Depth::Full, "", 0),
            }
        }
    }

    fn tool_call(&mut self, call: &mut Value) {
        for (name, value) in call.as_object_mut().into_iter().flatten() {
            match name.as_str() {
                "function" | "custom" => self.function(value),
                name if STRUCTURE.contains(&name) => {}
                _ => self.any(value, Depth::Light, "", 0),
            }
        }
    }

    fn function(&mut self, function: &mut Value) {
        for (name, value) in function.as_object_mut().into_iter().flatten() {
            match (name.as_str(), value) {
                ("name", _) => {}
                ("arguments", Value::String(text)) => self.arguments(text),
                (_, value) => self.any(value, Depth::Full, "", 0),
            }
        }
    }

    /// JSON in a string: value by value if it can be read, else as one text.
    fn arguments(&mut self, text: &mut String) {
        match serde_json::from_str::<Value>(text) {
            Ok(mut value) if value.is_object() || value.is_array() => {
                let before = value.clone();
                self.data(&mut value, "", 0);
                // Whatever is unchanged keeps its spelling.
                if value != before {
                    *text = value.to_string();
                }
            }
            _ => self.string(text, Depth::Full, ""),
        }
    }

    /// Values of a tool, with the names of their fields as context; long numbers and field names are looked at too.
    fn data(&mut self, value: &mut Value, name: &str, depth: usize) {
        match value {
            Value::String(text) => self.string(text, Depth::Full, name),
            Value::Array(values) if depth < MAX_DEPTH => {
                values.iter_mut().for_each(|value| self.data(value, name, depth + 1));
            }
            Value::Object(fields) if depth < MAX_DEPTH => {
                let old = std::mem::take(fields);
                for (mut name, mut value) in old {
                    self.data(&mut value, &name, depth + 1);
                    self.string(&mut name, Depth::Light, "");
                    fields.insert(name, value);
                }
            }
            Value::Number(number) => {
                let mut text = number.to_string();
                if text.bytes().filter(u8::is_ascii_digit).count() >= LONG_NUMBER {
                    let before = text.clone();
                    self.string(&mut text, Depth::Full, name);
                    if text != before {
                        *value = Value::String(text);
                    }
                }
            }
            _ => {}
        }
    }

    /// Any value: its strings, except those of the protocol.
    fn any(&mut self, value: &mut Value, how: Depth, name: &str, depth: usize) {
        match value {
            Value::String(text) => self.string(text, how, name),
            Value::Array(values) if depth < MAX_DEPTH => {
                values.iter_mut().for_each(|value| self.any(value, how, "", depth + 1));
            }
            Value::Object(fields) if depth < MAX_DEPTH => {
                for (name, value) in fields
                    .iter_mut()
                    .filter(|(name, value)| !(value.is_string() && STRUCTURE.contains(&name.as_str())))
                {
                    let context = if how == Depth::Full && name != "text" { name.as_str() } else { "" };
                    self.any(value, how, context, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn string(&mut self, text: &mut String, depth: Depth, name: &str) {
        if text.is_empty() {
            return;
        }
        let front =
            if name.is_empty() { String::new() } else { format!("{}: ", name.replace(['_', '-'], " ")) };
        let slot = Slot { prefix: front.chars().count(), text: front + text, depth };
        if let Some(replaced) = (self.each)(slot) {
            *text = replaced;
        }
    }
}

/// The type of a part of a message that is no text.
fn attachment(part: &Value) -> Option<&str> {
    let kind = part.get("type")?.as_str()?;
    (!TEXT_PARTS.contains(&kind)).then_some(kind)
}

/// Refuses parts that cannot be scrubbed: pictures, sound, files.
pub(super) fn refuse_attachments(request: &Map<String, Value>) -> Result<(), Refusal> {
    let messages = request.get("messages").and_then(Value::as_array);
    let parts =
        messages.into_iter().flatten().filter_map(|message| message.get("content")?.as_array()).flatten();
    match parts.filter_map(attachment).next() {
        Some(_) => Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "attachment",
            "pictures, sound and files cannot be anonymized; start the proxy with --allow-attachments to send them as they are",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scrubbed(request: Value) -> Value {
        let Value::Object(mut request) = request else { panic!("an object") };
        let mut each = |slot: Slot| {
            let value: String = slot.text.chars().skip(slot.prefix).collect();
            let mark = if slot.depth == Depth::Full { 'F' } else { 'L' };
            Some(format!("{mark}{}", value.len()))
        };
        Visitor::new(&mut each).request(&mut request);
        Value::Object(request)
    }

    #[test]
    fn every_text_is_seen_and_the_protocol_is_left() {
        let got = scrubbed(json!({
            "model": "gpt", "temperature": 0.5, "stream": true, "user": "ann", "x_new": {"deep": ["abc", 7]},
            "stop": ["END"],
            "tools": [{"type": "function", "function": {"name": "find", "description": "words"}}],
            "messages": [
                {"role": "system", "content": "four"},
                {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "hello"}]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function":
                    {"name": "find", "arguments": "{\"who\": \"Ann Lee\", \"n\": 3, \"tel\": 4155550132}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "ok"},
            ],
        }));
        assert_eq!(got["model"], "gpt");
        assert_eq!(got["user"], "F3");
        assert_eq!(got["x_new"], json!({"deep": ["L3", 7]}));
        assert_eq!(got["tools"][0]["function"]["description"], "L5");
        assert_eq!(
            got["messages"][1],
            json!({"role": "user", "name": "F3", "content": [{"type": "text", "text": "F5"}]})
        );
        let call = &got["messages"][2]["tool_calls"][0];
        assert_eq!((call["id"].as_str(), call["function"]["name"].as_str()), (Some("c1"), Some("find")));
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments, json!({"L3": "F10", "L1": 3}));
        assert_eq!(got["messages"][3]["tool_call_id"], "c1");
    }

    #[test]
    fn attachments_are_refused() {
        let part = json!({"type": "image_url", "image_url": {"url": "data:..."}});
        let request = json!({"messages": [{"role": "user", "content": [part]}]});
        assert!(refuse_attachments(request.as_object().unwrap()).is_err());
        let request = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]});
        assert!(refuse_attachments(request.as_object().unwrap()).is_ok());
    }
}
