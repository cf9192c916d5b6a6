//! Several keys: each opens its routes, treats values its way, and knows its own sessions only.

use std::sync::Arc;

use crate::support::{KEY, Running};
use anonymizer::proxy::access::KeyPolicy;
use anonymizer::vault::VaultRules;
use anonymizer::vault::operator::{Operator, Operators};
use serde_json::{Value, json};
use zeroize::Zeroizing;

fn policy(name: &str, routes: &[&str], operators: &[(&str, Operator)]) -> KeyPolicy {
    let by_label = operators.iter().map(|(label, operator)| ((*label).to_owned(), *operator)).collect();
    let operators = Arc::new(Operators::new(&by_label, None));
    KeyPolicy {
        name: name.to_owned(),
        key: Zeroizing::new(format!("sk-{name}")),
        routes: Some(routes.iter().map(|route| (*route).to_owned()).collect()),
        allow_attachments: false,
        hint: false,
        vault_rules: VaultRules { ignore_case: false, operators },
    }
}

#[tokio::test]
async fn keys_have_their_own_routes_operators_and_sessions() {
    let running = Running::start_with_keys(vec![
        policy(
            "strict",
            &["chat/completions", "restore", "redact"],
            &[("EMAIL", Operator::Block), ("GIVEN_NAME", Operator::Mask)],
        ),
        policy(
            "loose",
            &["chat/completions", "restore"],
            &[("CITY", Operator::Keep), ("EMAIL", Operator::Drop)],
        ),
    ])
    .await;
    let post = async |key: &str, path: &str, body: Value| {
        let request = running.client.post(format!("{}{path}", running.base)).bearer_auth(key).json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let chat = |text: &str| json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    let sent = || running.provider.requests().last().unwrap()["messages"][0]["content"].clone();

    let (status, answer) = post("sk-strict", "/v1/chat/completions", chat("write to anna@example.org")).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("blocked")));
    assert!(running.provider.requests().is_empty());
    assert_eq!(post("sk-strict", "/v1/chat/completions", chat("Anna in Zürich")).await.0, 200);
    assert_eq!(sent(), "**** in [CITY_1]");
    assert_eq!(
        post("sk-loose", "/v1/chat/completions", chat("Anna in Zürich, anna@example.org")).await.0,
        200
    );
    assert_eq!(sent(), "[GIVEN_NAME_1] in Zürich, ");
    assert_eq!(post(KEY, "/v1/chat/completions", chat("Anna in Zürich")).await.0, 200);
    assert_eq!(sent(), "[GIVEN_NAME_1] in [CITY_1]");

    for (key, path, expected) in [
        ("sk-loose", "/redact", 403),
        ("sk-loose", "/v1/embeddings", 403),
        ("sk-strict", "/v1/messages/", 403),
        ("sk-other", "/redact", 401),
        (KEY, "/redact", 200),
        ("sk-strict", "/redact", 200),
    ] {
        assert_eq!(
            post(key, path, json!({"text": "Zürich", "session": "shared name"})).await.0,
            expected,
            "{key} {path}"
        );
    }
    let restore = json!({"text": "[CITY_1]", "session": "shared name"});
    assert_eq!(post("sk-strict", "/restore", restore.clone()).await.1["restored"], "Zürich");
    assert_eq!(post("sk-loose", "/restore", restore).await.1["restored"], "[CITY_1]");
    let audit = std::fs::read_to_string(running.directory.path().join("audit.jsonl")).unwrap();
    assert!(audit.contains("\"key\":\"strict\"") && !audit.contains("sk-strict"), "{audit}");
}
