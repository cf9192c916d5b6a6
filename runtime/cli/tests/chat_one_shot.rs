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
    // 120 rounds per pass: one pass for the prompt at least, one per token after the first.
    assert!(number("/round_trips") >= 120.0 * tokens && number("/round_trips") % 120.0 == 0.0);
    for path in ["/bytes/up", "/bytes/down", "/bytes/keys"] {
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

#[test]
fn prompt_files_and_standard_input_are_one_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("note.txt");
    std::fs::write(&path, "The lamp is green.").unwrap();
    let tokens = |arguments: &[&str], input: &[u8]| {
        let mut command = sotto();
        command.args(["chat", "--max-tokens", "1", "--temperature", "0", "--json", "--backend", "int8"]);
        let output = with_input(command.args(arguments), input);
        assert!(output.status.success(), "{}", errors(&output));
        json(&output)["prompt_tokens"].as_u64().unwrap()
    };
    let alone = tokens(&["Which colour is the folder?"], b"");
    assert_eq!(tokens(&["--prompt", "Which colour is the folder?"], b""), alone);
    let with_input = tokens(&["Which colour is the folder?"], b"The folder is blue.");
    assert!(with_input > alone + 3, "{with_input} and {alone}");
    let with_file =
        tokens(&["Which colour is the folder?", "-f", path.to_str().unwrap()], b"The folder is blue.");
    assert!(with_file > with_input + 3, "{with_file} and {with_input}");
    assert_eq!(tokens(&["-"], b"Which colour is the folder?"), alone);
}

#[test]
fn a_cut_answer_says_so() {
    let run = |tokens: &str| {
        let arguments =
            ["chat", "Explain photosynthesis in two sentences.", "--backend", "int8", "--max-tokens", tokens];
        errors(&sotto().args(arguments).args(["--temperature", "0"]).output().unwrap())
    };
    assert!(run("5").contains("[cut at 5 tokens: --max-tokens allows more]"));
    assert!(!run("200").contains("[cut"));
}

#[test]
fn a_preset_gives_what_no_option_gives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("presets.toml");
    std::fs::write(&path, "[short]\nsystem = \"Be brief.\"\nmax_tokens = 3\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = sotto();
        command
            .args(["chat", "Name a colour.", "--json", "--ignore-eos", "--backend", "int8"])
            .args(arguments);
        command.env("SOTTO_PRESETS", &path).output().unwrap()
    };
    assert_eq!(json(&run(&["--preset", "short"]))["decode_tokens"], 3);
    assert_eq!(json(&run(&["--preset", "short", "--max-tokens", "2"]))["decode_tokens"], 2);
    let unknown = run(&["--preset", "tall"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(errors(&unknown).contains("short"), "{}", errors(&unknown));
}

#[test]
fn words_of_the_prompt_are_not_penalized() {
    let tokens = |penalty: &str| {
        let arguments = ["--prompt", "Repeat this sentence: The sky is blue.", "--repeat-penalty", penalty];
        let output = sotto()
            .args(["chat", "--max-tokens", "2", "--temperature", "0", "--json", "--backend", "int8"])
            .args(arguments)
            .output()
            .unwrap();
        json(&output)["token_ids"].clone()
    };
    // "The sky": both words are in the prompt, and neither is in the answer yet.
    assert_eq!(tokens("9"), tokens("1"));
}
