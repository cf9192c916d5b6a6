//! A proxy with recognizers only, and a provider whose behaviour the request's `model` chooses.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anonymizer::config::Config;
use anonymizer::detect::{Detection, Span, Verdict};
use anonymizer::proxy::access::KeyPolicy;
use anonymizer::proxy::scan_thread::ScanThread;
use anonymizer::proxy::{self, ProxyOptions};
use anonymizer::scan::{RecognizersOnly, Rules, Scanner, TextDetector};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

pub const KEY: &str = "test-key";

/// Names that stand for what a model would find.
pub const RULES: &str = r#"
[[deny]]
value = "Anna"
label = "GIVEN_NAME"
[[deny]]
value = "Zürich"
label = "CITY"
"#;

/// How detection behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum Detecting {
    Well,
    Failing,
    Lying,
    Panicking,
}

struct Detector(Detecting);

impl TextDetector for Detector {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> sotto_pii::Result<Detection> {
        let detection = RecognizersOnly.detect(texts, recognized)?;
        match self.0 {
            Detecting::Well => Ok(detection),
            Detecting::Failing => Err(sotto_pii::Error::Unavailable),
            Detecting::Lying => Ok(Detection { verdict: Verdict::CanaryFailed, ..detection }),
            Detecting::Panicking => panic!("a bug"),
        }
    }
}

/// What arrived at the provider, and what it says instead of an echo.
#[derive(Clone, Default)]
pub struct Provider(Arc<Mutex<Vec<Value>>>, Arc<Mutex<Option<Value>>>);

impl Provider {
    pub fn requests(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    /// From now on, answers are this: a text, or a whole body.
    pub fn says(&self, answer: impl Into<Value>) {
        *self.1.lock().unwrap() = Some(answer.into());
    }

    /// Starts serving; returns the base address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/chat/completions", post(answer))
            .fallback(other)
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        base
    }

    pub fn text(&self) -> String {
        Value::from(self.requests()).to_string()
    }
}

fn event(content: &str) -> String {
    let chunk =
        json!({"id": "c", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

fn events(pieces: Vec<Result<String, std::io::Error>>) -> Response {
    // Pieces come apart, as from a network.
    let pieces = futures::stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        piece
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

async fn answer(State(provider): State<Provider>, bytes: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&bytes).unwrap();
    provider.0.lock().unwrap().push(request.clone());
    let last = request["messages"].as_array().unwrap().last().cloned().unwrap_or_default();
    let said = match &*provider.1.lock().unwrap() {
        Some(Value::String(said)) => said.clone(),
        Some(body) => return axum::Json(body.clone()).into_response(),
        None => last["content"].as_str().unwrap_or_default().to_owned(),
    };
    let mut pieces: Vec<Result<String, std::io::Error>> =
        said.chars().map(|c| Ok(event(&c.to_string()))).collect();
    match request["model"].as_str().unwrap_or_default() {
        "refuse" => {
            let error = json!({"error": {"message": format!("no: {said}"), "code": "teapot"}});
            (StatusCode::IM_A_TEAPOT, axum::Json(error)).into_response()
        }
        "cut" => {
            pieces.push(Ok(event("[GIVEN_NA")));
            pieces.push(Err(std::io::Error::other("gone")));
            events(pieces)
        }
        "unfinished" => events(pieces),
        "garbage" => {
            pieces.push(Ok("data: {not json\n\n".to_owned()));
            pieces.push(Ok("data: [DONE]\n\n".to_owned()));
            events(pieces)
        }
        "long" => {
            let mut many: Vec<_> = (0..1000).map(|_| Ok(event(&said))).collect();
            many.push(Ok("data: [DONE]\n\n".to_owned()));
            events(many)
        }
        _ if request["stream"] == true => {
            pieces.insert(0, Ok(": comment\r\n\r\n".to_owned()));
            pieces.push(Ok("data: [DONE]\n\n".to_owned()));
            events(pieces)
        }
        _ => axum::Json(
            json!({"id": "a", "choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]}),
        )
        .into_response(),
    }
}

/// The other endpoints: what is said there, in the form of each.
async fn other(
    State(provider): State<Provider>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let path = uri.path().trim_start_matches("/v1");
    if path.starts_with("/models") {
        return axum::Json(json!({"path": path, "agent": headers["user-agent"].to_str().unwrap()}))
            .into_response();
    }
    let request: Value = serde_json::from_slice(&bytes).unwrap();
    provider.0.lock().unwrap().push(request.clone());
    let said = match path {
        "/messages" => &request["messages"][0]["content"],
        "/completions" => &request["prompt"],
        _ => &request["input"],
    };
    let said = said.as_str().unwrap_or_default();
    let pieces = said.chars().map(String::from);
    let named = |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    let stream: Option<Vec<String>> = (request["stream"] == true).then(|| match path {
        "/messages" => {
            let mut all = vec![
                json!({"type": "message_start", "message": {"id": "msg_1", "content": []}}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            ];
            all.extend(pieces.map(|piece| {
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
            }));
            all.push(json!({"type": "content_block_stop", "index": 0}));
            all.push(json!({"type": "message_stop"}));
            all.into_iter().map(named).collect()
        }
        "/responses" => {
            let mut all = vec![json!({"type": "response.created", "response": {"id": "resp_stream"}})];
            all.extend(pieces.map(|piece| {
                json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": piece})
            }));
            all.push(json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": said}));
            all.push(json!({"type": "response.completed", "response": {"id": "resp_stream", "output": [
                {"type": "message", "content": [{"type": "output_text", "text": said}]}]}}));
            all.into_iter().map(named).collect()
        }
        _ => {
            let chunk = |piece| json!({"choices": [{"index": 0, "text": piece, "finish_reason": null}]});
            let mut all: Vec<String> = pieces.map(|piece| format!("data: {}\n\n", chunk(piece))).collect();
            all.push("data: [DONE]\n\n".to_owned());
            all
        }
    });
    if let Some(stream) = stream {
        return events(stream.into_iter().map(Ok).collect());
    }
    let body = match path {
        "/messages" => json!({"id": "msg_1", "content": [{"type": "text", "text": said}]}),
        "/responses" => json!({"id": "resp_whole", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": said}]}]}),
        "/completions" => json!({"choices": [{"index": 0, "text": said}]}),
        _ => json!({"data": [{"embedding": [0.25], "index": 0}], "results": [{"flagged": false}]}),
    };
    let headers = [
        ("x-request-id", "req-7"),
        ("retry-after", "3"),
        ("x-ratelimit-remaining-tokens", "9"),
        ("set-cookie", "a"),
    ];
    (headers, axum::Json(body)).into_response()
}

pub struct Running {
    pub base: String,
    pub provider: Provider,
    pub client: reqwest::Client,
    pub directory: tempfile::TempDir,
}

impl Running {
    pub async fn start(detecting: Detecting) -> Self {
        Self::start_with(RULES, move || Box::new(Detector(detecting))).await
    }

    /// With these rules and this model.
    pub async fn start_with(
        rules: &str,
        model: impl FnOnce() -> Box<dyn TextDetector> + Send + 'static,
    ) -> Self {
        let provider = Provider::default();
        let upstream = provider.start().await;
        let (base, directory) = Self::proxy_with(rules, upstream, model).await;
        Self { base, provider, client: reqwest::Client::new(), directory }
    }

    /// With further keys.
    pub async fn start_with_keys(keys: Vec<KeyPolicy>) -> Self {
        let provider = Provider::default();
        let upstream = provider.start().await;
        let model = || Box::new(Detector(Detecting::Well)) as Box<dyn TextDetector>;
        let (base, directory) = Self::proxy_with_keys(RULES, upstream, model, keys).await;
        Self { base, provider, client: reqwest::Client::new(), directory }
    }

    /// A proxy for `upstream`.
    pub async fn proxy(detecting: Detecting, upstream: String) -> (String, tempfile::TempDir) {
        Self::proxy_with(RULES, upstream, move || Box::new(Detector(detecting))).await
    }

    /// A proxy with these rules and this model for `upstream`.
    pub async fn proxy_with(
        rules: &str,
        upstream: String,
        model: impl FnOnce() -> Box<dyn TextDetector> + Send + 'static,
    ) -> (String, tempfile::TempDir) {
        Self::proxy_with_keys(rules, upstream, model, Vec::new()).await
    }

    async fn proxy_with_keys(
        rules: &str,
        upstream: String,
        model: impl FnOnce() -> Box<dyn TextDetector> + Send + 'static,
        keys: Vec<KeyPolicy>,
    ) -> (String, tempfile::TempDir) {
        let rules = Arc::new(Rules::new(&Config::parse(rules).unwrap()).unwrap());
        let own = Arc::clone(&rules);
        let scans = ScanThread::start(rules, move || Ok(Scanner::new(own, model()))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = ProxyOptions {
            upstream,
            upstream_key: Some(Zeroizing::new("provider-key".to_owned())),
            key: Zeroizing::new(KEY.to_owned()),
            audit: Some(directory.path().join("audit.jsonl")),
            allow_attachments: false,
            hint: false,
            vault_rules: Default::default(),
            keys,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(
            async move { proxy::run(listener, scans, options, std::future::pending()).await.unwrap() },
        );
        (base, directory)
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.base)).bearer_auth(KEY).json(body).send().await.unwrap()
    }

    pub async fn chat(&self, model: &str, stream: bool, content: &str) -> reqwest::Response {
        let body =
            json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]});
        self.post("/v1/chat/completions", &body).await
    }
}

/// The contents of a streamed answer, piece by piece.
pub fn contents(stream: &str) -> Vec<String> {
    let chunks =
        stream.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    chunks.filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}
