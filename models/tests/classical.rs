//! Predictors: what is imported and split predicts as the library that trained it.
//!
//! The models, rows and expected predictions of `testdata/classical` were made by `make.py` there.

use candle_core::Tensor;
use proptest::prelude::*;
use sotto_models::Result;
use sotto_models::classical::part::{SplitPredictor, is_predictor};
use sotto_models::classical::trees::{Ensemble, Missing, Node, Precision};
use sotto_models::classical::{Model, Output, Prediction, PredictorPart, import, split, split_to};
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::split::{LinearPart, ProtocolBinding, ServerPart};
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/classical")
}

/// Names of the models in the directory.
fn models() -> Vec<(String, PathBuf)> {
    let mut models = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if is_predictor(&path) && !name.ends_with(".expected.json") {
            models.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
        }
    }
    models.sort();
    assert_eq!(models.len(), 16, "{models:?}");
    models
}

fn rows(name: &str) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(directory().join(format!("{name}.csv"))).unwrap();
    let cell = |cell: &str| if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() };
    text.lines().skip(1).map(|line| line.split(',').map(cell).collect()).collect()
}

/// Predictions and probabilities of the library.
fn expected(name: &str) -> (Vec<serde_json::Value>, Option<Vec<Vec<f64>>>) {
    let text = std::fs::read_to_string(directory().join(format!("{name}.expected.json"))).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let probabilities = serde_json::from_value(value["probabilities"].clone()).unwrap();
    (value["predictions"].as_array().unwrap().clone(), probabilities)
}

/// Random numbers that are the same in every run.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) ^ (state << 20)
    }
}

fn backend(parts: &SplitPredictor) -> DenseBackend {
    DenseBackend::from_quantized(parts.client.plan.clone(), &parts.server).unwrap()
}

fn compare(name: &str, labels: &[String], predictions: &[Prediction], tolerance: f64) {
    let (values, probabilities) = expected(name);
    assert_eq!(values.len(), predictions.len(), "{name}");
    for (row, (value, prediction)) in values.iter().zip(predictions).enumerate() {
        match prediction {
            Prediction::Values(got) => {
                let value = value.as_f64().unwrap();
                assert!(
                    (got[0] - value).abs() <= tolerance * value.abs().max(1.0),
                    "{name} row {row}: {got:?} {value}"
                );
            }
            Prediction::Class { index, probabilities: got } => {
                let label = match value {
                    serde_json::Value::String(text) => text.clone(),
                    number => format!("{}", number.as_f64().unwrap()),
                };
                assert_eq!(labels[*index], label, "{name} row {row}");
                let wanted = &probabilities.as_ref().unwrap()[row];
                for (got, wanted) in got.as_ref().unwrap().iter().zip(wanted) {
                    assert!((got - wanted).abs() <= tolerance, "{name} row {row}: {got} {wanted}");
                }
            }
        }
    }
}

#[test]
fn predictions_are_those_of_the_library_in_clear_and_in_rounds() {
    for (name, path) in models() {
        let model = import(&path).unwrap();
        let parts = split(&model, &mut random(1)).unwrap();
        let labels = parts.client.predictor.labels().to_vec();
        let rows = rows(&name);
        let clear: Vec<Prediction> =
            rows.iter().map(|row| model.output().prediction(&model.sums(row))).collect();
        compare(&name, &labels, &clear, 1e-5);
        let pass: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let (sums, exact) = parts.client.predictor.sums(&mut backend(&parts), &pass).unwrap();
        assert!(exact, "{name}");
        let predicted: Vec<Prediction> = sums.iter().map(|sums| model.output().prediction(sums)).collect();
        // Networks compute with weights of 16 bits, trees with values of 24.
        compare(&name, &labels, &predicted, if parts.client.predictor.reads_missing() { 1e-5 } else { 3e-4 });
    }
}

#[test]
fn a_split_is_read_back_and_shuffled_anew_each_time() {
    let model = import(directory().join("xgb-binary.json")).unwrap();
    let protocol = ProtocolBinding { tau: 64, params_id: "set".into() };
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let digests = [(&one, 1), (&other, 2)]
        .map(|(dir, seed)| split_to(&model, dir.path(), &protocol, &mut random(seed)).unwrap());
    assert_ne!(digests[0], digests[1]);
    let loaded = PredictorPart::load(&one.path().join("client/plain")).unwrap();
    assert_eq!(loaded.digest, digests[0]);
    let server = ServerPart::open(one.path().join("server/plain")).unwrap();
    assert_eq!(server.manifest().family.as_str(), "trees");
    let expected = split(&model, &mut random(1)).unwrap();
    assert_eq!(loaded.part.predictor, expected.client.predictor);
    assert_eq!(loaded.part.scales, expected.client.scales);
    for (round, expected) in expected.server.iter().enumerate() {
        assert_eq!(server.round(round).unwrap(), expected.matrices);
    }
    // No leaf's value is in what the client gets.
    let file = std::fs::read_to_string(one.path().join("client/plain/predictor.json")).unwrap();
    let Model::Trees(trees) = &model else { panic!("an ensemble") };
    for node in trees.trees.iter().flatten() {
        if let Node::Leaf(values) = node {
            assert!(
                !file.contains(&values[0].1.to_bits().to_string())
                    && !file.contains(&values[0].1.to_string())
            );
        }
    }
    // A damaged part is refused.
    std::fs::write(one.path().join("client/plain/predictor.json"), file.replace("\"trees\":", "\"Trees\":"))
        .unwrap();
    assert!(PredictorPart::load(&one.path().join("client/plain")).is_err());
}

/// A server that says something else in one round.
struct Lying {
    honest: DenseBackend,
    in_round: usize,
    by: f32,
    rounds: Vec<usize>,
}

impl LinearBackend for Lying {
    fn round(&mut self, round: usize, input: &Tensor) -> Result<Vec<Tensor>> {
        self.rounds.push(round);
        let replies = self.honest.round(round, input)?;
        if round != self.in_round {
            return Ok(replies);
        }
        replies.iter().map(|reply| Ok((reply + f64::from(self.by))?)).collect()
    }

    fn begin_pass(&mut self, tokens: usize) -> Result<()> {
        self.honest.begin_pass(tokens)
    }

    fn end_pass(&mut self) {
        self.honest.end_pass();
    }
}

#[test]
fn products_that_no_model_gives_are_noticed_and_change_nothing_that_is_sent() {
    let parts = split(&import(directory().join("xgb-binary.json")).unwrap(), &mut random(1)).unwrap();
    let rows = rows("xgb-binary");
    let pass: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    for (in_round, by, fails) in [(0, 0.4, true), (1, 0.4, true), (0, 1.0, true), (0, 0.01, false)] {
        let mut lying = Lying { honest: backend(&parts), in_round, by, rounds: Vec::new() };
        let (_, exact) = parts.client.predictor.sums(&mut lying, &pass).unwrap();
        assert_eq!(exact, !fails, "{in_round} {by}");
        assert_eq!(lying.rounds, [0, 1], "what the server sees does not depend on what it said");
    }
    // A network goes on with what is no number, too.
    let parts = split(&import(directory().join("mlp.onnx")).unwrap(), &mut random(1)).unwrap();
    let rows = self::rows("mlp");
    let pass: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let mut lying = Lying { honest: backend(&parts), in_round: 0, by: f32::INFINITY, rounds: Vec::new() };
    let (_, sound) = parts.client.predictor.sums(&mut lying, &pass).unwrap();
    assert!(!sound);
    assert_eq!(lying.rounds, [0, 1, 2]);
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let trees = split(&import(directory().join("xgb-binary.json")).unwrap(), &mut random(1)).unwrap();
    let short = [0.0; 3];
    let error = trees.client.predictor.sums(&mut backend(&trees), &[&short]).unwrap_err().to_string();
    assert!(error.contains("30") && error.contains('3'), "{error}");
    let network = split(&import(directory().join("linear.onnx")).unwrap(), &mut random(1)).unwrap();
    let missing = [f64::NAN; 10];
    let error = network.client.predictor.sums(&mut backend(&network), &[&missing]).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    let (none, exact) = network.client.predictor.sums(&mut backend(&network), &[]).unwrap();
    assert!(none.is_empty() && exact);
}

/// A tree of up to `depth` levels from a list of choices.
fn tree(
    choices: &mut impl FnMut() -> u64,
    depth: usize,
    missing: &[Missing],
    nodes: &mut Vec<Node>,
) -> usize {
    let place = nodes.len();
    let choice = choices();
    if depth == 0 || choice.is_multiple_of(5) {
        nodes.push(Node::Leaf(vec![((choice % 2) as usize, (choice % 1000) as f64 / 7.0 - 70.0)]));
        return place;
    }
    nodes.push(Node::Leaf(Vec::new()));
    let feature = (choice / 5) as usize % missing.len();
    let edge = f64::from(((choice >> 12) % 9) as f32 - 4.0);
    let left = tree(choices, depth - 1, missing, nodes);
    let right = tree(choices, depth - 1, missing, nodes);
    nodes[place] = Node::Split { feature, edge, missing_right: choice & 1024 != 0, left, right };
    place
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_forest_predicts_as_a_walk_through_its_trees(seed: u64, count in 1usize..6, depth in 0usize..5) {
        let missing = vec![Missing::Directed, Missing::Zero, Missing::DirectedWithZero];
        let mut choices = random(seed);
        let trees = (0..count)
            .map(|_| {
                let mut nodes = Vec::new();
                tree(&mut choices, depth, &missing, &mut nodes);
                nodes
            })
            .collect();
        let model = Ensemble {
            name: "random".into(),
            features: vec!["a".into(), "b".into(), "c".into()],
            missing,
            precision: if seed.is_multiple_of(2) { Precision::Single } else { Precision::Double },
            trees,
            base: vec![0.5, -0.25],
            output: Output::Values,
            labels: Vec::new(),
        };
        // Values on the edges, next to them, between them, zero and missing.
        let value = |choice: u64| match choice % 5 {
            0 => f64::NAN,
            1 => (choice / 5 % 9) as f64 - 4.0,
            2 => ((choice / 5 % 9) as f64 - 4.0).next_down(),
            3 => f64::from(((choice / 5 % 9) as f32 - 4.0).next_down()),
            _ => (choice % 100) as f64 / 11.0 - 4.5,
        };
        let rows: Vec<Vec<f64>> = (0..20).map(|_| (0..3).map(|_| value(choices() / 3)).collect()).collect();
        let pass: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let expected: Vec<Vec<f64>> = rows.iter().map(|row| model.sums(row)).collect();
        let parts = split(&Model::Trees(model), &mut random(seed ^ 1)).unwrap();
        let (got, exact) = parts.client.predictor.sums(&mut backend(&parts), &pass).unwrap();
        prop_assert!(exact);
        for (row, (got, expected)) in got.iter().flatten().zip(expected.iter().flatten()).enumerate() {
            prop_assert!((got - expected).abs() <= 1e-4, "{row}: {got} is not {expected}");
        }
    }

    #[test]
    fn damaged_files_are_refused_or_read_and_never_panic(which in 0usize..16, at: usize, to: u8, cut: bool) {
        let (_, path) = models().swap_remove(which);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = to }
        let dir = tempfile::tempdir().unwrap();
        let damaged = dir.path().join(path.file_name().unwrap());
        std::fs::write(&damaged, bytes).unwrap();
        if let Ok(model) = import(&damaged) {
            // What is read can be split, or says why not.
            let _ = split(&model, &mut random(3));
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        import(&path).unwrap_err().to_string()
    };
    let xgb = std::fs::read_to_string(directory().join("xgb-binary.json")).unwrap();
    let lgb = std::fs::read_to_string(directory().join("lgb-binary.txt")).unwrap();
    let error = refused("a.json", xgb.replacen("\"split_type\":[0", "\"split_type\":[1", 1));
    assert!(error.contains("a.json") && error.contains("categorical"), "{error}");
    let error = refused("b.json", xgb.replace("binary:logistic", "survival:cox"));
    assert!(error.contains("survival:cox"), "{error}");
    let error = refused("c.txt", lgb.replacen("num_cat=0", "num_cat=2", 1));
    assert!(error.contains("tree 0") && error.contains("categorical"), "{error}");
    let error = refused("d.txt", lgb.split_once("end of trees").unwrap().0.to_owned());
    assert!(error.contains("cut off"), "{error}");
    let error = refused("e.json", "{\"a\": 1}".to_owned());
    assert!(error.contains("save_model"), "{error}");
    let error = refused("f.onnx", "not a model".to_owned());
    assert!(error.contains("f.onnx"), "{error}");
    // A tree that leads back to itself.
    let error = refused("g.json", xgb.replacen("\"left_children\":[1,", "\"left_children\":[0,", 1));
    assert!(error.contains("two parents"), "{error}");
}
