//! Answers to conversations and texts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn completions_whole_and_streamed_agree_and_reuse_the_cache() {
    let endpoint = Endpoint::start();
    let question = chat("Name three colours.");
    let whole = endpoint.ask("/chat/completions", &question);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");

    let events = endpoint.stream("/chat/completions", &with(question.clone(), json!({ "stream": true })));
    let streamed: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text(&whole));
    assert!(events.iter().all(|event| event.get("usage").is_none()), "nobody asked for it");
    let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let last = endpoint.stream("/chat/completions", &with(question, options)).pop().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(12)));

    let longer = json!({ "messages": [
        { "role": "user", "content": "Name three colours." },
        { "role": "assistant", "content": text(&whole) },
        { "role": "user", "content": "And two more." },
    ]});
    let usage = endpoint.ask("/chat/completions", &with(chat(""), longer))["usage"].clone();
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(prompt - cached < 24, "{prompt} tokens, {cached} of them cached");
}

#[test]
fn a_title_request_does_not_evict_the_chat() {
    let endpoint = Endpoint::start();
    let long = chat(&"The harbour was quiet in the early morning. ".repeat(12));
    endpoint.ask("/chat/completions", &long);
    endpoint
        .ask("/chat/completions", &chat("Write a title for a chat about a harbour, please, in five words."));
    let usage = endpoint.ask("/chat/completions", &long)["usage"].clone();
    let missed = usage["prompt_tokens"].as_u64().unwrap()
        - usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(missed, 1, "{usage}");
}

#[test]
fn several_answers_seeds_and_penalties() {
    let endpoint = Endpoint::start();
    let hot = |fields: Value| {
        let body = with(chat("Tell me a story."), json!({ "temperature": 1.2, "seed": 5, "n": 3 }));
        endpoint.ask("/chat/completions", &with(body, fields))
    };
    let first = hot(json!({}));
    let choices = first["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    assert_eq!(first["usage"]["completion_tokens"], 36);
    assert_eq!(hot(json!({}))["choices"], first["choices"], "a seed fixes the answers");
    let penalized = hot(json!({ "frequency_penalty": 2, "presence_penalty": 2 }));
    assert_ne!(penalized["choices"], first["choices"]);
    let streamed = endpoint.stream(
        "/chat/completions",
        &with(chat("Tell me a story."), json!({ "temperature": 1.2, "seed": 5, "n": 2, "stream": true })),
    );
    let second: String = streamed
        .iter()
        .filter(|event| event["choices"][0]["index"] == 1)
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(json!(second), choices[1]["message"]["content"]);
}

#[test]
fn log_probabilities_and_biases() {
    let endpoint = Endpoint::start();
    let body = with(chat("Say yes or no."), json!({ "logprobs": true, "top_logprobs": 2 }));
    let answer = endpoint.ask("/chat/completions", &body);
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    let spelled: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(spelled, text(&answer));
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(content[0]["logprob"].as_f64().unwrap() <= 0.0);

    let streamed = endpoint.stream("/chat/completions", &with(body, json!({ "stream": true })));
    let tokens: usize = streamed
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(tokens, content.len());

    let plain = endpoint.ask("/chat/completions", &chat("Say yes or no."));
    let first = endpoint
        .ask("/completions", &json!({ "prompt": "The", "max_tokens": 1, "logprobs": 1, "temperature": 0 }));
    assert_eq!(first["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 1);
    let every_other: serde_json::Map<String, Value> =
        (0..1000).map(|id| (id.to_string(), json!(-100))).collect();
    let biased = endpoint
        .ask("/chat/completions", &with(chat("Say yes or no."), json!({ "logit_bias": every_other })));
    assert_ne!(text(&biased), text(&plain));
}

#[test]
fn texts_are_continued() {
    let endpoint = Endpoint::start();
    let body = json!({ "prompt": ["Count: one two three", "Once upon"], "max_tokens": 6, "temperature": 0 });
    let answer = endpoint.ask("/completions", &body);
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    let echoed = endpoint.ask("/completions", &with(body.clone(), json!({ "echo": true })));
    let continued = answer["choices"][1]["text"].as_str().unwrap();
    assert_eq!(echoed["choices"][1]["text"], format!("Once upon{continued}"));

    let stop = continued[1..].to_owned();
    let options = json!({ "prompt": "Once upon", "stop": [stop], "stream": true, "stream_options": { "include_usage": true } });
    let events = endpoint.stream("/completions", &with(body, options));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, continued[..1], "no byte of the stop text is sent");
    assert!(events.last().unwrap()["usage"]["total_tokens"].is_u64());
}

#[test]
fn the_last_message_of_the_assistant_is_continued() {
    let endpoint = Endpoint::start();
    let messages = |last: Value| json!({ "messages": [{ "role": "user", "content": "What is the capital of France?" }, last] });
    let prefill = json!({ "role": "assistant", "content": "The capital of France is" });
    let answer = endpoint.ask("/chat/completions", &with(chat(""), messages(prefill)));
    assert!(text(&answer).trim_start().starts_with("Paris"), "{answer}");
    let parts =
        json!({ "role": "assistant", "content": [{ "type": "text", "text": "The capital of France is" }] });
    let of_parts = endpoint.ask("/chat/completions", &with(chat(""), messages(parts)));
    assert_eq!(text(&of_parts), text(&answer));
}

#[test]
fn nothing_of_a_conversation_is_dropped() {
    let endpoint = Endpoint::start();
    let long = "word ".repeat(9000);
    let messages = json!({ "messages": [
        { "role": "user", "content": format!("My secret word is BANANA. {long}") },
        { "role": "assistant", "content": "ok" },
        { "role": "user", "content": "What is my secret word?" },
    ]});
    for stream in [false, true] {
        let body = with(with(chat(""), messages.clone()), json!({ "stream": stream }));
        let refused = endpoint.post("/chat/completions", &body);
        assert_eq!(refused.status(), 400, "before the first byte, streamed or not");
        let error = refused.json::<Value>().unwrap()["error"].clone();
        assert_eq!(error["code"], "context_length_exceeded");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("8192") && message.contains("90"), "both counts: {message}");
    }
}

#[test]
fn leaving_frees_the_endpoint_for_the_next() {
    let endpoint = Endpoint::start();
    let mut many: Vec<Value> = Vec::new();
    for _ in 0..2000 {
        many.push(json!({ "role": "user", "content": "a" }));
        many.push(json!({ "role": "assistant", "content": "b" }));
    }
    many.push(json!({ "role": "user", "content": "Write a long story." }));
    let client = reqwest::blocking::Client::builder().timeout(Duration::from_millis(700)).build().unwrap();
    for body in [
        with(chat(""), json!({ "messages": many })),
        with(chat("Write a long story."), json!({ "max_tokens": 4000, "ignore": 1 })),
    ] {
        let left = client
            .post(format!("{}/chat/completions", endpoint.base))
            .bearer_auth(endpoint.key())
            .json(&body)
            .send()
            .and_then(reqwest::blocking::Response::text);
        let start = Instant::now();
        let answer = endpoint.ask("/chat/completions", &with(chat("Say hi."), json!({ "max_tokens": 1 })));
        assert_eq!(answer["usage"]["completion_tokens"], 1);
        // Ten times what a prompt of forty tokens takes here on a busy machine, and far less than the story.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} after {left:?}", start.elapsed());
    }
}
