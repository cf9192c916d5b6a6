//! Answers of a given form, and calls of tools.

use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

fn person() -> Value {
    json!({
        "type": "object",
        "properties": { "name": { "type": "string", "maxLength": 10 }, "age": { "type": "integer", "maximum": 120 } },
        "required": ["name", "age"],
        "additionalProperties": false,
    })
}

#[test]
fn answers_have_the_form_that_was_asked_for() {
    let endpoint = Endpoint::shared();
    let format = json!({ "type": "json_schema", "json_schema": { "name": "person", "schema": person() } });
    let body = with(chat("Invent a person."), json!({ "max_tokens": 80, "response_format": format }));
    let answer = endpoint.ask("/chat/completions", &body);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let found: Value = serde_json::from_str(content).unwrap();
    assert!(found["name"].is_string() && found["age"].is_u64(), "{content}");
    let hot = endpoint.ask("/chat/completions", &with(body, json!({ "temperature": 1.5, "seed": 3 })));
    let content = hot["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["age"].is_u64(), "{content}");

    let object = with(
        chat("Answer in JSON: which colour is the sea?"),
        json!({ "max_tokens": 300, "response_format": { "type": "json_object" } }),
    );
    let answer = endpoint.ask("/chat/completions", &object);
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    if answer["choices"][0]["finish_reason"] == "stop" {
        assert!(serde_json::from_str::<Value>(content).unwrap().is_object(), "{content}");
    } else {
        assert!(content.starts_with('{'), "{content}");
    }
}

#[test]
fn tools_are_called_with_arguments_of_their_schema() {
    let endpoint = Endpoint::shared();
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "description": "Stores a person.", "parameters": person() } });
    for (choice, stream) in [
        (json!("required"), false),
        (json!({ "type": "function", "function": { "name": "store" } }), false),
        (json!({ "type": "function", "function": { "name": "store" } }), true),
    ] {
        let fields = json!({ "max_tokens": 100, "tools": [tool("store"), tool("drop")], "tool_choice": choice, "stream": stream });
        let body = with(chat("Store Ana, who is 31."), fields);
        let (call, finish) = if stream {
            let events = endpoint.stream("/chat/completions", &body);
            let call =
                events.iter().find_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0).cloned());
            (call.unwrap(), events.last().unwrap()["choices"][0]["finish_reason"].clone())
        } else {
            let choice = endpoint.ask("/chat/completions", &body)["choices"][0].clone();
            assert_eq!(choice["message"]["content"], Value::Null);
            (choice["message"]["tool_calls"][0].clone(), choice["finish_reason"].clone())
        };
        assert_eq!(finish, "tool_calls");
        let function = &call["function"];
        if choice.is_object() {
            assert_eq!(function["name"], "store");
        }
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments["name"].is_string() && arguments["age"].is_u64(), "{arguments}");
    }
}

#[test]
fn results_of_tools_are_read() {
    let endpoint = Endpoint::shared();
    let messages = json!([
        { "role": "user", "content": "What is the temperature in Oslo?" },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } },
        ]},
        { "role": "tool", "tool_call_id": "c1", "content": "{\"celsius\": 17}" },
    ]);
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let body = with(chat(""), json!({ "messages": messages, "tools": tools, "max_tokens": 30 }));
    let answer = endpoint.ask("/chat/completions", &body);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 100, "{answer}");
    let without = with(body, json!({ "tool_choice": "none" }));
    assert!(endpoint.ask("/chat/completions", &without)["choices"][0]["message"]["content"].is_string());
}
