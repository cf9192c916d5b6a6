//! `sotto predict` as its users run it: real servers, the models of `testdata/classical`, and tables that do not fit.

mod client_support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use client_support::{Serving, change_first_column, errors, json, sotto, with_input};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/classical").join(name)
}

fn predict(model: &str, input: &Path, more: &[&str]) -> Output {
    let mut command = sotto();
    command
        .arg("predict")
        .arg("--model")
        .arg(data(model))
        .arg("--input")
        .arg(input)
        .arg("--quiet")
        .args(more);
    command.output().unwrap()
}

fn expected(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(data(&format!("{name}.expected.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Labels as numbers, which the expectations hold.
fn numbers(report: &serde_json::Value) -> Vec<f64> {
    let cells = report["predictions"].as_array().unwrap().iter();
    cells
        .map(|cell| cell.as_str().map_or_else(|| cell.as_f64().unwrap(), |text| text.parse().unwrap()))
        .collect()
}

fn close(got: &serde_json::Value, wanted: &serde_json::Value, tolerance: f64) {
    let rows = |value: &serde_json::Value| serde_json::from_value::<Vec<Vec<f64>>>(value.clone()).unwrap();
    let (got, wanted) = (rows(got), rows(wanted));
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().flatten().zip(wanted.iter().flatten()) {
        assert!((got - wanted).abs() <= tolerance, "{got} is not {wanted}");
    }
}

#[test]
fn encrypted_predictions_are_those_of_the_library() {
    for (name, file, tolerance) in [
        ("xgb-digits", "xgb-digits.json", 1e-6),
        ("lgb-binary", "lgb-binary.txt", 1e-6),
        ("mlp", "mlp.onnx", 1e-3),
    ] {
        let output = predict(file, &data(&format!("{name}.csv")), &["--json", "--proba"]);
        assert!(output.status.success(), "{name}: {}", errors(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
        let report = json(&output);
        let expected = expected(name);
        let wanted: Vec<f64> = serde_json::from_value(expected["predictions"].clone()).unwrap();
        assert_eq!(numbers(&report), wanted, "{name}");
        close(&report["probabilities"], &expected["probabilities"], tolerance);
        // The rows went to a server, and in few passes.
        assert!(
            report["bytes"]["up"].as_u64().unwrap() > 0 && report["round_trips"].as_u64().unwrap() <= 6,
            "{report}"
        );
    }
}

#[test]
fn a_server_elsewhere_predicts_and_chats_with_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let split =
        sotto().arg("split").arg(data("xgb-binary.json")).arg("--out").arg(dir.path()).output().unwrap();
    assert!(split.status.success(), "{}", errors(&split));
    assert!(String::from_utf8_lossy(&split.stdout).contains("plain"), "{split:?}");
    let server = Serving::start(dir.path());
    let cache = tempfile::tempdir().unwrap();
    let output = sotto()
        .env("SOTTO_CACHE", cache.path())
        .args(["predict", "--quiet", "--proba", "--server", &server.connect, "--input"])
        .arg(data("xgb-binary.csv"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("prediction,p_0,p_1"));
    let wanted: Vec<f64> = serde_json::from_value(expected("xgb-binary")["predictions"].clone()).unwrap();
    let got: Vec<f64> = lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(got, wanted);
    let chat = sotto()
        .env("SOTTO_CACHE", cache.path())
        .args(["chat", "--quiet", "--prompt", "Hello", "--server", &server.connect])
        .output()
        .unwrap();
    assert_eq!(chat.status.code(), Some(2), "{}", errors(&chat));
    assert!(errors(&chat).contains("xgb-binary"), "{}", errors(&chat));
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let table = std::fs::read_to_string(data("lgb-regression.csv")).unwrap();
    let turned: Vec<String> = table
        .lines()
        .enumerate()
        .map(|(line, cells)| {
            let mut cells: Vec<&str> = cells.split(',').collect();
            cells.reverse();
            cells.insert(3, if line == 0 { "note" } else { "\"a, b\"" });
            cells.join(",")
        })
        .collect();
    let path = dir.path().join("turned.csv");
    std::fs::write(&path, format!("\u{feff}{}\r\n", turned.join("\r\n"))).unwrap();
    let run = |input: &Path| {
        let output = predict("lgb-regression.txt", input, &["--json", "--backend", "int8"]);
        assert!(output.status.success(), "{}", errors(&output));
        json(&output)["predictions"].clone()
    };
    assert_eq!(run(&path), run(&data("lgb-regression.csv")));
    let noisy = sotto()
        .args(["predict", "--backend", "int8", "--model"])
        .arg(data("lgb-regression.txt"))
        .arg("--input")
        .arg(&path)
        .output()
        .unwrap();
    assert!(errors(&noisy).contains("left out: note"), "{}", errors(&noisy));
}

#[test]
fn standard_input_and_tables_without_a_header_are_read() {
    let table = std::fs::read_to_string(data("xgb-binary.csv")).unwrap();
    let bare: String = table.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let mut command = sotto();
    command.args(["predict", "--json", "--quiet", "--backend", "int8", "--input", "-", "--model"]);
    let output = with_input(command.arg(data("xgb-binary.json")), bare.as_bytes());
    assert!(output.status.success(), "{}", errors(&output));
    let wanted: Vec<f64> = serde_json::from_value(expected("xgb-binary")["predictions"].clone()).unwrap();
    assert_eq!(numbers(&json(&output)), wanted);
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let table = |text: &str| {
        let path = dir.path().join("table.csv");
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = std::fs::read_to_string(data("linear.csv")).unwrap();
    let (head, rows) = good.split_once('\n').unwrap();
    let cell = |with: &str| {
        let row = rows.lines().next().unwrap();
        let (_, rest) = row.split_once(',').unwrap();
        format!("{head}\n{row}\n{with},{rest}\n")
    };
    for (text, code, says) in [
        (String::new(), 2, "is empty"),
        ("a,b\n1,2\n".to_owned(), 2, "f0, f1, f2"),
        (format!("{head}\n1,2\n"), 2, "line 2 has 2 cells"),
        (cell("green"), 2, "line 3, column f0: expected a number"),
        (cell(""), 2, "line 3, column f0"),
        (cell("inf"), 2, "finite"),
        (format!("f0,{head}\n"), 2, "two columns called f0"),
    ] {
        let output = predict("linear.onnx", &table(&text), &["--backend", "int8"]);
        assert_eq!(output.status.code(), Some(code), "{says}: {}", errors(&output));
        assert!(errors(&output).contains(says), "{says}: {}", errors(&output));
        assert!(!errors(&output).contains("green"), "values stay out of messages");
    }
    let run = |model: &Path, input: &Path, more: &[&str]| {
        let mut command = sotto();
        command.args(["predict", "--quiet", "--backend", "int8"]).args(more).arg("--model").arg(model);
        command.arg("--input").arg(input).output().unwrap()
    };
    let broken = dir.path().join("broken.json");
    std::fs::write(&broken, &std::fs::read(data("xgb-binary.json")).unwrap()[..2000]).unwrap();
    let nowhere = dir.path().join("nowhere.json");
    let linear = data("linear.onnx");
    for (model, input, more, code, says) in [
        (&broken, data("xgb-binary.csv"), &[][..], 6, "broken.json"),
        (&nowhere, data("xgb-binary.csv"), &[], 6, "nowhere.json"),
        (&linear, dir.path().join("nowhere.csv"), &[], 6, "nowhere.csv"),
        (&linear, data("linear.csv"), &["--proba"], 2, "--proba"),
    ] {
        let output = run(model, &input, more);
        assert_eq!(output.status.code(), Some(code), "{says}: {}", errors(&output));
        assert!(errors(&output).contains(says), "{says}: {}", errors(&output));
        assert!(output.stdout.is_empty());
    }
    // No rows: a table of nothing.
    let output = predict("linear.onnx", &table(&format!("{head}\n")), &["--backend", "int8", "--json"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(json(&output)["rows"], 0);
}

#[test]
fn a_lying_server_is_named_after_all_rows_were_sent() {
    let dir = tempfile::tempdir().unwrap();
    let split =
        sotto().arg("split").arg(data("xgb-binary.json")).arg("--out").arg(dir.path()).output().unwrap();
    assert!(split.status.success(), "{}", errors(&split));
    change_first_column(&dir.path().join("server/plain"), "leaves");
    let server = Serving::start(dir.path());
    let cache = tempfile::tempdir().unwrap();
    let mut command = sotto();
    command.env("SOTTO_CACHE", cache.path());
    command.args(["predict", "--quiet", "--server", &server.connect, "--input", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // More than a client that stopped at the first lie would have read, and a pipe would hold.
    let table = std::fs::read_to_string(data("xgb-binary.csv")).unwrap();
    let (head, rows) = table.split_once('\n').unwrap();
    let long = format!("{head}\n{}", rows.repeat(1500_usize.div_ceil(rows.lines().count())));
    let mut input = child.stdin.take().unwrap();
    input.write_all(long.as_bytes()).expect("the client reads on");
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", errors(&output));
    assert!(errors(&output).contains("do not trust"), "{}", errors(&output));
    assert!(output.stdout.is_empty(), "nothing of it is printed");
}
