//! `sotto api` as an OpenAI client sees it.

mod client_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use client_support::{smollm2, sotto};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

/// A running endpoint on the int8 reference, which needs no server; killed on drop.
struct Endpoint {
    child: Child,
    base: String,
    key: String,
}

impl Endpoint {
    fn start() -> Self {
        smollm2();
        let mut child = sotto()
            .args(["api", "--listen", "127.0.0.1:0", "--backend", "int8", "--quiet"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut field = || lines.next().unwrap().unwrap().split_whitespace().last().unwrap().to_owned();
        let (base, key, _model) = (field(), field(), field());
        Self { child, base, key }
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        let client = Client::new();
        client.post(format!("{}{path}", self.base)).bearer_auth(&self.key).json(body).send().unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn completions_whole_and_streamed_agree_and_reuse_the_cache() {
    let endpoint = Endpoint::start();
    let ask = |messages: Value, stream: bool| {
        let body = json!({ "model": "any", "messages": messages, "max_tokens": 12, "temperature": 0, "stream": stream });
        endpoint.post("/chat/completions", &body)
    };
    let question = json!([{ "role": "user", "content": "Name three colours." }]);
    let whole: Value = ask(question.clone(), false).json().unwrap();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");

    let events = ask(question, true).text().unwrap();
    let data: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"));
    let streamed: String = data[..data.len() - 1]
        .iter()
        .map(|data| serde_json::from_str::<Value>(data).unwrap())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(streamed, text);

    let longer = json!([
        { "role": "user", "content": "Name three colours." },
        { "role": "assistant", "content": text },
        { "role": "user", "content": "And two more." },
    ]);
    let next: Value = ask(longer, false).json().unwrap();
    let usage = &next["usage"];
    let (prompt, cached) = (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(),
    );
    assert!(prompt - cached < 24, "{prompt} tokens, {cached} of them cached");
}

#[test]
fn strangers_and_web_pages_are_refused() {
    let endpoint = Endpoint::start();
    let models = format!("{}/models", endpoint.base);
    let client = Client::new();
    assert_eq!(client.get(&models).send().unwrap().status(), 401);
    assert_eq!(client.get(&models).bearer_auth("wrong").send().unwrap().status(), 401);
    let listed: Value = client.get(&models).bearer_auth(&endpoint.key).send().unwrap().json().unwrap();
    assert_eq!(listed["data"][0]["id"], "smollm2-135m");
    let from_page =
        client.get(&models).bearer_auth(&endpoint.key).header("origin", "https://evil.example").send();
    assert_eq!(from_page.unwrap().status(), 403);
    let rebound =
        client.get(&models).bearer_auth(&endpoint.key).header("host", "evil.example").send().unwrap();
    assert_eq!(rebound.status(), 403);
    assert!(rebound.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
    assert_eq!(endpoint.post("/nonesuch", &json!({})).status(), 404);
    let bad = endpoint.post("/chat/completions", &json!({ "messages": [] }));
    assert_eq!(bad.status(), 400);
    assert!(bad.json::<Value>().unwrap()["error"]["message"].is_string());
}

#[test]
fn embeddings_of_like_sentences_are_close() {
    let endpoint = Endpoint::start();
    let input =
        ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose in March."];
    let answer: Value =
        endpoint.post("/embeddings", &json!({ "model": "minilm", "input": input })).json().unwrap();
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
        .iter()
        .map(|item| item["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(vectors[0].len(), 384);
    assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-4);
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]) + 0.3);
}
