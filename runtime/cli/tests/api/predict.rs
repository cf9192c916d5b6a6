//! `/v1/predict`: the models of `testdata/classical`, here and at a server.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client_support::{Serving, change_first_column, sotto};
use crate::endpoint::{Endpoint, chat, with};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/classical").join(name)
}

fn endpoint(predictors: &[&str]) -> Endpoint {
    let mut arguments = vec!["--no-chat"];
    predictors.iter().for_each(|predictor| arguments.extend(["--predictor", predictor]));
    Endpoint::with(&arguments)
}

/// Names and rows of a table; null where a cell is empty.
fn table(name: &str) -> (Vec<String>, Vec<Vec<Value>>) {
    let text = std::fs::read_to_string(data(&format!("{name}.csv"))).unwrap();
    let mut lines = text.lines();
    let names = lines.next().unwrap().split(',').map(ToOwned::to_owned).collect();
    let cell = |cell: &str| cell.parse::<f64>().map_or(Value::Null, |number| json!(number));
    (names, lines.map(|line| line.split(',').map(cell).collect()).collect())
}

fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(data(&format!("{name}.expected.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn compare(answer: &Value, name: &str) {
    let expected = expected(name);
    let numbers = |value: &Value| value.as_str().map_or_else(|| value.as_f64(), |text| text.parse().ok());
    let of = |value: &Value| value.as_array().unwrap().iter().map(numbers).collect::<Vec<_>>();
    assert_eq!(of(&answer["predictions"]), of(&expected["predictions"]), "{name}");
    let rows = |value: &Value| serde_json::from_value::<Vec<Vec<f64>>>(value.clone()).unwrap();
    let (got, wanted) = (rows(&answer["probabilities"]), rows(&expected["probabilities"]));
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().flatten().zip(wanted.iter().flatten()) {
        assert!((got - wanted).abs() < 1e-5, "{name}: {got} is not {wanted}");
    }
}

fn split(model: &str, to: &Path) {
    let split = sotto().arg("split").arg(data(model)).arg("--out").arg(to).output().unwrap();
    assert!(split.status.success(), "{split:?}");
}

#[test]
fn rows_are_arrays_or_objects_and_predicted_as_the_library_does() {
    let dir = tempfile::tempdir().unwrap();
    split("xgb-binary.json", dir.path());
    let server = Serving::start(dir.path());
    let (remote, here) = (format!("remote={}", server.connect), data("lgb-binary.txt"));
    let endpoint = endpoint(&[&remote, here.to_str().unwrap()]);
    // The first predictor answers if none is named: encrypted, at the server.
    let (_, rows) = table("xgb-binary");
    let answer = endpoint.ask("/predict", &json!({ "rows": rows }));
    compare(&answer, "xgb-binary");
    assert_eq!((&answer["model"], &answer["usage"]["rows"]), (&json!("remote"), &json!(rows.len())));
    assert_eq!(answer["classes"], json!(["0", "1"]));
    // By name in another order, and with a column that the model does not know.
    let (names, rows) = table("lgb-binary");
    let object = |row: &Vec<Value>| {
        let cells = names.iter().zip(row).rev().map(|(name, cell)| (name.clone(), cell.clone()));
        Value::Object(cells.chain([("note".to_owned(), json!("text"))]).collect())
    };
    let objects: Vec<Value> = rows.iter().map(object).collect();
    let answer = endpoint.ask("/predict", &json!({ "model": "lgb-binary", "rows": objects }));
    compare(&answer, "lgb-binary");
    assert_eq!(answer["left_out"], json!(["note"]));
    let turn = |row: &Vec<Value>| row.iter().rev().cloned().collect::<Vec<_>>();
    let columns: Vec<&String> = names.iter().rev().collect();
    let turned = json!({
        "model": "lgb-binary", "columns": columns, "rows": rows.iter().map(turn).collect::<Vec<_>>(),
    });
    compare(&endpoint.ask("/predict", &turned), "lgb-binary");
    let without = endpoint.ask("/predict", &with(turned, json!({ "proba": false })));
    assert_eq!(without.get("probabilities"), None);
    // What is offered, with features once it is open.
    let listed: Value = endpoint.get("/v1/models/lgb-binary").json().unwrap();
    assert_eq!((&listed["features"], &listed["classes"]), (&json!(names), &json!(["0", "1"])));
    let status: Value = endpoint.get("/ps").json().unwrap();
    assert_eq!(status["models"][1], json!({ "name": "remote", "state": "loaded" }));
    // There is no chat model.
    let refused = endpoint.post("/chat/completions", &chat("Hello"));
    assert_eq!(refused.status(), 404);
}

#[test]
fn what_does_not_fit_is_named() {
    let (linear, trees) = (data("linear.onnx"), data("lgb-binary.txt"));
    let endpoint = endpoint(&[linear.to_str().unwrap(), &format!("trees={}", trees.display())]);
    let (names, rows) = table("linear");
    let row = &rows[0];
    let changed = |cell: Value| {
        let mut row = row.clone();
        row[3] = cell;
        json!([rows[1], row])
    };
    for (body, param, says) in [
        (json!({}), "rows", "must be an array"),
        (json!({ "rows": [row[..5]] }), "rows[0]", "one per feature, got 5"),
        (json!({ "rows": changed(json!("green")) }), "rows[1][3]", "must be a number"),
        (json!({ "rows": changed(Value::Null) }), "rows[1][3]", "missing values"),
        (json!({ "rows": [{ "f0": 1 }] }), "rows[0].f1", "is not there"),
        (json!({ "rows": [row], "columns": ["a", "b"] }), "columns", "not among them: f0"),
        (json!({ "rows": [row], "proba": true }), "proba", "probabilities"),
        (json!({ "rows": [[1]], "model": "trees", "columns": ["age"] }), "columns", "1 columns"),
    ] {
        let response = endpoint.post("/predict", &body);
        assert_eq!(response.status(), 400, "{body}");
        let error = response.json::<Value>().unwrap()["error"].clone();
        assert_eq!(error["param"], param, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says) && !message.contains("green"), "{error}");
    }
    let unknown = endpoint.post("/predict", &json!({ "model": "other", "rows": [row] }));
    assert_eq!(unknown.status(), 404);
    let error = unknown.json::<Value>().unwrap()["error"].clone();
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    // It goes on serving; values come without classes.
    let answer = endpoint.ask("/predict", &json!({ "rows": [row], "columns": names }));
    assert_eq!((answer["predictions"].as_array().unwrap().len(), answer.get("classes")), (1, None));
    assert_eq!(endpoint.ask("/predict", &json!({ "rows": [] }))["predictions"], json!([]));
}

#[test]
fn predictors_that_cannot_be_are_refused_at_start() {
    let file = data("linear.onnx");
    let file = file.to_str().unwrap();
    for (arguments, says) in [
        (vec!["--predictor", "nowhere.json"], "nowhere.json"),
        (vec!["--predictor", file, "--predictor", file], "two models called \"linear\""),
        (vec!["--predictor", "sotto://127.0.0.1:1/?pin=00"], "needs a name"),
        (vec!["--no-chat", "--also", "smollm2-135m"], "--also"),
    ] {
        let mut command = sotto();
        command.args(["api", "--listen", "127.0.0.1:0", "--backend", "int8", "--no-chat", "--quiet"]);
        let arguments = arguments.into_iter().filter(|argument| *argument != "--no-chat");
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{output:?}");
    }
}

#[test]
fn a_lying_server_is_named_for_good() {
    let dir = tempfile::tempdir().unwrap();
    split("xgb-binary.json", dir.path());
    change_first_column(&dir.path().join("server/plain"), "leaves");
    let server = Serving::start(dir.path());
    let endpoint = endpoint(&[&format!("remote={}", server.connect)]);
    let (_, rows) = table("xgb-binary");
    for _ in 0..2 {
        // Not a status that clients try again by themselves.
        let response = endpoint.post("/predict", &json!({ "rows": rows }));
        assert_eq!(response.status(), 424);
        let body: Value = response.json().unwrap();
        assert_eq!((&body["error"]["code"], body.get("predictions")), (&json!("inexact"), None));
    }
}
