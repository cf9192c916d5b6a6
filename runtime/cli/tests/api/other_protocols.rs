//! OpenAI's responses and Anthropic's messages.

use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

/// Names and data of the events of a stream.
fn events(endpoint: &Endpoint, path: &str, body: &Value) -> Vec<(String, Value)> {
    let text = endpoint.post(path, body).text().unwrap();
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    text.split("\n\n")
        .filter_map(|event| {
            Some((field(event, "event:")?, serde_json::from_str(&field(event, "data:")?).unwrap()))
        })
        .collect()
}

#[test]
fn responses_whole_and_streamed_are_the_chat_answer() {
    let endpoint = Endpoint::shared();
    let reference = endpoint.ask("/chat/completions", &chat("Name three colours."));
    let reference = reference["choices"][0]["message"]["content"].as_str().unwrap();
    let body = json!({ "model": "smollm2-135m", "input": "Name three colours.", "max_output_tokens": 12, "temperature": 0 });
    let whole = endpoint.ask("/responses", &body);
    assert_eq!(whole["output"][0]["content"][0]["text"], reference);
    assert_eq!((whole["object"].as_str(), whole["status"].as_str()), (Some("response"), Some("incomplete")));
    assert_eq!(whole["usage"]["output_tokens"], 12);

    let streamed = events(endpoint, "/responses", &with(body, json!({ "stream": true })));
    assert!(streamed.iter().all(|(name, data)| data["type"] == *name));
    let numbers: Vec<u64> =
        streamed.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let text: String = streamed.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    assert_eq!(text, reference);
    assert_eq!(streamed[0].0, "response.created");
    let (last, data) = streamed.last().unwrap();
    assert_eq!(
        (last.as_str(), &data["response"]["output"][0]["content"][0]["text"]),
        ("response.incomplete", &json!(reference))
    );
}

#[test]
fn messages_whole_and_streamed_are_the_chat_answer() {
    let endpoint = Endpoint::shared();
    let reference = endpoint.ask("/chat/completions", &chat("Name three colours."));
    let reference = reference["choices"][0]["message"]["content"].as_str().unwrap();
    let user = json!([{ "role": "user", "content": "Name three colours." }]);
    let body = json!({ "model": "smollm2-135m", "messages": user, "max_tokens": 12, "temperature": 0 });
    let whole = endpoint.ask("/messages", &body);
    assert_eq!(whole["content"][0]["text"], reference);
    assert_eq!(
        (whole["type"].as_str(), whole["stop_reason"].as_str()),
        (Some("message"), Some("max_tokens"))
    );

    let streamed = events(endpoint, "/messages", &with(body.clone(), json!({ "stream": true })));
    let names: Vec<&str> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let text: String = streamed.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text, reference);

    let refused = endpoint.post("/messages", &json!({ "model": "smollm2-135m", "messages": user }));
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().unwrap()["type"], "error");
    let stop = reference.split_whitespace().nth(1).unwrap();
    let stopped = endpoint.ask("/messages", &with(body, json!({ "stop_sequences": [stop] })));
    assert_eq!(
        (stopped["stop_reason"].as_str(), stopped["stop_sequence"].as_str()),
        (Some("stop_sequence"), Some(stop))
    );
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "city": { "enum": ["Oslo", "Rome"] } },
        "required": ["city"],
        "additionalProperties": false,
    })
}

#[test]
fn responses_call_tools_and_read_what_they_give() {
    let endpoint = Endpoint::shared();
    let tools = json!([{ "type": "function", "name": "weather", "parameters": schema() }]);
    let body = json!({ "input": "Is it cold in Oslo?", "tools": tools, "tool_choice": "required", "max_output_tokens": 60 });
    let whole = endpoint.ask("/responses", &body);
    let call = whole["output"][0].clone();
    assert_eq!(
        (call["type"].as_str(), call["name"].as_str()),
        (Some("function_call"), Some("weather")),
        "{whole}"
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string(), "{arguments}");
    assert_eq!(whole["output"].as_array().unwrap().len(), 1);

    let streamed = events(endpoint, "/responses", &with(body.clone(), json!({ "stream": true })));
    let names: Vec<&str> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[2..],
        [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    let item = &streamed[5].1["item"];
    assert_eq!(streamed[4].1["arguments"], item["arguments"]);
    assert_eq!(streamed[6].1["response"]["output"][0], *item);

    let input = json!([
        { "role": "user", "content": "Is it cold in Oslo?" },
        call,
        { "type": "function_call_output", "call_id": call["call_id"], "output": "-5 degrees" },
    ]);
    let answer = endpoint.ask(
        "/responses",
        &with(body, json!({ "input": input, "tool_choice": "none", "max_output_tokens": 4 })),
    );
    assert_eq!(answer["output"][0]["type"], "message");
    assert!(answer["usage"]["input_tokens"].as_u64().unwrap() > 40, "{answer}");
}

#[test]
fn messages_call_tools_and_read_what_they_give() {
    let endpoint = Endpoint::shared();
    let tools = json!([{ "name": "weather", "description": "The weather.", "input_schema": schema() }]);
    let user = json!({ "role": "user", "content": "Is it cold in Oslo?" });
    let body = json!({ "messages": [user], "tools": tools, "tool_choice": { "type": "tool", "name": "weather" }, "max_tokens": 60 });
    let whole = endpoint.ask("/messages", &body);
    assert_eq!(whole["stop_reason"], "tool_use");
    let call = whole["content"][0].clone();
    assert_eq!((call["type"].as_str(), call["name"].as_str()), (Some("tool_use"), Some("weather")));
    assert!(call["input"]["city"].is_string(), "{call}");

    let streamed = events(endpoint, "/messages", &with(body.clone(), json!({ "stream": true })));
    let names: Vec<&str> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected);
    let written = streamed[2].1["delta"]["partial_json"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(written).unwrap()["city"].is_string());
    assert_eq!(streamed[4].1["delta"]["stop_reason"], "tool_use");

    let counted =
        endpoint.ask("/messages/count_tokens", &json!({ "messages": [user] }))["input_tokens"].as_u64();
    let result = json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": call["id"], "content": "-5" }] });
    let messages = json!([user, { "role": "assistant", "content": [call] }, result]);
    let more = json!({ "messages": messages, "tool_choice": { "type": "none" }, "max_tokens": 4 });
    let answer = endpoint.ask("/messages", &with(body, more));
    assert_eq!(answer["content"][0]["type"], "text");
    let usage = &answer["usage"];
    let read = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert!(counted.unwrap() + 20 < read, "{counted:?} and {usage}");
}
