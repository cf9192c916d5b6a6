//! Refusals: each names the field, and programs can tell what to do.

use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::endpoint::{Endpoint, chat, with};

#[test]
fn fields_that_cannot_be_served_are_named() {
    let endpoint = Endpoint::shared();
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
    let endpoint = Endpoint::shared();
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
    let endpoint = Endpoint::shared();
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

#[test]
fn odd_requests_are_answered_or_refused_with_a_name() {
    let endpoint = Endpoint::shared();
    let message = |role: &str, content: Value| json!({ "role": role, "content": content });
    // Refused, by name.
    for (fields, param) in [
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": "hi" }), "messages"),
        (json!({ "messages": [null] }), "messages[0]"),
        (json!({ "messages": [{}] }), "messages[0].role"),
        (json!({ "messages": [{ "role": null, "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "User", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [message("user", Value::Null)] }), "messages[0].content"),
        (
            json!({ "messages": [message("user", json!([{ "type": "text" }]))] }),
            "messages[0].content[0].text",
        ),
        (json!({ "messages": [message("user", json!(["x"]))] }), "messages[0].content[0]"),
        (json!({ "messages": [message("assistant", json!(" "))] }), "messages"),
        (json!({ "max_tokens": 1.5 }), "max_tokens"),
        (json!({ "max_tokens": "5" }), "max_tokens"),
        (json!({ "max_tokens": -2 }), "max_tokens"),
        (json!({ "max_tokens": [] }), "max_tokens"),
        (json!({ "temperature": [] }), "temperature"),
        (json!({ "temperature": -0.1 }), "temperature"),
        (json!({ "top_p": "NaN" }), "top_p"),
        (json!({ "seed": 1.5 }), "seed"),
        (json!({ "stop": {} }), "stop"),
        (json!({ "stop": ["a", null] }), "stop"),
        (json!({ "n": true }), "n"),
        (json!({ "model": 5 }), "model"),
        (json!({ "logit_bias": [] }), "logit_bias"),
        (json!({ "logit_bias": { "1": null } }), "logit_bias"),
        (json!({ "response_format": "json_object" }), "response_format"),
        (json!({ "stream_options": true }), "stream_options"),
        (json!({ "tools": {} }), "tools"),
        (json!({ "tools": [null] }), "tools[0]"),
        (
            json!({ "tool_choice": 5, "tools": [{ "type": "function", "function": { "name": "f" } }] }),
            "tool_choice",
        ),
    ] {
        let refused = endpoint.post("/chat/completions", &with(chat("x"), fields.clone()));
        let (status, error) = (refused.status(), refused.json::<Value>().unwrap()["error"].clone());
        assert_eq!((status.as_u16(), &error["param"]), (400, &json!(param)), "{fields}: {error}");
    }
    // Answered.
    for fields in [
        json!({ "messages": [message("user", json!(""))] }),
        json!({ "messages": [message("user", json!([]))] }),
        json!({ "messages": [message("user", json!(" \n\t"))] }),
        json!({ "messages": [message("user", json!("\u{0}\u{202e}\u{feff}\u{1f469}\u{200d}\u{1f680}"))] }),
        json!({ "messages": [message("user", json!("x")), message("assistant", json!(""))] }),
        json!({ "messages": [message("user", json!("x")), { "role": "assistant" }] }),
        json!({ "messages": [message("assistant", json!("x")), message("assistant", json!("y"))] }),
        json!({ "stop": "" }),
        json!({ "stop": [] }),
        json!({ "stop": [""] }),
        json!({ "max_tokens": 2.0, "n": 1.0 }),
        json!({ "max_tokens": null, "max_completion_tokens": 2, "temperature": null, "stop": null, "n": null, "seed": null }),
        json!({ "tools": null, "tool_choice": null, "response_format": null, "logit_bias": null, "stream_options": null }),
    ] {
        let answer = endpoint
            .ask("/chat/completions", &with(with(chat("x"), json!({ "max_tokens": 2 })), fields.clone()));
        assert!(answer["choices"][0]["message"]["content"].is_string(), "{fields}: {answer}");
    }
}

#[test]
fn an_empty_beginning_of_the_answer_is_none_and_one_that_ends_in_a_space_is_kept() {
    let endpoint = Endpoint::shared();
    let tokens = |messages: Value| {
        let answer = endpoint
            .ask("/chat/completions", &with(chat(""), json!({ "messages": messages, "max_tokens": 1 })));
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let user = json!({ "role": "user", "content": "Name a colour." });
    let alone = tokens(json!([user]));
    for blank in [json!(""), json!(null), json!(" \n"), json!([])] {
        assert_eq!(tokens(json!([user, { "role": "assistant", "content": blank }])), alone, "{blank}");
    }
    let begun = |text: &str| tokens(json!([user, { "role": "assistant", "content": text }]));
    assert_eq!(begun("A colour is:\n\n"), begun("A colour is:") + 1);
}

#[test]
fn bodies_that_are_compressed_or_far_too_long_are_refused_at_once() {
    let endpoint = Endpoint::shared();
    for (path, kind) in
        [("/chat/completions", "invalid_request_error"), ("/messages", "invalid_request_error")]
    {
        let compressed = Client::new()
            .post(format!("{}{path}", endpoint.base))
            .bearer_auth(endpoint.key())
            .header("content-encoding", "gzip")
            .body(vec![0x1f, 0x8b, 8, 0])
            .send()
            .unwrap();
        assert_eq!(compressed.status(), 415);
        let body: Value = compressed.json().unwrap();
        assert_eq!(body["error"]["type"], kind);
        assert_eq!(body["type"] == "error", path == "/messages", "{body}");
    }
    let long = endpoint.post("/chat/completions", &chat(&"word ".repeat(1_500_000)));
    assert_eq!(long.status(), 400);
    let error = long.json::<Value>().unwrap()["error"].clone();
    assert_eq!(
        (error["code"].as_str(), error["param"].as_str()),
        (Some("context_length_exceeded"), Some("messages"))
    );
    // Tens of thousands of short ones are read once.
    let short: Vec<Value> = (0..40_000)
        .map(|index| json!({ "role": if index % 2 == 0 { "user" } else { "assistant" }, "content": "a" }))
        .collect();
    let many = endpoint.post("/chat/completions", &with(chat(""), json!({ "messages": short })));
    let error = many.json::<Value>().unwrap()["error"].clone();
    assert_eq!(error["code"], "context_length_exceeded", "{error}");
}

#[test]
fn errors_of_anthropics_endpoint_have_its_form_everywhere() {
    let endpoint = Endpoint::shared();
    let root = endpoint.base.trim_end_matches("/v1");
    let unknown_key =
        Client::new().post(format!("{root}/v1/messages")).bearer_auth("no").body("{}").send().unwrap();
    assert_eq!(unknown_key.status(), 401);
    assert!(unknown_key.headers()["request-id"].to_str().unwrap().starts_with("req-"));
    let body: Value = unknown_key.json().unwrap();
    assert_eq!(
        (body["type"].as_str(), body["error"]["type"].as_str()),
        (Some("error"), Some("authentication_error"))
    );
    for (response, kind) in [
        (endpoint.get("/v1/messages"), "invalid_request_error"),
        (endpoint.post("/messages", &json!({ "x": "x".repeat(9 << 20) })), "request_too_large"),
        (endpoint.post("/messages/count_tokens", &json!({ "messages": [] })), "invalid_request_error"),
        (endpoint.post("/messages", &json!({ "model": "nope", "max_tokens": 1, "messages": [{ "role": "user", "content": "x" }] })), "not_found_error"),
    ] {
        let body: Value = response.json().unwrap();
        assert_eq!((body["type"].as_str(), body["error"]["type"].as_str()), (Some("error"), Some(kind)), "{body}");
    }
}

#[test]
fn a_suffix_needs_a_model_with_tokens_for_it() {
    let endpoint = Endpoint::shared();
    let refused = endpoint.post("/completions", &json!({ "prompt": "def f():", "suffix": "return x" }));
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().unwrap()["error"]["param"], "suffix");
    let empty = endpoint.ask("/completions", &json!({ "prompt": "Once", "suffix": "", "max_tokens": 1 }));
    assert!(empty["choices"][0]["text"].is_string());
}
