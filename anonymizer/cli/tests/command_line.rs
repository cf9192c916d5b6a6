//! The program itself, with the model's linear layers in clear.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use sotto_testing::environment::isolated;

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn redact(arguments: &[&str], input: &[u8]) -> Output {
    run(&[&["redact", "--backend", "dense", "--quiet"], arguments].concat(), input)
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn jsonl_has_the_fields_it_promises() {
    let input = concat!(
        "{\"id\": \"a\", \"text\": \"Héllo Marisol Kowalski, mail m.k@example.org\", \"other\": 1}\n",
        "\n",
        "{\"id\": \"b\", \"text\": \"\"}\n",
        "{\"id\": \"c\", \"text\": \"Marisol again\"}\n"
    );
    let output = redact(&["--jsonl"], input.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let records = lines(&output);
    assert_eq!(records[0]["redacted"], "Héllo [GIVEN_NAME_1] [SURNAME_1], mail [EMAIL_1]");
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&records[0]), ["id", "redacted", "spans"]);
    assert_eq!(fields(&records[0]["spans"][0]), ["start", "end", "label", "placeholder", "score", "source"]);
    let email = &records[0]["spans"][2];
    assert_eq!((&email["start"], &email["end"], &email["source"]), (&json!(29), &json!(44), &json!("email")));
    assert_eq!(records[1], json!({"id": "b", "redacted": "", "spans": []}));
    assert_eq!(records[2]["redacted"], "[GIVEN_NAME_1] again");
}

#[test]
fn bad_lines_are_named_and_the_others_done() {
    let mut input =
        b"{\"id\": 1, \"text\": \"fine\"}\n{\"id\": 2, \"text\": \"\\ud800 Anna\"}\nno json\n{\"id\": 3}\n"
            .to_vec();
    input.extend_from_slice(b"{\"id\": 4, \"text\": \"\xff\"}\n{\"id\": 5, \"text\": \"fine\"}");
    let output = redact(&["--jsonl"], &input);
    assert_eq!(output.status.code(), Some(1));
    let ids: Vec<Value> = lines(&output).iter().map(|record| record["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(5)]);
    let errors = String::from_utf8(output.stderr).unwrap();
    for line in ["line 2:", "line 3:", "line 4:", "line 5:", "4 lines were left out"] {
        assert!(errors.contains(line), "{errors}");
    }
    assert!(!errors.contains("Anna"));
}

#[test]
fn a_saved_vault_restores_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (vault, key) = (path("v"), path("k"));
    let saved = ["--vault", &vault, "--key-file", &key];
    let text = "Dear Beatriz Castellanos, your card 4111 1111 1111 1111 is ready. [GIVEN_NAME_1]\r\n";
    let output = redact(&saved, text.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let redacted = String::from_utf8(output.stdout).unwrap();
    assert!(!redacted.contains("Beatriz") && !redacted.contains("4111"), "{redacted}");
    let restored = run(&[&["restore"], &saved[..]].concat(), redacted.as_bytes());
    assert_eq!(String::from_utf8(restored.stdout).unwrap(), text);
    let unknown = run(&[&["restore"], &saved[..]].concat(), b"[CITY_9]");
    assert_eq!(unknown.stdout, b"[CITY_9]");
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("[CITY_9] is not in the vault"));
    let keyless = run(&["restore", "--vault", &vault], b"");
    assert_eq!(keyless.status.code(), Some(2));
}

#[test]
fn directories_are_redacted_file_by_file() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in/sub");
    std::fs::create_dir_all(&input).unwrap();
    std::fs::write(directory.path().join("in/a.txt"), "Call Mateusz Lindqvist.").unwrap();
    std::fs::write(input.join("b.txt"), "Mateusz called m.k@example.org.").unwrap();
    std::fs::write(input.join("d.txt"), "Write to j.d@example.org.").unwrap();
    std::fs::write(input.join("c.bin"), [0xff, 0x00]).unwrap();
    let out = directory.path().join("out");
    let path = |path: &Path| path.display().to_string();
    let output = redact(&[&path(&directory.path().join("in")), "--out", &path(&out)], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not UTF-8 text (byte 0)"));
    assert_eq!(std::fs::read_to_string(out.join("a.txt")).unwrap(), "Call [GIVEN_NAME_1] [SURNAME_1].");
    assert_eq!(std::fs::read_to_string(out.join("sub/b.txt")).unwrap(), "[GIVEN_NAME_1] called [EMAIL_1].");
    assert_eq!(std::fs::read_to_string(out.join("sub/d.txt")).unwrap(), "Write to [EMAIL_2].");
    let apart = redact(&[&path(&directory.path().join("in")), "--out", &path(&out), "--per-document"], b"");
    assert_eq!(apart.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(out.join("sub/d.txt")).unwrap(), "Write to [EMAIL_1].");
    let nowhere = redact(&[&path(&directory.path().join("in"))], b"");
    assert_eq!(nowhere.status.code(), Some(2));
}

#[test]
fn unusual_texts_are_redacted() {
    let redacted = |text: &str| {
        let output = redact(&[], text.as_bytes());
        assert!(output.status.success(), "{text:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for nothing in ["", "[GIVEN_NAME_1] [[CITY_2]] [", "\u{0}\u{feff}"] {
        assert_eq!(redacted(nothing), nothing);
    }
    let mixed = redacted("שלום Marisol, \u{202e}abc\u{301} m.k@example.org");
    assert!(!mixed.contains("Marisol") && !mixed.contains("m.k@") && mixed.contains('\u{202e}'), "{mixed:?}");
    let binary = redact(&[], &[b'a', 0xc3, 0x28]);
    assert_eq!(binary.status.code(), Some(1));
    assert!(String::from_utf8(binary.stderr).unwrap().contains("not UTF-8 text (byte 1)"));
}

#[test]
fn explain_says_why() {
    let text = b"SSN 322-14-4695 of Caroline Brennan";
    let output = run(&["explain", "--backend", "dense", "--json", "--quiet"], text);
    let records = lines(&output);
    assert_eq!((&records[0]["label"], &records[0]["source"]), (&json!("SSN"), &json!("ssn")));
    assert!(records[0]["reason"].as_str().unwrap().contains("Social Security"));
    assert_eq!(records[1]["source"], "model");
}

#[test]
fn letters_that_the_model_does_not_know_are_counted_or_refused() {
    let text = "สวัสดี Ann Miller from Leeds";
    // The detector of the default knows these letters, the one for English alone does not.
    let known = redact(&["--unknown-script", "fail"], text.as_bytes());
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));
    let english = ["--detector", "rampart"];
    let warned = redact(&english, text.as_bytes());
    let message = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(warned.status.success(), "{message}");
    assert!(message.contains("letters of a script that the model does not know"), "{message}");
    let refused = redact(&["--detector", "rampart", "--unknown-script", "fail"], text.as_bytes());
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    let known = redact(&["--unknown-script", "fail"], b"Ann Miller from Leeds");
    assert!(known.status.success() && known.stderr.is_empty(), "{}", String::from_utf8_lossy(&known.stderr));
}
