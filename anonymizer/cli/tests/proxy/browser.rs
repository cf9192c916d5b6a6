//! A headless Chromium, driven by WebDriver.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Longest wait for something on the page, in steps of 50 ms.
const STEPS: usize = 400;

/// Name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The driver's process. Killing it leaves the browser running: [`Browser`] ends its session first.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Browser {
    _driver: Driver,
    client: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver answers once the browser is gone. A failing test comes through here too, so this neither panics
        // nor needs the test's own runtime.
        let address = self.session.trim_start_matches("http://");
        let Some((host, path)) = address.split_once('/') else { return };
        let Ok(mut stream) = std::net::TcpStream::connect(host) else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let request = format!("DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        if stream.write_all(request.as_bytes()).is_ok() {
            let _ = stream.read(&mut [0; 512]);
        }
    }
}

/// Whether there is a browser. In continuous integration there has to be one.
pub(crate) fn is_there() -> bool {
    let there = is_installed("chromium") && is_installed("chromedriver");
    assert!(
        there || std::env::var("CI").is_err(),
        "continuous integration has to install chromium and chromium-driver"
    );
    if !there {
        eprintln!("skipped: chromium and chromedriver are not installed");
    }
    there
}

fn is_installed(program: &str) -> bool {
    let run = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = Driver(command.spawn().unwrap());
        let client = reqwest::Client::new();
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let base = format!("http://127.0.0.1:{port}/session");
        for _ in 0..STEPS {
            if let Ok(response) = client.post(&base).json(&wanted).send().await {
                let answer: Value = response.json().await.unwrap();
                let id =
                    answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answer}"));
                let session = format!("{base}/{id}");
                return Self { _driver: driver, client, session, _profile: profile };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("chromedriver does not answer");
    }

    pub(crate) async fn call(&self, path: &str, body: Value) -> Value {
        let response = self.client.post(format!("{}{path}", self.session)).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer["value"].get("error").is_none(), "{path}: {answer}");
        answer["value"].clone()
    }

    pub(crate) async fn element(&self, selector: &str) -> String {
        let found = self.call("/element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/click"), json!({})).await;
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", json!({"script": script, "args": []})).await
    }

    pub(crate) async fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').textContent")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an element's text is what it should be.
    pub(crate) async fn expect(&self, id: &str, expected: &str) {
        for _ in 0..STEPS {
            if self.text(id).await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let errors = "return [...document.querySelectorAll('.error')].map((e) => e.textContent).join(' ')";
        let (errors, got) = (self.run(errors).await, self.text(id).await);
        panic!("{id}: expected {expected:?}, got {got:?} (errors {errors})");
    }

    /// Waits until a script gives this.
    pub(crate) async fn until(&self, script: &str, expected: Value) {
        let mut got = Value::Null;
        for _ in 0..STEPS {
            got = self.run(script).await;
            if got == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{script}: expected {expected}, got {got}");
    }

    /// Calls the browser's own protocol.
    pub(crate) async fn cdp(&self, command: &str, params: Value) {
        self.call("/goog/cdp/execute", json!({"cmd": command, "params": params})).await;
    }

    /// A picture of the whole page, as PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let params = json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}});
        let answer = self.call("/goog/cdp/execute", params).await;
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }
}
