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
    let endpoint = Endpoint::start();
    let reference = endpoint.ask("/chat/completions", &chat("Name three colours."));
    let reference = reference["choices"][0]["message"]["content"].as_str().unwrap();
    let body = json!({ "model": "smollm2-135m", "input": "Name three colours.", "max_output_tokens": 12, "temperature": 0 });
    let whole = endpoint.ask("/responses", &body);
    assert_eq!(whole["output"][0]["content"][0]["text"], reference);
    assert_eq!((whole["object"].as_str(), whole["status"].as_str()), (Some("response"), Some("incomplete")));
    assert_eq!(whole["usage"]["output_tokens"], 12);

    let streamed = events(&endpoint, "/responses", &with(body, json!({ "stream": true })));
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
    let endpoint = Endpoint::start();
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

    let streamed = events(&endpoint, "/messages", &with(body.clone(), json!({ "stream": true })));
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
