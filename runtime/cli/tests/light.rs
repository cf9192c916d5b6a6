//! The light parameter set from the split to the answer: real processes, real model.

mod client_support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use client_support::{errors, json, sotto};
use serde_json::Value;

const LIGHT: &str = "n2048-q50-t4-l1";

fn manifest(part: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(part.join("manifest.json")).unwrap()).unwrap()
}

/// Address space in KB, too little for the default set's NTT tables of SmolLM2-135M, 5 GB.
const SHORT_KB: &str = "6000000";

#[test]
fn a_split_is_made_for_the_set_that_is_asked_for_or_that_fits() {
    let place = tempfile::tempdir().unwrap();
    let split = |out: &str, arguments: &[&str], limit: Option<&str>| -> Output {
        let mut command = Command::new("sh");
        let script = limit.map_or_else(String::new, |kb| format!("ulimit -v {kb}; ")) + "exec \"$0\" \"$@\"";
        command.args([
            "-c",
            &script,
            env!("CARGO_BIN_EXE_sotto"),
            "split",
            "smollm2-135m",
            "--no-tables",
            "--quiet",
        ]);
        command.args(arguments).arg("--out").arg(place.path().join(out));
        let output = sotto_testing::environment::isolated(command).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        output
    };
    let set = |out: &str, side: &str| {
        manifest(&place.path().join(out).join(side))["protocol"]["params_id"].as_str().unwrap().to_owned()
    };
    let printed = split("asked", &["--set", "light", "--tau", "64,128"], None);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.ends_with("light set")).count(), 2, "{text}");
    for side in ["client/plain", "server/plain"] {
        assert_eq!(set("asked", side), format!("{LIGHT}-tau64"));
        assert_eq!(set("asked/tau128", side), format!("{LIGHT}-tau128"));
    }
    split("short", &[], Some(SHORT_KB));
    assert_eq!(set("short", "server/plain"), format!("{LIGHT}-tau64"));
    split("insisted", &["--set", "default"], Some(SHORT_KB));
    assert_eq!(set("insisted", "server/plain"), "n2048-q50-t5-tau64");
    // The weights of both sets are the same bytes.
    let hash = |out: &str| manifest(&place.path().join(out).join("server/plain"))["weights"].clone();
    assert_eq!(hash("short"), hash("insisted"));
}

/// A running `sotto serve`, killed on drop.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_light_server_answers_as_int8_does_and_lists_its_set() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("split");
    let output = sotto()
        .args(["split", "smollm2-135m", "--set", "light", "--no-tables", "--quiet", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let mut child = sotto()
        .args(["serve", "--ephemeral-credential", "--print-credential", "--split"])
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let _serving = Serving(child);
    let mut connect = String::new();
    BufReader::new(stdout).read_line(&mut connect).unwrap();

    let chat = |arguments: &[&str]| {
        let mut command = sotto();
        command.args(["chat", "--prompt", "Explain photosynthesis in two sentences.", "--max-tokens", "24"]);
        command.args(["--temperature", "0", "--json", "--quiet"]).args(arguments).output().unwrap()
    };
    let cache = tempfile::tempdir().unwrap();
    let mut command = sotto();
    command.env("SOTTO_CACHE", cache.path());
    command.args(["chat", "--prompt", "Explain photosynthesis in two sentences.", "--max-tokens", "24"]);
    command.args(["--temperature", "0", "--json", "--quiet", "--server", connect.trim()]);
    let light = json(&command.output().unwrap());
    let int8 = json(&chat(&["--backend", "int8"]));
    let tokens = |answer: &Value| answer["token_ids"].as_array().unwrap().clone();
    let common = tokens(&light).iter().zip(&tokens(&int8)).take_while(|(a, b)| a == b).count();
    assert!(common >= 20, "{common} of 24 tokens alike: {} and {}", light["text"], int8["text"]);
    // Whoever insists on the other set is told what there is.
    let refused = chat(&["--set", "default", "--server", connect.trim()]);
    assert!(!refused.status.success());
    assert!(errors(&refused).contains(LIGHT), "{}", errors(&refused));
}

#[test]
fn a_selftest_of_the_light_set_measures_it() {
    let output = sotto()
        .args(["selftest", "--set", "light", "--form", "compact", "--threads", "2"])
        .args(["--prompts", "1", "--tokens", "8", "--json", "--quiet"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let report = json(&output);
    assert!(report["model"].as_str().unwrap().contains("light set"));
    for page in ["prose", "code"] {
        let number = |path: &str| report[page].pointer(path).and_then(Value::as_f64).unwrap();
        assert!(number("/tokens") > 300.0);
        let (mean, p99) = (number("/kl_from_int8/mean"), number("/kl_from_int8/p99"));
        // Encrypted is not int8 itself, and yet near it.
        assert!(mean > 1e-9 && mean < 1e-3 && p99 >= mean && p99 < 1e-2, "{page}: {mean} {p99}");
        assert!(number("/worst_logit_difference") > 0.0);
    }
    let memory = |what: &str| report["server_memory_bytes"][what].as_f64().unwrap();
    // Weights and compact tables: 0.1 and 1.05 GB.
    assert!(memory("peak") > 3e8 && memory("anonymous") < 3.2e9);
}
