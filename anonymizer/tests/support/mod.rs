//! A proxy with recognizers only, and a provider whose behaviour the request's `model` chooses.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anonymizer::config::Config;
use anonymizer::detect::{Detection, Span, Verdict};
use anonymizer::proxy::worker::Worker;
use anonymizer::proxy::{self, ProxyOptions};
use anonymizer::scan::{RecognizersOnly, Rules, Scanner, TextDetector};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
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
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> anonymizer::Result<Detection> {
        let detection = RecognizersOnly.detect(texts, recognized)?;
        match self.0 {
            Detecting::Well => Ok(detection),
            Detecting::Failing => Err(anonymizer::Error::Unavailable),
            Detecting::Lying => Ok(Detection { verdict: Verdict::CanaryFailed, ..detection }),
            Detecting::Panicking => panic!("a bug"),
        }
    }
}

/// What arrived at the provider.
#[derive(Clone, Default)]
pub struct Provider(Arc<Mutex<Vec<Value>>>);

impl Provider {
    pub fn requests(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
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
    let last = request["messages"].as_array().unwrap().last().unwrap().clone();
    let said = last["content"].as_str().unwrap_or_default().to_owned();
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let (base, directory) = Self::proxy_with(rules, upstream, model).await;
        Self { base, provider, client: reqwest::Client::new(), directory }
    }

    /// A proxy in front of `upstream`.
    pub async fn proxy(detecting: Detecting, upstream: String) -> (String, tempfile::TempDir) {
        Self::proxy_with(RULES, upstream, move || Box::new(Detector(detecting))).await
    }

    /// A proxy with these rules and this model in front of `upstream`.
    pub async fn proxy_with(
        rules: &str,
        upstream: String,
        model: impl FnOnce() -> Box<dyn TextDetector> + Send + 'static,
    ) -> (String, tempfile::TempDir) {
        let rules = Arc::new(Rules::new(&Config::parse(rules).unwrap()).unwrap());
        let own = Arc::clone(&rules);
        let worker = Worker::start(rules, move || Ok(Scanner::new(own, model()))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = ProxyOptions {
            upstream,
            upstream_key: Some(Zeroizing::new("provider-key".to_owned())),
            key: Zeroizing::new(KEY.to_owned()),
            audit: Some(directory.path().join("audit.jsonl")),
            allow_attachments: false,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(
            async move { proxy::run(listener, worker, options, std::future::pending()).await.unwrap() },
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
