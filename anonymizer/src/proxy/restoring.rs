//! Restoring answers: whole ones, and streamed ones chunk by chunk.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::vault::{Escaping, StreamRestorer, Vault};

/// Fields of an answer that belong to the protocol.
const STRUCTURE: &[&str] =
    &["role", "type", "id", "name", "object", "model", "finish_reason", "system_fingerprint"];
/// Choices and tool calls of a stream that are followed.
const MAX_PARTS: usize = 1024;

/// How a field's text is put back.
fn escaping(name: &str) -> Escaping {
    if name == "arguments" { Escaping::Json } else { Escaping::None }
}

/// Restores every text of an answer; returns the placeholders that nobody knows.
pub(super) fn restore_all(vault: &Vault, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    restore_field(vault, "", value, &mut unknown);
    unknown
}

fn restore_field(vault: &Vault, name: &str, value: &mut Value, unknown: &mut Vec<String>) {
    match value {
        Value::String(text) if !STRUCTURE.contains(&name) => {
            let mut restored = vault.restore_as(text, escaping(name));
            unknown.append(&mut restored.unknown);
            *text = restored.text;
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| restore_field(vault, name, value, unknown))
        }
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| restore_field(vault, name, value, unknown));
        }
        _ => {}
    }
}

/// A step on the way to a text in a chunk's delta.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// An element, by its `index` if it has one.
    Element(u64),
}

/// Restores the chunks of a stream.
#[derive(Default)]
pub(super) struct ChunkRestorer {
    /// Per choice and text.
    texts: BTreeMap<(u64, Vec<Step>), StreamRestorer>,
    /// Fields of the last chunk, for one made here.
    template: Map<String, Value>,
    /// Placeholders that nobody knows.
    pub(super) unknown: Vec<String>,
}

impl ChunkRestorer {
    /// Restores a chunk in place. Text that may still become a placeholder is held back; with the chunk that ends a
    /// choice, what was held back comes along.
    pub(super) fn chunk(&mut self, vault: &Vault, chunk: &mut Value) {
        let Some(fields) = chunk.as_object_mut() else { return };
        self.template = fields
            .iter()
            .filter(|(_, value)| !value.is_array() && !value.is_object())
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        for (position, choice) in
            fields.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
            let ends = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            let Some(fields) = choice.as_object_mut() else { continue };
            let delta = fields.entry("delta").or_insert_with(|| json!({}));
            self.delta(vault, index, &mut Vec::new(), delta);
            if ends {
                for (path, text) in self.flush(vault, Some(index)) {
                    put(delta, &path.1, text);
                }
            }
        }
    }

    /// Chunks with what is still held back, at the end of a stream.
    pub(super) fn finish(&mut self, vault: &Vault) -> Vec<Value> {
        let rest = self.flush(vault, None);
        let chunk = |((index, path), text): ((u64, Vec<Step>), String)| {
            let mut delta = json!({});
            put(&mut delta, &path, text);
            let mut fields = self.template.clone();
            fields.insert(
                "choices".to_owned(),
                json!([{ "index": index, "delta": delta, "finish_reason": null }]),
            );
            Value::Object(fields)
        };
        rest.into_iter().map(chunk).collect()
    }

    fn flush(&mut self, vault: &Vault, index: Option<u64>) -> Vec<((u64, Vec<Step>), String)> {
        let mut rest = Vec::new();
        for (key, restorer) in
            self.texts.iter_mut().filter(|(key, _)| index.is_none_or(|index| key.0 == index))
        {
            let text = restorer.finish(vault);
            self.unknown.append(&mut restorer.unknown);
            if !text.is_empty() {
                rest.push((key.clone(), text));
            }
        }
        rest
    }

    fn delta(&mut self, vault: &Vault, index: u64, path: &mut Vec<Step>, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    path.push(Step::Field(name.clone()));
                    match value {
                        Value::String(text) if !STRUCTURE.contains(&name.as_str()) => {
                            let key = (index, path.clone());
                            if self.texts.len() < MAX_PARTS || self.texts.contains_key(&key) {
                                let restorer = self
                                    .texts
                                    .entry(key)
                                    .or_insert_with(|| StreamRestorer::new(escaping(name)));
                                *text = restorer.push(vault, text);
                                self.unknown.append(&mut restorer.unknown);
                            }
                        }
                        value => self.delta(vault, index, path, value),
                    }
                    path.pop();
                }
            }
            Value::Array(values) => {
                for (position, value) in values.iter_mut().enumerate() {
                    let element = value.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
                    path.push(Step::Element(element));
                    self.delta(vault, index, path, value);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

/// Appends a text to the place that a path names, made if it is not there.
fn put(value: &mut Value, path: &[Step], text: String) {
    match path {
        [] => match value {
            Value::String(old) => old.push_str(&text),
            other => *other = Value::String(text),
        },
        [Step::Field(name), rest @ ..] => {
            if !value.is_object() {
                *value = json!({});
            }
            if let Some(fields) = value.as_object_mut() {
                put(fields.entry(name.clone()).or_insert(Value::Null), rest, text);
            }
        }
        [Step::Element(index), rest @ ..] => {
            if !value.is_array() {
                *value = json!([]);
            }
            if let Some(values) = value.as_array_mut() {
                let at = values
                    .iter()
                    .position(|value| value.get("index").and_then(Value::as_u64) == Some(*index));
                let at = at.unwrap_or_else(|| {
                    values.push(json!({ "index": index }));
                    values.len() - 1
                });
                put(&mut values[at], rest, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Entity, Source, Span};

    fn vault() -> Vault {
        let mut vault = Vault::new();
        let span = |start, end| Span {
            start,
            end,
            label: Entity::GivenName.into(),
            score: 1.0,
            source: Source::Model,
        };
        vault.redact("Anna B\"n", &[span(0, 4), span(5, 8)]).unwrap();
        vault
    }

    fn chunk(delta: Value, finish: Option<&str>) -> Value {
        json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn half_placeholders_are_held_back_until_the_end() {
        let vault = vault();
        let mut restorer = ChunkRestorer::default();
        let mut pieces = Vec::new();
        for (piece, finish) in [("Hi [GIV", None), ("EN_NAME_1", None), ("]! [GIVEN", Some("stop"))] {
            let mut chunk = chunk(json!({"content": piece}), finish);
            restorer.chunk(&vault, &mut chunk);
            pieces.push(chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned());
        }
        assert_eq!(pieces, ["Hi ", "", "Anna! [GIVEN"]);
        assert!(restorer.finish(&vault).is_empty());
    }

    #[test]
    fn the_last_chunk_brings_what_was_held_back() {
        let vault = vault();
        let mut restorer = ChunkRestorer::default();
        let call = |text: &str| json!({"tool_calls": [{"index": 1, "function": {"arguments": text}}]});
        let mut first = chunk(call("{\"who\": \"[GIVEN_NAME_2"), None);
        restorer.chunk(&vault, &mut first);
        let mut second = chunk(call("]\"}["), None);
        restorer.chunk(&vault, &mut second);
        let arguments = |chunk: &Value| {
            chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(arguments(&first) + &arguments(&second), "{\"who\": \"B\\\"n\"}");
        let mut last = chunk(json!({}), Some("tool_calls"));
        restorer.chunk(&vault, &mut last);
        assert_eq!(arguments(&last), "[");
        assert_eq!(last["choices"][0]["delta"]["tool_calls"][0]["index"], 1);
    }

    #[test]
    fn a_stream_without_an_end_gives_up_its_rest() {
        let vault = vault();
        let mut restorer = ChunkRestorer::default();
        restorer.chunk(&vault, &mut chunk(json!({"content": "[GIVEN"}), None));
        let rest = restorer.finish(&vault);
        assert_eq!(rest[0]["choices"][0]["delta"]["content"], "[GIVEN");
        assert_eq!(rest[0]["id"], "x");
    }

    #[test]
    fn whole_answers_are_restored() {
        let vault = vault();
        let mut answer = json!({"id": "[GIVEN_NAME_1]", "choices": [{"message": {"content": "[GIVEN_NAME_1] and [CITY_3]",
            "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": \"[GIVEN_NAME_2]\"}"}}]}}]});
        let unknown = restore_all(&vault, &mut answer);
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], "Anna and [CITY_3]");
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"a\": \"B\\\"n\"}");
        assert_eq!((answer["id"].as_str(), unknown.len()), (Some("[GIVEN_NAME_1]"), 1));
    }
}
