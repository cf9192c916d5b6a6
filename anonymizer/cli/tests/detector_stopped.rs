//! A detector's server that is stopped while the proxy runs: requests are refused, and nothing is forwarded.

use std::io::BufRead;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sotto_testing::environment::isolated;

/// More than a refusal takes on a busy machine; without one, detection would wait for longer.
const PATIENCE: Duration = Duration::from_secs(45);

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes that a process has started.
fn children(of: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn signal(name: &str, processes: &[String]) {
    assert!(Command::new("kill").arg(name).args(processes).status().unwrap().success());
}

#[tokio::test]
async fn a_stopped_detector_ends_in_503_and_nothing_is_forwarded() {
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    provider.set_nonblocking(true).unwrap();
    let upstream = format!("http://{}/v1", provider.local_addr().unwrap());
    let mut command = isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")));
    command.args(["proxy", "--quiet", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let proxy = Proxy(child);
    let told: Vec<String> =
        lines.take(2).map(|line| line.unwrap().split_whitespace().last().unwrap().to_owned()).collect();
    let (base, key) = (&told[0], &told[1]);
    let servers = children(proxy.0.id());
    assert!(!servers.is_empty(), "the encrypted backend starts a server");
    signal("-STOP", &servers);
    let request =
        json!({"model": "m", "messages": [{"role": "user", "content": "Ask Rosamund Thackeray of Oldham."}]});
    let client = reqwest::Client::new();
    let answer = client
        .post(format!("{base}/chat/completions"))
        .bearer_auth(key)
        .json(&request)
        .timeout(PATIENCE)
        .send()
        .await;
    signal("-CONT", &servers);
    let answer = answer.expect("an answer before the detector goes on");
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "detection_unavailable", "{body}");
    assert!(provider.accept().is_err(), "nothing was forwarded");
}
