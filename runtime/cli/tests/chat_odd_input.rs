//! What people type that is odd and right: prompts that look like options, variables that are set to nothing, files of
//! Windows, a standard error that cannot be written.

mod client_support;

use std::fs::File;

use client_support::{errors, json, sotto, with_input};

const COMMON: [&str; 8] = ["chat", "--max-tokens", "1", "--temperature", "0", "--backend", "int8", "--quiet"];

/// Tokens of the prompt that `arguments` and `input` make.
fn prompt_tokens(arguments: &[&str], input: &[u8]) -> u64 {
    let output = with_input(sotto().args(COMMON).arg("--json").args(arguments), input);
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    json(&output)["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn prompts_may_look_like_options_and_files_may_have_any_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a,b.txt");
    std::fs::write(&path, "\u{feff}The lamp is green.").unwrap();
    let path = path.to_str().unwrap();
    let plain = prompt_tokens(&["-p", "The lamp is green."], b"");
    assert_eq!(prompt_tokens(&["--prompt-file", path], b""), plain);
    assert_eq!(prompt_tokens(&["-f", path], b""), plain);
    assert_eq!(prompt_tokens(&["-f", "-"], b"\xef\xbb\xbfThe lamp is green.\n"), plain);
    assert_eq!(prompt_tokens(&["--prompt-file", "-"], b"The lamp is green."), plain);
    assert_eq!(prompt_tokens(&["-p", "The lamp is green.", "--system", " "], b""), plain);
    assert!(prompt_tokens(&["--prompt", "- The lamp is green."], b"") > plain);
    assert!(prompt_tokens(&["-p", "x", "--system", "-- Be brief."], b"") > 0);
}

#[test]
fn variables_that_are_set_to_nothing_are_not_set() {
    let mut command = sotto();
    for name in [
        "MODEL",
        "SERVER",
        "SYSTEM",
        "PROMPT",
        "PROMPT_FILE",
        "FILE",
        "TEMPERATURE",
        "MAX_TOKENS",
        "SEED",
        "THREADS",
        "PRESET",
        "PRESETS",
        "LOAD",
        "HISTORY",
        "CONTEXT",
        "JSON",
        "QUIET",
        "DRAFT",
        "TAU",
        "WIRE",
        "SET",
    ] {
        command.env(format!("SOTTO_{name}"), "");
    }
    let output = with_input(command.args(COMMON).args(["--prompt", "hi"]), b"");
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn numbers_that_stand_for_no_limit_are_taken() {
    let arguments = ["-p", "hi", "--max-tokens=-1", "--top-k", "-1", "--seed", "-1", "--context", "64"];
    let output = sotto().args(["chat", "--backend", "int8", "--json"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let refused = sotto().args(["chat", "-p", "hi", "--backend", "int8", "--top-p", "-1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(errors(&refused).contains("top_p"), "{}", errors(&refused));
}

#[test]
fn a_standard_error_that_cannot_be_written_is_no_reason_to_fail() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let arguments = ["chat", "-p", "hi", "--max-tokens", "2", "--temperature", "0", "--backend", "int8"];
    let output = sotto().args(arguments).stderr(full.try_clone().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.is_empty());
    // An error has its code all the same.
    let refused = sotto().args(["chat", "-p", "hi", "--model", "nonesuch"]).stderr(full).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn json_needs_a_message() {
    let output = with_input(sotto().args(["chat", "--json", "--backend", "int8"]), b"");
    assert_eq!(output.status.code(), Some(2));
}
