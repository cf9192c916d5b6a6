//! Restoring streamed answers event by event.
//!
//! Text that may still become a placeholder is held back until the text goes on or ends. Arguments of tools are held back
//! until they are whole: they are restored as the JSON that they are, and nobody can use half of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::answers::{self, Report, is_structure};
use super::protocol::Api;
use crate::vault::{Escaping, Scope, StreamRestorer};

/// Texts of a stream that are followed.
const MAX_TEXTS: usize = 1024;
/// Bytes of tools' arguments that are held back.
const MAX_ARGUMENTS: usize = 4 << 20;

/// A step on the way to a text in an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// An element, by its `index` if it has one.
    Element(u64),
}

type Path = Vec<Step>;

/// A text in the making.
enum Text {
    Plain(StreamRestorer),
    Arguments(String),
}

/// Restores the events of one answer.
pub(super) struct EventRestorer {
    api: Api,
    escaping: Escaping,
    /// By choice, block or item, and by where in it.
    texts: BTreeMap<(String, Path), Text>,
    /// The last event of each choice, block or item: what comes late is sent in one like it.
    templates: BTreeMap<String, Value>,
    arguments: usize,
    /// Whether the answer is complete.
    pub(super) done: bool,
    /// Placeholders that were left.
    pub(super) report: Report,
}

/// An answer that cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl EventRestorer {
    /// At the beginning of an answer of this API, whose texts are JSON or not.
    pub(super) fn new(api: Api, json: bool) -> Self {
        Self {
            api,
            escaping: if json { Escaping::Json } else { Escaping::None },
            texts: BTreeMap::new(),
            templates: BTreeMap::new(),
            arguments: 0,
            done: false,
            report: Report::default(),
        }
    }

    /// Restores an event. Returns it, after events with what had been held back if it ends something.
    pub(super) fn event(&mut self, scope: &Scope, mut event: Value) -> Result<Vec<Value>, TooMuch> {
        let mut out = match self.api {
            Api::Chat | Api::Completions => {
                self.chunk(scope, &mut event);
                Vec::new()
            }
            Api::Messages => self.message_event(scope, &mut event),
            Api::Responses => self.response_event(scope, &mut event),
            Api::Embeddings | Api::Moderations => {
                self.whole(scope, &mut event);
                Vec::new()
            }
        };
        if self.arguments > MAX_ARGUMENTS {
            return Err(TooMuch);
        }
        out.push(event);
        Ok(out)
    }

    /// Events with what is still held back, at the end of the stream.
    pub(super) fn finish(&mut self, scope: &Scope) -> Vec<Value> {
        let keys: Vec<String> = self.templates.keys().cloned().collect();
        keys.iter().flat_map(|key| self.late(scope, key)).collect()
    }

    fn whole(&mut self, scope: &Scope, value: &mut Value) {
        answers::restore(scope, self.escaping == Escaping::Json, value, &mut self.report);
    }

    /// A chunk of chat or text completions: `choices` with a `delta` or a `text`.
    fn chunk(&mut self, scope: &Scope, chunk: &mut Value) {
        let Some(fields) = chunk.as_object_mut() else { return };
        if let Some(error) = fields.get_mut("error") {
            self.whole(scope, error);
        }
        let shell: Map<String, Value> = fields
            .iter()
            .filter(|(_, value)| !value.is_array() && !value.is_object())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let place = if self.api == Api::Chat { "delta" } else { "text" };
        let choices = fields.get_mut("choices").and_then(Value::as_array_mut);
        for (position, choice) in choices.into_iter().flatten().enumerate() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
            let ends = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            let Some(choice) = choice.as_object_mut() else { continue };
            let empty = if place == "delta" { json!({}) } else { json!("") };
            let delta = choice.entry(place).or_insert(empty);
            let key = format!("{index:020}");
            let mut template = shell.clone();
            template.insert(
                "choices".to_owned(),
                json!([{ "index": index, place: null, "finish_reason": null }]),
            );
            self.templates.insert(key.clone(), Value::Object(template));
            self.follow(scope, &key, &mut Vec::new(), if place == "text" { "text" } else { "" }, delta);
            if ends {
                for (path, text) in self.flush(scope, &key) {
                    put(delta, &path, text);
                }
            }
        }
    }

    /// An event of Anthropic's messages.
    fn message_event(&mut self, scope: &Scope, event: &mut Value) -> Vec<Value> {
        let key = event.get("index").and_then(Value::as_u64).unwrap_or(0).to_string();
        match event["type"].as_str() {
            Some("content_block_start") => {
                // A block may begin with text, whose placeholder goes on in the next event.
                if let Some(text) = event["content_block"].get_mut("text") {
                    self.follow(scope, &key, &mut vec![Step::Field("text".to_owned())], "text", text);
                }
                Vec::new()
            }
            Some("content_block_delta") => {
                let mut template = event.clone();
                template["delta"] = json!({ "type": event["delta"]["type"] });
                self.templates.insert(key.clone(), template);
                if let Some(delta) = event.get_mut("delta") {
                    self.follow(scope, &key, &mut Vec::new(), "", delta);
                }
                Vec::new()
            }
            Some("content_block_stop") => self.late(scope, &key),
            Some("error") => {
                self.done = true;
                self.whole(scope, event);
                Vec::new()
            }
            Some("message_stop") => {
                self.done = true;
                self.finish(scope)
            }
            _ => {
                self.whole(scope, event);
                Vec::new()
            }
        }
    }

    /// An event of OpenAI's responses.
    fn response_event(&mut self, scope: &Scope, event: &mut Value) -> Vec<Value> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        if matches!(kind.as_str(), "response.completed" | "response.failed" | "response.incomplete" | "error")
        {
            self.done = true;
        }
        let part = |kind: &str| {
            format!("{kind} {} {} {}", event["output_index"], event["content_index"], event["summary_index"])
        };
        if let Some(text) = kind.strip_suffix(".delta").filter(|_| event["delta"].is_string()) {
            let key = part(text);
            let mut template = event.clone();
            template["delta"] = Value::Null;
            self.templates.insert(key.clone(), template);
            let name = if text.ends_with("arguments") { "arguments" } else { "text" };
            self.follow(scope, &key, &mut vec![Step::Field("delta".to_owned())], name, &mut event["delta"]);
            return Vec::new();
        }
        let late = match kind.strip_suffix(".done") {
            Some(text) => self.late(scope, &part(text)),
            None if self.done => self.finish(scope),
            None => Vec::new(),
        };
        self.whole(scope, event);
        late
    }

    /// Follows the texts of a delta.
    fn follow(&mut self, scope: &Scope, key: &str, path: &mut Path, name: &str, value: &mut Value) {
        match value {
            Value::String(text) if !is_structure(name) => {
                let key = (key.to_owned(), path.clone());
                if self.texts.len() >= MAX_TEXTS && !self.texts.contains_key(&key) {
                    return;
                }
                let escaping = self.escaping;
                let followed = self.texts.entry(key).or_insert_with(|| match name {
                    "arguments" | "partial_json" => Text::Arguments(String::new()),
                    "content" | "text" => Text::Plain(StreamRestorer::new(escaping)),
                    _ => Text::Plain(StreamRestorer::default()),
                });
                *text = match followed {
                    Text::Plain(restorer) => restorer.push(scope, text),
                    Text::Arguments(held) => {
                        held.push_str(text);
                        self.arguments += text.len();
                        String::new()
                    }
                };
            }
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    path.push(Step::Field(name.clone()));
                    self.follow(scope, key, path, name, value);
                    path.pop();
                }
            }
            Value::Array(values) => {
                for (position, value) in values.iter_mut().enumerate() {
                    let element = value.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
                    path.push(Step::Element(element));
                    self.follow(scope, key, path, name, value);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// What is held back of a choice, block or item.
    fn flush(&mut self, scope: &Scope, key: &str) -> Vec<(Path, String)> {
        let mut rest = Vec::new();
        for ((_, path), text) in self.texts.iter_mut().filter(|((own, _), _)| own == key) {
            let text = match text {
                Text::Plain(restorer) => {
                    let text = restorer.finish(scope);
                    self.report.unknown.append(&mut restorer.unknown);
                    self.report.withheld.append(&mut restorer.withheld);
                    text
                }
                Text::Arguments(held) => {
                    let held = std::mem::take(held);
                    self.arguments -= held.len();
                    answers::arguments(scope, &held, &mut self.report)
                }
            };
            if !text.is_empty() {
                rest.push((path.clone(), text));
            }
        }
        rest
    }

    /// Events with what is held back of a choice, block or item.
    fn late(&mut self, scope: &Scope, key: &str) -> Vec<Value> {
        let rest = self.flush(scope, key);
        let Some(template) = self.templates.get(key) else { return Vec::new() };
        let event = |(path, text): (Path, String)| {
            let mut event = template.clone();
            match self.api {
                Api::Responses => put(&mut event, &path, text),
                Api::Messages => put(&mut event["delta"], &path, text),
                Api::Completions => put(&mut event["choices"][0]["text"], &path, text),
                _ => put(&mut event["choices"][0]["delta"], &path, text),
            }
            event
        };
        rest.into_iter().map(event).collect()
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
    use crate::vault::Vault;

    fn scope() -> Scope {
        let mut vault = Vault::new();
        let span = |start, end| Span {
            start,
            end,
            label: Entity::GivenName.into(),
            score: 1.0,
            source: Source::Model,
        };
        let text = vault.redact("Anna B\"n", &[span(0, 4), span(5, 8)]).unwrap().text;
        Scope::of_request(&vault, [text.as_str()])
    }

    fn run(api: Api, events: &[Value]) -> Vec<Value> {
        let scope = scope();
        let mut restorer = EventRestorer::new(api, false);
        let mut out: Vec<Value> =
            events.iter().flat_map(|event| restorer.event(&scope, event.clone()).unwrap()).collect();
        out.extend(restorer.finish(&scope));
        out
    }

    fn chunk(delta: Value, finish: Option<&str>) -> Value {
        json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn half_placeholders_are_held_back_until_the_end() {
        let events = [("Hi [GIV", None), ("EN_NAME_1", None), ("]! [GIVEN", Some("stop"))]
            .map(|(piece, finish)| chunk(json!({"content": piece}), finish));
        let out = run(Api::Chat, &events);
        let pieces: Vec<_> =
            out.iter().map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
        assert_eq!(pieces, ["Hi ", "", "Anna! [GIVEN"]);
    }

    #[test]
    fn arguments_come_whole_with_the_end() {
        let call = |text: &str| json!({"tool_calls": [{"index": 1, "function": {"arguments": text}}]});
        let out = run(
            Api::Chat,
            &[
                chunk(call("{\"who\": \"[GIVEN_NAME_2"), None),
                chunk(call("]\"}"), None),
                chunk(json!({}), Some("tool_calls")),
            ],
        );
        let call = &out[2]["choices"][0]["delta"]["tool_calls"][0];
        assert_eq!(
            (call["index"].as_u64(), call["function"]["arguments"].as_str()),
            (Some(1), Some("{\"who\":\"B\\\"n\"}"))
        );
    }

    #[test]
    fn a_stream_without_an_end_gives_up_its_rest() {
        let out = run(Api::Chat, &[chunk(json!({"content": "[GIVEN"}), None)]);
        assert_eq!(
            (&out[1]["choices"][0]["delta"]["content"], &out[1]["id"]),
            (&json!("[GIVEN"), &json!("x"))
        );
        let out = run(Api::Completions, &[json!({"choices": [{"index": 0, "text": "by [GIVEN_NAME_1"}]})]);
        assert_eq!(out[1]["choices"][0]["text"], "[Anna");
    }

    #[test]
    fn blocks_of_messages_are_restored() {
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
        let out = run(
            Api::Messages,
            &[
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                delta(json!({"type": "text_delta", "text": "Hi [GIVEN_NA"})),
                delta(json!({"type": "text_delta", "text": "ME_1], [GIV"})),
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}}),
                json!({"type": "content_block_delta", "index": 1,
                    "delta": {"type": "input_json_delta", "partial_json": "{\"who\":\"[GIVEN_NAME_2]\"}"}}),
                json!({"type": "content_block_stop", "index": 1}),
                json!({"type": "message_stop"}),
            ],
        );
        let text: String = out.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert_eq!(text, "Hi Anna, [GIV");
        let input: String = out.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
        assert_eq!(serde_json::from_str::<Value>(&input).unwrap(), json!({"who": "B\"n"}));
        let kinds: Vec<_> = out.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds[3..5], ["content_block_delta", "content_block_stop"]);
        assert_eq!(kinds.last(), Some(&"message_stop"));
    }

    #[test]
    fn items_of_responses_are_restored() {
        let out = run(
            Api::Responses,
            &[
                json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "I am [GIVEN_NAME"}),
                json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "_1"}),
                json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "I am [GIVEN_NAME_1"}),
                json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{\"a\":\"[GIVEN_"}),
                json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "NAME_1]\"}"}),
                json!({"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{\"a\":\"[GIVEN_NAME_1]\"}"}),
                json!({"type": "response.completed", "response": {"output": [{"content": [{"text": "[GIVEN_NAME_1]"}]}]}}),
            ],
        );
        let of = |kind: &str| -> String {
            out.iter()
                .filter(|event| event["type"] == kind)
                .map(|event| event["delta"].as_str().unwrap())
                .collect()
        };
        assert_eq!(of("response.output_text.delta"), "I am [Anna");
        assert_eq!(of("response.function_call_arguments.delta"), "{\"a\":\"Anna\"}");
        assert_eq!(out.last().unwrap()["response"]["output"][0]["content"][0]["text"], "Anna");
        let done = out.iter().find(|event| event["type"] == "response.function_call_arguments.done").unwrap();
        assert_eq!(done["arguments"], "{\"a\":\"Anna\"}");
    }
}
