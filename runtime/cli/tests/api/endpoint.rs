//! A running endpoint, and what is not about answers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

use crate::client_support::{smollm2, sotto};

/// A running endpoint; killed on drop.
pub(crate) struct Endpoint {
    child: Child,
    pub(crate) base: String,
    key: String,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The endpoint of tests that do not mind what others ask it. It ends with this process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Endpoint> = OnceLock::new();
        SHARED.get_or_init(|| {
            let program = command(&[]);
            // Statics are not dropped. The shell's standard input is this process's, and closes with it.
            let mut shell = Command::new("sh");
            shell.args(["-c", "\"$0\" \"$@\" </dev/null & cat >/dev/null; kill $!"]);
            shell.arg(program.get_program()).args(program.get_args());
            for (name, value) in program.get_envs() {
                match value {
                    Some(value) => shell.env(name, value),
                    None => shell.env_remove(name),
                };
            }
            Self::of(shell.stdin(Stdio::piped()))
        })
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::of(command(arguments).stdin(Stdio::null()))
    }

    fn of(command: &mut Command) -> Self {
        smollm2();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut field = || lines.next().unwrap().unwrap().split_whitespace().last().unwrap().to_owned();
        let (base, key, _model) = (field(), field(), field());
        Self { child, base, key }
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; its exit code.
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        let client = Client::new();
        client.post(format!("{}{path}", self.base)).bearer_auth(&self.key).json(body).send().unwrap()
    }

    /// The object that answers; its status must be 200.
    pub(crate) fn ask(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body);
        let status = response.status();
        let text = response.text().unwrap();
        assert_eq!(status, 200, "{body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The data of the events of a stream, `[DONE]` left out, which must be the last.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.post(path, body);
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let text = response.text().unwrap();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
        data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        let root = self.base.trim_end_matches("/v1");
        Client::new().get(format!("{root}{path}")).bearer_auth(&self.key).send().unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = sotto();
    command.args(["api", "--listen", "127.0.0.1:0", "--backend", "int8", "--quiet"]).args(arguments);
    command
}

/// A request of one message.
pub(crate) fn chat(text: &str) -> Value {
    json!({
        "model": "smollm2-135m",
        "messages": [{ "role": "user", "content": text }],
        "max_tokens": 12,
        "temperature": 0,
    })
}

/// `body` with more fields.
pub(crate) fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[test]
fn strangers_and_web_pages_are_refused() {
    let endpoint = Endpoint::start();
    let models = format!("{}/models", endpoint.base);
    let client = Client::new();
    assert_eq!(client.get(&models).send().unwrap().status(), 401);
    assert_eq!(client.get(&models).bearer_auth("wrong").send().unwrap().status(), 401);
    let lower = client.get(&models).header("authorization", format!("bearer {}", endpoint.key)).send();
    assert_eq!(lower.unwrap().status(), 200);
    let from_page =
        client.get(&models).bearer_auth(&endpoint.key).header("origin", "https://evil.example").send();
    assert_eq!(from_page.unwrap().status(), 403);
    let rebound =
        client.get(&models).bearer_auth(&endpoint.key).header("host", "evil.example").send().unwrap();
    assert_eq!(rebound.status(), 403);
    assert!(rebound.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
}

#[test]
fn a_page_that_was_allowed_may_ask_and_an_empty_key_is_none() {
    let endpoint = Endpoint::with(&["--allow-origin", "http://localhost:3000", "--api-key", ""]);
    assert!(endpoint.key.len() > 40, "an empty key opens nothing");
    let models = format!("{}/models", endpoint.base);
    let client = Client::new();
    let preflight = client
        .request(reqwest::Method::OPTIONS, &models)
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization,x-stainless-os")
        .header("access-control-request-private-network", "true")
        .send()
        .unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization,x-stainless-os");
    assert_eq!(preflight.headers()["access-control-allow-private-network"], "true");
    let page = |key: &str| {
        let request = client.get(&models).header("origin", "http://localhost:3000").bearer_auth(key);
        request.send().unwrap().status()
    };
    assert_eq!((page(&endpoint.key).as_u16(), page("").as_u16()), (200, 401));
}

#[test]
fn models_health_metrics_and_tokens() {
    let endpoint = Endpoint::start();
    for path in ["/v1/models", "/v1/models/"] {
        let listed: Value = endpoint.get(path).json().unwrap();
        assert_eq!(listed["data"][0]["id"], "smollm2-135m");
        assert!(listed["data"][0]["created"].as_u64().unwrap() > 1_000_000_000);
    }
    let one: Value = endpoint.get("/v1/models/smollm2-135m").json().unwrap();
    assert_eq!((one["object"].as_str(), one["owned_by"].as_str()), (Some("model"), Some("sotto")));
    let root = endpoint.base.trim_end_matches("/v1");
    let health: Value = Client::new().get(format!("{root}/health")).send().unwrap().json().unwrap();
    assert_eq!(health["status"], "ok");

    endpoint.ask("/chat/completions", &chat("Name a colour."));
    let metrics = endpoint.get("/metrics").text().unwrap();
    assert!(metrics.contains("sotto_api_answers_total 1"), "{metrics}");
    assert!(metrics.contains("sotto_api_completion_tokens_total"), "{metrics}");

    let client = Client::new();
    let post = |path: &str, body: Value| -> Value {
        client
            .post(format!("{root}{path}"))
            .bearer_auth(&endpoint.key)
            .json(&body)
            .send()
            .unwrap()
            .json()
            .unwrap()
    };
    let tokens = post("/tokenize", json!({ "content": "The sea is blue." }))["tokens"].clone();
    assert!(tokens.as_array().unwrap().len() > 3);
    assert_eq!(post("/detokenize", json!({ "tokens": tokens }))["content"], "The sea is blue.");
}

#[test]
fn embeddings_of_like_sentences_are_close() {
    let endpoint = Endpoint::start();
    let input =
        ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose in March."];
    let answer = endpoint.ask("/embeddings", &json!({ "model": "minilm", "input": input }));
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(vectors[0].len(), 384);
    assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-4);
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]) + 0.3);

    // Tokens as OpenAI's clients send them are the same as the text, but for the noise: "hello" is 15339 of cl100k_base.
    let vector = |input: Value| -> Vec<f64> {
        let answer = endpoint.ask("/embeddings", &json!({ "input": input }));
        answer["data"][0]["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect()
    };
    assert!(dot(&vector(json!("hello")), &vector(json!([15339]))) > 0.999);
    assert_eq!(endpoint.post("/embeddings", &json!({ "input": [999_999_999] })).status(), 400);
    assert_eq!(
        endpoint.ask("/embeddings", &json!({ "input": "x", "dimensions": 384 }))["data"][0]["index"],
        0
    );
    let short = endpoint.post("/embeddings", &json!({ "input": "x", "dimensions": 256 }));
    assert_eq!(short.json::<Value>().unwrap()["error"]["param"], "dimensions");

    // Documents by closeness.
    let documents = json!([input[2], input[1], { "text": input[0] }]);
    let body = json!({ "query": "Where do cats sleep?", "documents": documents, "top_n": 2, "return_documents": true });
    let ranked = endpoint.ask("/rerank", &body)["results"].clone();
    let places: Vec<u64> =
        ranked.as_array().unwrap().iter().map(|item| item["index"].as_u64().unwrap()).collect();
    assert_eq!(places.len(), 2);
    assert!(!places.contains(&0), "{ranked}");
    assert!(ranked[0]["relevance_score"].as_f64() >= ranked[1]["relevance_score"].as_f64());
    assert_eq!(ranked[0]["document"]["text"], input[2 - places[0] as usize]);
    let long = json!({ "query": "x", "documents": ["y", "word ".repeat(300)] });
    assert_eq!(endpoint.post("/rerank", &long).json::<Value>().unwrap()["error"]["param"], "documents[1]");
    let long = endpoint.post("/embeddings", &json!({ "input": ["x", "word ".repeat(300)] }));
    assert_eq!(long.status(), 400);
    let error = &long.json::<Value>().unwrap()["error"];
    assert_eq!(
        (error["code"].as_str(), error["param"].as_str()),
        (Some("context_length_exceeded"), Some("input[1]"))
    );
    assert_eq!(endpoint.post("/embeddings", &json!({ "input": "x", "model": "nope" })).status(), 404);
}
