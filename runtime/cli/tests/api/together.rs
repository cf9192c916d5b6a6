//! Requests that share passes.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

/// Streams a request; the number that each piece of text has among those of all streams, and the text.
fn watched(endpoint: &Endpoint, body: Value, clock: &AtomicUsize) -> (Vec<usize>, String) {
    let response = endpoint.post("/chat/completions", &with(body, json!({ "stream": true })));
    assert_eq!(response.status(), 200);
    let (mut moments, mut text) = (Vec::new(), String::new());
    for line in BufReader::new(response).lines() {
        let line = line.unwrap();
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        let Some(piece) = event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty())
        else {
            continue;
        };
        moments.push(clock.fetch_add(1, Ordering::SeqCst));
        text.push_str(piece);
    }
    (moments, text)
}

fn waiting(endpoint: &Endpoint) -> String {
    let text = endpoint.get("/metrics").text().unwrap();
    let line = text.lines().find(|line| line.starts_with("sotto_api_requests_waiting ")).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn nobody_waits_for_the_end_of_another_answer() {
    let endpoint = Endpoint::start();
    let long = |text: &str| with(chat(text), json!({ "max_tokens": 60 }));
    let questions = ["Tell me about the sea.", "Tell me about bread.", "Count from one to fifty."];
    let alone: Vec<String> =
        questions.iter().map(|question| watched(&endpoint, long(question), &AtomicUsize::new(0)).1).collect();
    let clock = AtomicUsize::new(0);
    let together: Vec<(Vec<usize>, String)> = thread::scope(|scope| {
        let ask = |question: &&str| {
            let body = long(question);
            let (endpoint, clock) = (&endpoint, &clock);
            scope.spawn(move || watched(endpoint, body, clock))
        };
        let threads: Vec<_> = questions.iter().map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let last_first = together.iter().map(|(moments, _)| moments[0]).max().unwrap();
    let first_last = together.iter().map(|(moments, _)| *moments.last().unwrap()).min().unwrap();
    assert!(last_first < first_last, "{together:?}");
    for ((_, text), alone) in together.iter().zip(&alone) {
        assert_eq!(text, alone, "what else is in a pass changes no answer");
    }
    assert_eq!(waiting(&endpoint), "0");
}

#[test]
fn a_reader_that_leaves_takes_only_itself_along() {
    let endpoint = Endpoint::start();
    let body = with(chat("Count from one to fifty."), json!({ "max_tokens": 40 }));
    let alone = endpoint.ask("/chat/completions", &body);
    let text = thread::scope(|scope| {
        let staying = scope.spawn(|| endpoint.ask("/chat/completions", &body));
        for question in ["Tell me about the sea.", "Tell me about bread."] {
            let long = with(chat(question), json!({ "max_tokens": 2000, "stream": true }));
            let mut response = BufReader::new(endpoint.post("/chat/completions", &long));
            // Leaves when it has seen something of an answer.
            let mut line = String::new();
            while !line.contains("\"content\":\" ") && !line.contains("[DONE]") {
                line.clear();
                response.read_line(&mut line).unwrap();
            }
        }
        staying.join().unwrap()
    });
    assert_eq!(text["choices"], alone["choices"]);
    // Those that left do not wait in vain, nor does anybody for them.
    endpoint.ask("/chat/completions", &chat("Name a colour."));
    let mut tries = 0;
    while waiting(&endpoint) != "0" {
        tries += 1;
        assert!(tries < 200, "a request that was cancelled is still under way");
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn one_request_that_fails_fails_alone() {
    let endpoint = Endpoint::start();
    let body = with(chat("Count from one to fifty."), json!({ "max_tokens": 30 }));
    let alone = endpoint.ask("/chat/completions", &body);
    thread::scope(|scope| {
        let staying = scope.spawn(|| endpoint.ask("/chat/completions", &body));
        let bad = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "nonsense" } } });
        let response = endpoint
            .post("/chat/completions", &with(chat("Name a colour."), json!({ "response_format": bad })));
        assert!(response.status().is_client_error(), "{}", response.status());
        assert_eq!(staying.join().unwrap()["choices"], alone["choices"]);
    });
}
