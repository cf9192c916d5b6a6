//! `sotto chat --prompt` with an embedded server: real processes, real model.

mod client_support;

use client_support::{errors, json, sotto, with_input};
use serde_json::Value;

fn answer(arguments: &[&str]) -> Value {
    let output = sotto()
        .args(["chat", "--max-tokens", "24", "--temperature", "0", "--json", "--quiet"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    json(&output)
}

#[test]
fn an_encrypted_answer_is_that_of_int8_and_is_accounted_for() {
    let prompt = ["--prompt", "Explain photosynthesis in two sentences."];
    let encrypted = answer(&prompt);
    let mut reference = prompt.to_vec();
    reference.extend(["--backend", "int8"]);
    let int8 = answer(&reference);
    assert_eq!(encrypted["token_ids"], int8["token_ids"]);
    assert_eq!(encrypted["text"], int8["text"]);
    assert!(encrypted["text"].as_str().unwrap().to_lowercase().contains("photosynthesis"));

    let number =
        |path: &str| encrypted.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}"));
    let tokens = number("/decode_tokens");
    assert!(tokens <= 24.0 && number("/prompt_tokens") > 10.0);
    // 120 rounds per pass: one pass for the prompt at least, one per token behind the first.
    assert!(number("/round_trips") >= 120.0 * tokens && number("/round_trips") % 120.0 == 0.0);
    for path in ["/bytes/up", "/bytes/down", "/bytes/ahead", "/bytes/keys"] {
        assert!(number(path) > 0.0, "{path}");
    }
    for path in ["/ms/encrypt", "/ms/server_mask", "/ms/server_body", "/ms/decode", "/ms/client_clear"] {
        assert!(number(path) > 0.0, "{path}");
    }
    for path in ["/prompt_tokens_per_s", "/decode_tokens_per_s", "/time_to_first_token_ms"] {
        assert!(number(path) > 0.0, "{path}");
    }
}

#[test]
fn a_prompt_can_come_from_a_pipe() {
    let mut command = sotto();
    command.args(["chat", "--max-tokens", "4", "--temperature", "0", "--json", "--backend", "int8"]);
    let output = with_input(&mut command, b"What is the capital of France?\n");
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(json(&output)["decode_tokens"], 4);
}

#[test]
fn a_seed_fixes_a_sampled_answer() {
    let run = |seed| {
        let arguments =
            ["--prompt", "Tell me a story.", "--temperature", "1.5", "--backend", "int8", "--seed", seed];
        let output = sotto().args(["chat", "--max-tokens", "16", "--json"]).args(arguments).output().unwrap();
        json(&output)["token_ids"].clone()
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}
