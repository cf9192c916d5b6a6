//! What a user can get wrong: a clear message and the right exit code, never a panic.

mod client_support;

use client_support::{errors, sotto, with_input};

fn refused(arguments: &[&str], code: i32, text: &str) {
    let output = sotto().args(arguments).output().unwrap();
    let message = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(text), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn unknown_models_and_files() {
    refused(&["chat", "-p", "x", "--model", "nonesuch"], 2, "built-in");
    refused(&["chat", "-p", "x", "--model", "./nonesuch.gguf"], 2, "nonesuch.gguf");
    refused(&["models", "remove", "nonesuch"], 2, "sotto models list");
    refused(&["chat", "-p", "x", "--load", "/nonexistent.json"], 6, "/nonexistent.json");
    refused(&["chat", "-p", "x", "--load", "/"], 6, "directory");
}

#[test]
fn a_truncated_model_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let whole = client_support::smollm2().source;
    let bytes = std::fs::read(whole).unwrap();
    let path = directory.path().join("cut.gguf");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let path = path.to_str().unwrap();
    refused(&["chat", "-p", "x", "--model", path, "--backend", "int8"], 6, "cut.gguf");
    std::fs::write(path, b"not a model").unwrap();
    refused(&["chat", "-p", "x", "--model", path, "--backend", "int8"], 6, "cut.gguf");
}

#[test]
fn sampling_options_out_of_range() {
    refused(&["chat", "-p", "x", "--temperature=-1"], 2, "temperature");
    refused(&["chat", "-p", "x", "--top-p", "0"], 2, "top_p");
    refused(&["chat", "-p", "x", "--max-tokens", "0"], 2, "max_tokens");
    refused(&["estimate", "--tau", "7"], 2, "--tau");
    refused(&["chat", "-p", "x", "--tau", "7"], 2, "--tau");
    refused(&["split", "x", "--out", "y", "--tau", "64,7"], 2, "--tau");
    refused(&["chat", "-p", "x", "--context", "10"], 2, "--context");
}

#[test]
fn an_empty_message_is_none() {
    refused(&["chat", "-p", ""], 2, "empty");
    refused(&["chat", "--prompt", " \n"], 2, "empty");
}

#[test]
fn connect_strings() {
    refused(&["chat", "-p", "x", "--server", "http://x"], 2, "sotto://");
    let pin = "07".repeat(32);
    let no_credential = format!("sotto://127.0.0.1:1/?pin={pin}");
    refused(&["chat", "-p", "x", "--server", &no_credential], 2, "credential");
    let nobody = format!("sotto://127.0.0.1:1/?pin={pin}&credential=0123456789abcdef.AAAA");
    refused(&["chat", "-p", "x", "--server", &nobody], 3, "127.0.0.1:1");
}

#[test]
fn standard_input_must_be_text() {
    let output = with_input(sotto().args(["chat", "--backend", "int8"]), b"caf\xe9");
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("UTF-8"));
    let output = with_input(sotto().args(["chat", "--backend", "int8"]), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("--prompt"));
}

#[test]
fn the_api_stays_on_this_machine() {
    refused(&["api", "--listen", "0.0.0.0:0"], 2, "loopback");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["api", "--listen", &address], 7, &address);
}
