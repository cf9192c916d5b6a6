//! Several models at one endpoint, and its end.

use std::io::{BufRead, BufReader};

use reqwest::blocking::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client_support::{json as last_line, sotto};
use crate::endpoint::{Endpoint, chat, with};

fn states(endpoint: &Endpoint) -> Vec<(String, String)> {
    let status: Value = endpoint.get("/ps").json().unwrap();
    let text = |model: &Value, name: &str| model[name].as_str().unwrap().to_owned();
    status["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (text(model, "name"), text(model, "state")))
        .collect()
}

#[test]
fn models_are_loaded_when_named_and_make_room_for_each_other() {
    let endpoint = Endpoint::with(&["--also", "other=smollm2-135m", "--model-memory", "1"]);
    let state = |wanted: &str| states(&endpoint).into_iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!((state("smollm2-135m").as_str(), state("other").as_str()), ("loaded", "not loaded"));
    let listed: Value = endpoint.get("/v1/models").json().unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);

    let question = with(chat("Name a colour."), json!({ "max_tokens": 3 }));
    let first = endpoint.ask("/chat/completions", &question);
    let other = endpoint.ask("/chat/completions", &with(question.clone(), json!({ "model": "other" })));
    assert_eq!(other["model"], "other");
    assert_eq!(first["choices"], other["choices"], "it is the same model");
    assert_eq!((state("smollm2-135m").as_str(), state("other").as_str()), ("not loaded", "loaded"));
    // And back.
    assert_eq!(endpoint.ask("/chat/completions", &question)["choices"], first["choices"]);
    assert_eq!((state("smollm2-135m").as_str(), state("other").as_str()), ("loaded", "not loaded"));
    let unknown = endpoint.post("/chat/completions", &with(question, json!({ "model": "third" })));
    let error = unknown.json::<Value>().unwrap()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("other"), "{error}");

    let ps = |arguments: &[&str]| {
        let address = endpoint.base.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
        sotto().args(["ps", "--listen", address]).args(arguments).output().unwrap()
    };
    let shown = ps(&["--api-key", endpoint.key(), "--json"]);
    assert_eq!(last_line(&shown)["models"][0]["name"], "smollm2-135m");
    let table = String::from_utf8(ps(&["--api-key", endpoint.key()]).stdout).unwrap();
    assert!(table.starts_with("MODEL") && table.contains("other") && table.contains("not loaded"), "{table}");
    let refused = ps(&["--api-key", "wrong"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--api-key"));
}

#[test]
fn two_models_of_one_name_are_refused_and_nothing_to_ask_is_named() {
    let output = sotto()
        .args(["api", "--listen", "127.0.0.1:0", "--backend", "int8", "--also", "smollm2-135m", "--quiet"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NAME=MODEL"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = sotto().args(["ps", "--listen", &free]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("sotto api"));
}

#[test]
fn an_endpoint_that_ends_tells_its_clients() {
    let endpoint = Endpoint::start();
    let body = json!({
        "messages": [{ "role": "user", "content": "Count." }], "stream": true, "max_tokens": 8000, "temperature": 0,
        "logit_bias": { "2": -100, "0": -100 },
    });
    let response = Client::new()
        .post(format!("{}/chat/completions", endpoint.base))
        .bearer_auth(endpoint.key())
        .json(&body)
        .send()
        .unwrap();
    let mut lines = BufReader::new(response).lines().map(Result::unwrap);
    // It answers.
    assert!(lines.any(|line| line.contains("\"content\":\"") && !line.contains("\"content\":\"\"")));
    let process = Pid::from_raw(endpoint.process().cast_signed()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    let rest: Vec<String> = lines.filter(|line| line.starts_with("data: ")).collect();
    let [.., error, done] = rest.as_slice() else { panic!("{rest:?}") };
    assert_eq!(done, "data: [DONE]");
    let error: Value = serde_json::from_str(error.trim_start_matches("data: ")).unwrap();
    assert_eq!(error["error"]["code"], "shutting_down", "{error}");
    assert_eq!(endpoint.exit_code(), Some(0));
}
