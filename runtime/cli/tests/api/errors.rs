//! Refusals: each names the field, and programs can tell what to do.

use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

#[test]
fn fields_that_cannot_be_served_are_named() {
    let endpoint = Endpoint::start();
    for (fields, param) in [
        (json!({ "n": 0 }), "n"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "stream": 5 }), "stream"),
        (json!({ "response_format": { "type": "bogus" } }), "response_format.type"),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "nonsense" } } } }),
            "response_format",
        ),
        (json!({ "tools": [{ "type": "x" }] }), "tools[0].type"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "functions": [{ "name": "f" }] }), "functions"),
        (json!({ "logit_bias": { "99999999": 1 } }), "logit_bias"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "user", "content": 5 }] }), "messages[0].content"),
        (
            json!({ "messages": [{ "role": "tool", "tool_call_id": null, "content": "42" }] }),
            "messages[0].tool_call_id",
        ),
    ] {
        for stream in [false, true] {
            let mut body = with(chat("x"), json!({ "stream": stream }));
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let refused = endpoint.post("/chat/completions", &body);
            assert_eq!(refused.status(), 400, "{fields}");
            assert!(refused.headers()["x-request-id"].to_str().unwrap().starts_with("req-"));
            let error = refused.json::<Value>().unwrap()["error"].clone();
            assert_eq!(error["param"], param, "{error}");
            let named = param.split(['.', '[']).next().unwrap();
            assert!(error["message"].as_str().unwrap().contains(named), "{error}");
        }
    }
    // What peers accept as "not set".
    let off = json!({ "max_completion_tokens": 2, "max_tokens": -1, "seed": -1, "top_k": -1, "top_p": 0,
        "stream": null, "tools": [], "functions": null, "audio": null, "best_of": 1 });
    assert_eq!(endpoint.ask("/chat/completions", &with(chat("x"), off))["usage"]["completion_tokens"], 2);
    let system = json!({ "messages": [{ "role": "system", "content": "Say hi." }] });
    endpoint.ask("/chat/completions", &with(chat(""), system));
}

#[test]
fn unknown_models_and_paths() {
    let endpoint = Endpoint::start();
    for (path, body) in [
        ("/chat/completions", with(chat("x"), json!({ "model": "nope" }))),
        ("/chat/completions", with(chat("x"), json!({ "model": "minilm" }))),
        ("/completions", json!({ "prompt": "x", "model": "nope" })),
        ("/responses", json!({ "input": "x", "model": "nope" })),
    ] {
        let refused = endpoint.post(path, &body);
        assert_eq!(refused.status(), 404, "{path}");
        let error = refused.json::<Value>().unwrap()["error"].clone();
        assert_eq!(
            (error["code"].as_str(), error["param"].as_str()),
            (Some("model_not_found"), Some("model"))
        );
    }
    assert_eq!(endpoint.get("/v1/models/nope").status(), 404);
    let unknown = endpoint.post("/nonesuch", &json!({}));
    assert_eq!(unknown.status(), 404);
    assert!(
        unknown.json::<Value>().unwrap()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/v1/chat/completions")
    );
}

#[test]
fn errors_of_the_framework_are_json_too() {
    let endpoint = Endpoint::start();
    let wrong_method = endpoint.get("/v1/chat/completions");
    assert_eq!(wrong_method.status(), 405);
    assert!(wrong_method.json::<Value>().unwrap()["error"]["message"].is_string());
    let large = with(chat("x"), json!({ "user": "x".repeat(9 << 20) }));
    let large = endpoint.post("/chat/completions", &large);
    assert_eq!(large.status(), 413);
    assert!(large.json::<Value>().unwrap()["error"]["message"].is_string());
    let broken = Client::new()
        .post(format!("{}/chat/completions", endpoint.base))
        .bearer_auth(endpoint.key())
        .body("{\"my secret\"")
        .send()
        .unwrap();
    assert_eq!(broken.status(), 400);
    assert!(!broken.text().unwrap().contains("secret"));
}
