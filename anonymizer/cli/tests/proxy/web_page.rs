//! The local page in a real headless Chromium, driven by WebDriver.
//!
//! Without Chromium and its driver the test is skipped, with a message; in continuous integration (`CI=true`) it fails.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Detecting, KEY, Running};
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

struct Browser {
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

fn is_installed(program: &str) -> bool {
    let run = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

impl Browser {
    async fn start() -> Self {
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

    async fn call(&self, path: &str, body: Value) -> Value {
        let response = self.client.post(format!("{}{path}", self.session)).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer["value"].get("error").is_none(), "{path}: {answer}");
        answer["value"].clone()
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.call("/element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/click"), json!({})).await;
    }

    async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    async fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", json!({"script": script, "args": []})).await
    }

    async fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').textContent")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an element's text is what it should be.
    async fn expect(&self, id: &str, expected: &str) {
        for _ in 0..STEPS {
            if self.text(id).await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (error, got) = (self.text("error").await, self.text(id).await);
        panic!("{id}: expected {expected:?}, got {got:?} (error {error:?})");
    }
}

#[tokio::test]
async fn the_page_shows_what_leaves_and_restores_the_answer() {
    if !is_installed("chromium") || !is_installed("chromedriver") {
        assert!(
            std::env::var("CI").is_err(),
            "continuous integration has to install chromium and chromium-driver"
        );
        eprintln!("skipped: chromium and chromedriver are not installed");
        return;
    }
    let running = Running::start(Detecting::Well).await;
    let browser = Browser::start().await;
    browser.call("/url", json!({"url": format!("{}/#key={KEY}", running.base)})).await;

    let text = "🎉 Anna met Bruno in Zürich, write to anna@example.org";
    // ChromeDriver types characters of the basic plane only.
    browser.run(&format!("document.getElementById('input').value = {}", json!(text))).await;
    browser.click("#check").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met Bruno in [CITY_1], write to [EMAIL_1]").await;
    browser.expect("original", text).await;
    let classes =
        browser.run("return [...document.querySelectorAll('#original mark')].map((m) => m.className)").await;
    assert_eq!(classes, json!(["name", "place", "net"]));

    // Let one through, add another, undo the first.
    browser.click("#original mark.place").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met Bruno in Zürich, write to [EMAIL_1]").await;
    browser
        .run(
            "const node = [...document.getElementById('original').childNodes].find((n) => n.textContent.includes('Bruno')); \
             const at = node.textContent.indexOf('Bruno'); const range = document.createRange(); \
             range.setStart(node, at); range.setEnd(node, at + 5); \
             getSelection().removeAllRanges(); getSelection().addRange(range); \
             document.getElementById('type').value = 'SURNAME'; document.getElementById('add').click();",
        )
        .await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in Zürich, write to [EMAIL_1]").await;
    browser.click("#original mark.off").await;
    browser.expect("redacted", "🎉 [GIVEN_NAME_1] met [SURNAME_1] in [CITY_1], write to [EMAIL_1]").await;

    browser.click("#send").await;
    browser.expect("answer", text).await;
    let sent = &running.provider.requests()[0];
    assert_eq!(
        sent["messages"][0]["content"],
        "🎉 [GIVEN_NAME_1] met [SURNAME_1] in [CITY_1], write to [EMAIL_1]"
    );

    // The key is gone from the address, and nothing broke the page's policy or came from elsewhere.
    let address = browser.run("return location.href").await;
    assert!(!address.as_str().unwrap().contains(KEY), "{address}");
    let foreign = "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith(location.origin))";
    assert_eq!(browser.run(foreign).await, json!([]));
    let log = browser.call("/se/log", json!({"type": "browser"})).await;
    let severe: Vec<&Value> =
        log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    let severe: Vec<_> = severe
        .iter()
        .filter(|entry| !entry["message"].as_str().unwrap_or_default().contains("favicon"))
        .collect();
    assert!(severe.is_empty(), "{severe:?}");

    // Typing works too, and an unreachable detection is told.
    browser.run("document.getElementById('input').value = ''").await;
    browser.write("#input", "Anna").await;
    browser.click("#check").await;
    browser.expect("redacted", "[GIVEN_NAME_1]").await;
}
