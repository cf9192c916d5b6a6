//! The proxy over real sockets: what the provider sees, what comes back, and what happens when things go wrong.

use crate::support::{Detecting, KEY, Running, contents};
use anonymizer::scan::RecognizersOnly;
use futures::StreamExt;
use serde_json::{Value, json};

const TEXT: &str = "Anna lives in Zürich, mail anna@example.org, card 4111 1111 1111 1111.";
const SECRETS: [&str; 4] = ["Anna", "Zürich", "anna@example.org", "4111"];

fn assert_clean(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn the_provider_sees_placeholders_and_the_answer_is_whole() {
    let running = Running::start(Detecting::Well).await;
    let answer: Value = running.chat("echo", false, TEXT).await.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], TEXT);
    assert_clean(&running.provider.text());
    let sent = &running.provider.requests()[0]["messages"][0]["content"];
    assert_eq!(sent, "[GIVEN_NAME_1] lives in [CITY_1], mail [EMAIL_1], card [CREDIT_CARD_NUMBER_1].");
}

#[tokio::test]
async fn a_stream_never_shows_half_a_placeholder() {
    let running = Running::start(Detecting::Well).await;
    let stream = running.chat("echo", true, TEXT).await.text().await.unwrap();
    let pieces = contents(&stream);
    assert_eq!(pieces.concat(), TEXT);
    assert!(pieces.len() > 40, "the stream comes in pieces");
    assert!(pieces.iter().all(|piece| !piece.contains('[') && !piece.contains("_NAME")));
    assert!(stream.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn everything_in_a_request_is_scrubbed_and_unknown_fields_pass() {
    let running = Running::start(Detecting::Well).await;
    let arguments = json!({"who": "Anna", "n": 3, "nested": [{"mail": "anna@example.org"}]}).to_string();
    let body = json!({
        "model": "echo", "temperature": 0.25, "x_unknown": {"a": [1, true, null, "kept"]}, "user": "anna@example.org",
        "metadata": {"city": "Zürich"},
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": "You help Anna."},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "find", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "{\"city\": \"Zürich\"}"},
            {"role": "user", "content": [{"type": "text", "text": TEXT}]},
            {"role": "user", "content": "ok"},
        ],
    });
    assert_eq!(running.post("/v1/chat/completions", &body).await.status(), 200);
    assert_clean(&running.provider.text());
    let sent = &running.provider.requests()[0];
    assert_eq!(sent["x_unknown"], body["x_unknown"]);
    assert_eq!(sent["tools"], body["tools"]);
    assert_eq!(sent["temperature"], 0.25);
    let call = &sent["messages"][1]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"who": "[GIVEN_NAME_1]", "n": 3, "nested": [{"mail": "[EMAIL_1]"}]}));
    assert!(sent.get("anonymizer").is_none());
}

#[tokio::test]
async fn a_value_keeps_its_placeholder_in_a_session_and_sessions_are_apart() {
    let running = Running::start(Detecting::Well).await;
    let say = |session: &str, text: &str| json!({"model": "echo", "messages": [{"role": "user", "content": text}], "anonymizer": {"session": session}});
    for body in [
        say("a", "Zürich? anna@example.org"),
        say("b", "bob@example.org"),
        say("a", "anna@example.org and bob@example.org"),
    ] {
        assert_eq!(running.post("/v1/chat/completions", &body).await.status(), 200);
    }
    let sent: Vec<Value> =
        running.provider.requests().iter().map(|r| r["messages"][0]["content"].clone()).collect();
    assert_eq!(sent, ["[CITY_1]? [EMAIL_1]", "[EMAIL_1]", "[EMAIL_1] and [EMAIL_2]"]);
}

#[tokio::test]
async fn nothing_is_forwarded_when_detection_fails() {
    for (detecting, code) in [
        (Detecting::Failing, "detection_unavailable"),
        (Detecting::Lying, "detection_untrusted"),
        (Detecting::Panicking, "detection_unavailable"),
    ] {
        let running = Running::start(detecting).await;
        for stream in [false, true] {
            let response = running.chat("echo", stream, TEXT).await;
            assert_eq!(response.status(), 503);
            let body = response.text().await.unwrap();
            assert_clean(&body);
            assert!(body.contains(code), "{body}");
        }
        assert!(running.provider.requests().is_empty());
        let healthy = running.client.get(format!("{}/healthz", running.base)).send().await.unwrap();
        assert_eq!(healthy.status().is_success(), detecting != Detecting::Panicking);
    }
}

#[tokio::test]
async fn redact_check_and_restore_serve_single_texts() {
    let running = Running::start(Detecting::Well).await;
    let text = json!({"text": TEXT, "session": "s"});
    let checked: Value = running.post("/check", &text).await.json().await.unwrap();
    let again: Value = running
        .post("/check", &json!({"text": "bob@example.org", "session": "s"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(again["spans"][0]["placeholder"], "[EMAIL_1]", "a check leaves no trace");
    let mut redacted: Value = running.post("/redact", &text).await.json().await.unwrap();
    assert_eq!(redacted.as_object_mut().unwrap().remove("session"), Some(json!("s")));
    assert_eq!(checked, redacted);
    assert_eq!(
        redacted["spans"][1],
        json!({"start": 14, "end": 20, "label": "CITY", "placeholder": "[CITY_1]", "score": 1.0, "source": "deny"})
    );
    let text = "hello [given_name_1]'s [CITY_7]";
    let restored: Value =
        running.post("/restore", &json!({"text": text, "session": "s"})).await.json().await.unwrap();
    assert_eq!(
        restored,
        json!({"restored": "hello Anna's [CITY_7]", "replaced": 1, "unknown": ["[CITY_7]"], "withheld": []})
    );
    assert_eq!(running.post("/restore", &json!({"text": text})).await.status(), 400);
    let chosen = json!({"text": TEXT, "session": "x", "drop": ["Anna"], "add": [{"value": "lives", "label": "PRIVATE"}]});
    let chosen: Value = running.post("/redact", &chosen).await.json().await.unwrap();
    assert!(chosen["redacted"].as_str().unwrap().starts_with("Anna [PRIVATE_1] in [CITY_1]"));
}

#[tokio::test]
async fn a_providers_error_comes_through_with_its_status() {
    let running = Running::start(Detecting::Well).await;
    for stream in [false, true] {
        let response = running.chat("refuse", stream, "Anna").await;
        assert_eq!(response.status(), 418);
        assert_eq!(
            response.json::<Value>().await.unwrap(),
            json!({"error": {"message": "no: Anna", "code": "teapot"}})
        );
    }
    let (base, _directory) = Running::proxy(Detecting::Well, "http://127.0.0.1:1/v1".to_owned()).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let response = running
        .client
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(KEY)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn broken_streams_end_with_an_error_and_no_half_placeholder() {
    let running = Running::start(Detecting::Well).await;
    for model in ["cut", "garbage", "unfinished"] {
        let stream = running.chat(model, true, "Hello Anna").await.text().await.unwrap();
        assert_eq!(contents(&stream).concat(), "Hello Anna", "{model}");
        assert!(stream.contains("upstream_broken"), "{model}: {stream}");
        assert!(!stream.contains("[DONE]") && !stream.contains("[GIVEN"), "{model}: {stream}");
    }
    // The proxy goes on.
    assert_eq!(running.chat("echo", false, "hi").await.status(), 200);
}

#[tokio::test]
async fn fifty_streams_at_once() {
    let running = Running::start(Detecting::Well).await;
    let texts: Vec<String> = (0..50).map(|n| format!("Anna {n} writes to user{n}@example.org.")).collect();
    let answers = futures::future::join_all(texts.iter().map(|text| async {
        contents(&running.chat("echo", true, text).await.text().await.unwrap()).concat()
    }));
    assert_eq!(answers.await, texts);
    assert!(!running.provider.text().contains('@'));
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_a_lost_one_ends_the_stream() {
    let running = Running::start(Detecting::Well).await;
    let response = running.chat("long", true, "Anna and Zürich").await;
    let mut pieces = response.bytes_stream();
    let mut text = Vec::new();
    let mut count = 0;
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece.unwrap());
        count += 1;
        if count < 10 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(contents(&text).concat(), "Anna and Zürich".repeat(1000));
    drop(running.chat("long", true, "Anna").await);
    let metrics = || async {
        let response =
            running.client.get(format!("{}/metrics", running.base)).bearer_auth(KEY).send().await.unwrap();
        response.text().await.unwrap()
    };
    for _ in 0..500 {
        if metrics().await.contains("anonymize_streams 0") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a stream nobody reads goes on: {}", metrics().await);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let running = Running::start(Detecting::Well).await;
    let post = |body: Vec<u8>| async {
        let request = running.client.post(format!("{}/v1/chat/completions", running.base)).bearer_auth(KEY);
        request.header("content-type", "application/json").body(body).send().await.unwrap().status().as_u16()
    };
    let surrogate = br#"{"messages": [{"role": "user", "content": "\ud800 Anna"}]}"#.to_vec();
    for bad in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"{\"messages\": 1}".to_vec(),
        surrogate,
        vec![0xff, 0xfe],
    ] {
        assert_eq!(post(bad.clone()).await, 400, "{bad:?}");
    }
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]});
    assert_eq!(post(image.to_string().into_bytes()).await, 422);
    let own = json!({"messages": [], "anonymizer": {"surprise": 1}});
    assert_eq!(post(own.to_string().into_bytes()).await, 400);
    let large = json!({"messages": [{"role": "user", "content": "a ".repeat(5 << 20)}]}).to_string();
    let status = running
        .client
        .post(format!("{}/v1/chat/completions", running.base))
        .bearer_auth(KEY)
        .body(large)
        .send()
        .await;
    // The refusal may come before all of the body is sent.
    assert!(status.map_or(true, |response| response.status() == 413));
    assert!(running.provider.requests().is_empty());
    assert_eq!(running.chat("echo", false, "").await.status(), 200);
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let running = Running::start(Detecting::Well).await;
    let url = format!("{}/check", running.base);
    let body = json!({"text": "hi"}).to_string();
    let send = |request: reqwest::RequestBuilder| async { request.body(body.clone()).send().await.unwrap() };
    assert_eq!(send(running.client.post(&url)).await.status(), 401);
    assert_eq!(send(running.client.post(&url).bearer_auth("other")).await.status(), 401);
    let keyed = || running.client.post(&url).bearer_auth(KEY);
    assert_eq!(send(keyed().header("host", "evil.example")).await.status(), 403);
    let foreign = send(keyed().header("origin", "https://evil.example")).await;
    assert_eq!(foreign.status(), 403);
    assert!(foreign.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
    let preflight =
        running.client.request(reqwest::Method::OPTIONS, &url).header("origin", "https://evil.example");
    assert_eq!(preflight.send().await.unwrap().status(), 403);
    assert_eq!(send(keyed()).await.status(), 200);
    let outside = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert!(outside_is_refused(outside).await);
}

/// Whether a proxy refuses to serve on an address that others reach.
async fn outside_is_refused(listener: tokio::net::TcpListener) -> bool {
    use anonymizer::proxy::{self, ProxyOptions, scan_thread::ScanThread};
    use anonymizer::scan::{RecognizersOnly, Rules, Scanner};
    let rules = std::sync::Arc::new(Rules::new(&anonymizer::config::Config::default()).unwrap());
    let own = std::sync::Arc::clone(&rules);
    let scans = ScanThread::start(rules, move || Ok(Scanner::new(own, Box::new(RecognizersOnly)))).unwrap();
    let options = ProxyOptions {
        upstream: "http://127.0.0.1:1/v1".to_owned(),
        upstream_key: None,
        key: zeroize::Zeroizing::new(KEY.to_owned()),
        audit: None,
        allow_attachments: false,
        hint: false,
        vault_rules: Default::default(),
        keys: Vec::new(),
    };
    proxy::run(listener, scans, options, std::future::pending()).await.is_err()
}

#[tokio::test]
async fn the_audit_log_and_the_metrics_hold_no_values() {
    let running = Running::start(Detecting::Well).await;
    running.chat("echo", false, TEXT).await;
    running.post("/redact", &json!({"text": TEXT, "session": "Anna"})).await;
    let audit = std::fs::read_to_string(running.directory.path().join("audit.jsonl")).unwrap();
    assert_clean(&audit);
    let entries: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["spans"], json!({"CITY": 1, "CREDIT_CARD_NUMBER": 1, "EMAIL": 1, "GIVEN_NAME": 1}));
    assert_eq!((&entries[0]["forwarded"], &entries[1]["forwarded"]), (&json!(true), &json!(false)));
    let metrics =
        running.client.get(format!("{}/metrics", running.base)).bearer_auth(KEY).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert_clean(&metrics);
    assert!(metrics.contains("anonymize_spans_total{label=\"CITY\"} 2"), "{metrics}");
}

#[tokio::test]
async fn every_api_is_scrubbed_and_restored() {
    let running = Running::start(Detecting::Well).await;
    for (path, field) in [
        ("/v1/responses", "input"),
        ("/v1/completions/", "prompt"),
        ("/completions", "prompt"),
        ("/messages", "messages"),
    ] {
        let text = if field == "messages" { json!([{"role": "user", "content": TEXT}]) } else { json!(TEXT) };
        for stream in [false, true] {
            let answer = running.post(path, &json!({"model": "m", field: text, "stream": stream})).await;
            assert_eq!(answer.status(), 200, "{path}");
            let answer = answer.text().await.unwrap();
            let said = if stream { streamed(&answer) } else { answer };
            assert!(said.contains(TEXT) && !said.contains("_1]"), "{path}: {said}");
        }
    }
    for path in ["/v1/embeddings", "/v1/moderations"] {
        assert_eq!(running.post(path, &json!({"model": "m", "input": [TEXT]})).await.status(), 200);
        assert_eq!(
            running.post(path, &json!({"model": "m", "input": [[1, 2, 3]]})).await.status() == 200,
            path.ends_with("moderations")
        );
    }
    assert_eq!(
        running.provider.requests()[8]["input"][0],
        "[GIVEN_NAME_1] lives in [CITY_1], mail [EMAIL_1], card [CREDIT_CARD_NUMBER_1]."
    );
    assert_clean(&running.provider.text());
}

/// The text of a stream of any API.
fn streamed(stream: &str) -> String {
    let events =
        stream.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let text = |event: Value| {
        let places = [&event["choices"][0]["text"], &event["delta"]["text"], &event["delta"]];
        places.into_iter().find_map(|place| place.as_str().map(str::to_owned))
    };
    events.filter_map(text).collect()
}

#[tokio::test]
async fn an_answer_is_continued_by_its_identity() {
    let running = Running::start(Detecting::Well).await;
    for (stream, id) in [(false, "resp_whole"), (true, "resp_stream")] {
        let first = json!({"model": "m", "input": "I am Anna", "stream": stream});
        running.post("/v1/responses", &first).await.text().await.unwrap();
        // The history stays with the provider: the answer may speak of what the earlier request held.
        let next = json!({"model": "m", "input": "And [GIVEN_NAME_1]?", "previous_response_id": id});
        let answer = running.post("/v1/responses", &next).await.text().await.unwrap();
        assert!(answer.contains("And [GIVEN_NAME_1]?"), "a look-alike stays one: {answer}");
        let next = json!({"model": "m", "input": "And Anna, Zürich?", "previous_response_id": id});
        running.post("/v1/responses", &next).await.text().await.unwrap();
        let sent = running.provider.requests();
        assert_eq!(sent.last().unwrap()["input"], "And [GIVEN_NAME_1], [CITY_1]?");
    }
}

#[tokio::test]
async fn models_paths_headers_and_encodings() {
    let running = Running::start(Detecting::Well).await;
    let get = |path: &str| {
        running
            .client
            .get(format!("{}{path}", running.base))
            .bearer_auth(KEY)
            .header("user-agent", "me/1")
            .send()
    };
    for path in ["/v1/models", "/models/", "/v1/models/gpt-4o", "/models/org/name"] {
        let answer: Value = get(path).await.unwrap().json().await.unwrap();
        assert_eq!(answer["agent"], "me/1", "{path}");
    }
    for path in ["/v1/threads", "/v1/models/a%20b", "/v1/chat", "/nothing"] {
        let answer = get(path).await.unwrap();
        assert_eq!(answer.status(), 404);
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains("/v1/chat/completions"), "{body}");
    }
    assert_eq!(get("/v1/chat/completions").await.unwrap().status(), 405);
    let answer = running.post("/v1/completions", &json!({"prompt": "x"})).await;
    let headers = answer.headers();
    assert_eq!(headers["x-request-id"], "req-7");
    assert_eq!(headers["retry-after"], "3");
    assert!(headers.contains_key("x-ratelimit-remaining-tokens") && !headers.contains_key("set-cookie"));

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, json!({"prompt": TEXT}).to_string().as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let send = |body: Vec<u8>, encoding: &'static str| {
        let request =
            running.client.post(format!("{}/v1/completions", running.base)).header("x-api-key", KEY);
        request.header("content-encoding", encoding).body(body).send()
    };
    let answer = send(gzip.clone(), "gzip").await.unwrap();
    assert!(answer.text().await.unwrap().contains(TEXT));
    assert_eq!(send(gzip.clone(), "br").await.unwrap().status(), 415);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b' '; 9 << 20]).unwrap();
    assert_eq!(send(bomb.finish().unwrap(), "gzip").await.unwrap().status(), 413);
    for (body, reason) in [
        (gzip, "gzip; say so"),
        (b"\xef\xbb\xbf{}".to_vec(), "byte order mark"),
        (b"{\"prompt\": \"Anna".to_vec(), "middle"),
        (b"3".to_vec(), "no JSON object"),
        (b"".to_vec(), "empty"),
        (br#"{"prompt": "\ud800"}"#.to_vec(), "surrogate"),
        (vec![b'"', 0xff], "byte 1"),
    ] {
        let answer = send(body, "identity").await.unwrap();
        assert_eq!(answer.status(), 400);
        let message = answer.text().await.unwrap();
        assert!(message.contains(reason) && !message.contains("Anna"), "{message}");
    }
}

#[tokio::test]
async fn json_answers_stay_json_and_numbers_numbers() {
    let running = Running::start_with("[[deny]]\nvalue = 'Acme \"Red\" GmbH'\nlabel = 'ORG'", || {
        Box::new(RecognizersOnly)
    })
    .await;
    running.provider.says("{\"customer\": \"[ORG_1]\"}");
    for stream in [false, true] {
        let body = json!({"model": "m", "stream": stream, "response_format": {"type": "json_object"},
            "messages": [{"role": "user", "content": "JSON about Acme \"Red\" GmbH"}]});
        let answer = running.post("/v1/chat/completions", &body).await.text().await.unwrap();
        let said = match stream {
            true => contents(&answer).concat(),
            false => serde_json::from_str::<Value>(&answer).unwrap()["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned(),
        };
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!({"customer": "Acme \"Red\" GmbH"}));
    }
    let rules = "[[recognizer]]\nname = 'tel'\nlabel = 'PHONE_NUMBER'\npattern = '41445550123'";
    let running = Running::start_with(rules, || Box::new(RecognizersOnly)).await;
    running.provider.says(json!({"choices": [{"message": {"tool_calls": [{"function": {"name": "f",
        "arguments": "{\"tel\": \"[PHONE_NUMBER_1]\", \"card\": \"[CREDIT_CARD_NUMBER_1]\"}"}}]}}]}));
    let arguments = json!({"tel": 41445550123u64, "card": "4111 1111 1111 1111"}).to_string();
    let call = json!({"id": "call_a1b2c3d4e5", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let body =
        json!({"model": "m", "messages": [{"role": "assistant", "content": null, "tool_calls": [call]}]});
    let answer: Value = running.post("/v1/chat/completions", &body).await.json().await.unwrap();
    let restored =
        answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert_eq!(restored, "{\"tel\":41445550123,\"card\":\"4111 1111 1111 1111\"}");
}
