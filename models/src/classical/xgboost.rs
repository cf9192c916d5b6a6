//! XGBoost's JSON (`Booster.save_model("model.json")`), versions 1.0 to 3: `gbtree`, `dart` and `gblinear`.
//!
//! Format: <https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html>. A value is compared in f32; less than the
//! threshold goes left.

use super::network::{Activation, Layer, Network};
use super::part::Model;
use super::trees::{Ensemble, Missing, Node, Precision, Tree};
use super::{MAX_FEATURES, MAX_OUTPUTS, Output};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct File {
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: Booster,
    learner_model_param: ModelParam,
    objective: Objective,
}

#[derive(Deserialize)]
struct ModelParam {
    base_score: String,
    num_class: String,
    num_feature: String,
    #[serde(default)]
    num_target: Option<String>,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

#[derive(Deserialize)]
#[serde(tag = "name")]
enum Booster {
    #[serde(rename = "gbtree")]
    Trees { model: Forest },
    #[serde(rename = "dart")]
    Dart { gbtree: Inner, weight_drop: Vec<f64> },
    #[serde(rename = "gblinear")]
    Linear { model: Weights },
}

#[derive(Deserialize)]
struct Inner {
    model: Forest,
}

#[derive(Deserialize)]
struct Weights {
    weights: Vec<f64>,
}

#[derive(Deserialize)]
struct Forest {
    tree_info: Vec<usize>,
    trees: Vec<Arrays>,
}

#[derive(Deserialize)]
struct Arrays {
    default_left: Vec<Flag>,
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_conditions: Vec<f32>,
    split_indices: Vec<usize>,
    #[serde(default)]
    split_type: Vec<u8>,
    #[serde(default)]
    tree_param: TreeParam,
}

#[derive(Default, Deserialize)]
struct TreeParam {
    #[serde(default)]
    size_leaf_vector: String,
}

/// Booleans, which some versions write as numbers.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Number(u8),
}

impl Flag {
    fn is_set(self) -> bool {
        matches!(self, Self::Bool(true) | Self::Number(1..))
    }
}

/// Whether a JSON text looks like one of these files.
pub(super) fn is_one(text: &[u8]) -> bool {
    let start = &text[..text.len().min(4096)];
    start.windows(9).any(|window| window == b"\"learner\"")
}

/// Reads a file's text; `path` is for messages.
///
/// # Errors
/// If it is damaged, or asks for what is not supported: categorical splits, unknown objectives.
pub(super) fn read(path: &Path, name: &str, text: &[u8]) -> Result<Model> {
    let File { learner } =
        serde_json::from_slice(text).map_err(|source| Error::malformed_by(path, "XGBoost model", source))?;
    let number = |field: &str, text: &str| {
        let parsed = text.trim().parse::<usize>();
        parsed.map_err(|_| Error::malformed(path, field, format!("expected a number, got {text:?}")))
    };
    let features = number("num_feature", &learner.learner_model_param.num_feature)?;
    let classes = number("num_class", &learner.learner_model_param.num_class)?;
    let targets =
        learner.learner_model_param.num_target.as_deref().map_or(Ok(1), |text| number("num_target", text))?;
    if !(1..=MAX_FEATURES).contains(&features) {
        return Err(Error::malformed(
            path,
            "num_feature",
            format!("expected 1 to {MAX_FEATURES}, got {features}"),
        ));
    }
    let (output, link) = output(path, &learner.objective.name)?;
    let sums = classes.max(targets).max(1);
    if sums > MAX_OUTPUTS {
        return Err(Error::malformed(path, "num_class", format!("expected up to {MAX_OUTPUTS}, got {sums}")));
    }
    let base = base(path, &learner.learner_model_param.base_score, sums, link)?;
    let names = names(path, learner.feature_names, features)?;
    let labels = match output {
        Output::Logistic | Output::Margin => vec!["0".to_owned(), "1".to_owned()],
        _ if output.is_classifier() => (0..classes).map(|class| class.to_string()).collect(),
        _ => Vec::new(),
    };
    let (forest, drop) = match learner.gradient_booster {
        Booster::Trees { model } => (model, None),
        Booster::Dart { gbtree, weight_drop } => (gbtree.model, Some(weight_drop)),
        Booster::Linear { model } => {
            let weights = linear(path, &model.weights, features, sums, &base)?;
            return Ok(Model::Network(Network {
                name: name.to_owned(),
                features: names,
                layers: vec![weights],
                output,
                labels,
            }));
        }
    };
    let weights = drop.unwrap_or_else(|| vec![1.0; forest.trees.len()]);
    if forest.tree_info.len() != forest.trees.len() || weights.len() != forest.trees.len() {
        return Err(Error::malformed(path, "tree_info", "expected one entry per tree"));
    }
    let parts = forest.trees.iter().zip(&forest.tree_info).zip(&weights).enumerate();
    let trees = parts
        .map(|(index, ((arrays, &sum), &weight))| {
            tree(arrays, sum, weight)
                .map_err(|reason| Error::malformed(path, format!("tree {index}"), reason))
        })
        .collect::<Result<Vec<_>>>()?;
    let model = Ensemble {
        name: name.to_owned(),
        missing: vec![Missing::Directed; features],
        features: names,
        precision: Precision::Single,
        trees,
        base,
        output,
        labels,
    };
    model.validate()?;
    Ok(Model::Trees(model))
}

/// How a base score becomes a sum.
#[derive(Clone, Copy)]
enum Link {
    Identity,
    Logit,
    Log,
}

fn output(path: &Path, objective: &str) -> Result<(Output, Link)> {
    Ok(match objective {
        "binary:logistic" | "reg:logistic" => (Output::Logistic, Link::Logit),
        // The base score of these is a sum already, though their predictions are probabilities.
        "binary:logitraw" => (Output::Margin, Link::Logit),
        "binary:hinge" => (Output::Margin, Link::Identity),
        "multi:softmax" | "multi:softprob" => (Output::Softmax, Link::Identity),
        "reg:squarederror"
        | "reg:linear"
        | "reg:absoluteerror"
        | "reg:pseudohubererror"
        | "reg:squaredlogerror"
        | "reg:quantileerror"
        | "rank:pairwise"
        | "rank:ndcg"
        | "rank:map" => (Output::Values, Link::Identity),
        "count:poisson" | "reg:gamma" | "reg:tweedie" => (Output::Exponential, Link::Log),
        other => {
            return Err(Error::malformed(path, "objective", format!("{other:?} is not supported")));
        }
    })
}

/// The base score as sums: one for all, or `[a,b,..]` since version 3.
fn base(path: &Path, text: &str, sums: usize, link: Link) -> Result<Vec<f64>> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parsed: std::result::Result<Vec<f32>, _> =
        inner.split(',').map(|part| part.trim().parse::<f32>()).collect();
    let scores = parsed
        .map_err(|_| Error::malformed(path, "base_score", format!("expected numbers, got {text:?}")))?;
    let scores = if scores.len() == 1 { vec![scores[0]; sums] } else { scores };
    if scores.len() != sums {
        return Err(Error::malformed(
            path,
            "base_score",
            format!("expected 1 or {sums} numbers, got {}", scores.len()),
        ));
    }
    let linked = scores.into_iter().map(|score| {
        let score = f64::from(score);
        match link {
            Link::Identity => score,
            Link::Logit => (score / (1.0 - score)).ln(),
            Link::Log => score.ln(),
        }
    });
    let base: Vec<f64> = linked.collect();
    match base.iter().all(|base| base.is_finite()) {
        true => Ok(base),
        false => {
            Err(Error::malformed(path, "base_score", format!("{text} is out of range for this objective")))
        }
    }
}

fn names(path: &Path, names: Vec<String>, features: usize) -> Result<Vec<String>> {
    match names.len() {
        0 => Ok((0..features).map(|index| format!("f{index}")).collect()),
        count if count == features => Ok(names),
        count => {
            Err(Error::malformed(path, "feature_names", format!("expected {features} or none, got {count}")))
        }
    }
}

fn tree(arrays: &Arrays, sum: usize, weight: f64) -> std::result::Result<Tree, String> {
    let count = arrays.left_children.len();
    let lengths = [
        arrays.right_children.len(),
        arrays.split_conditions.len(),
        arrays.split_indices.len(),
        arrays.default_left.len(),
    ];
    if lengths.iter().any(|&length| length != count) {
        return Err(format!("arrays of different lengths: {count} and {lengths:?}"));
    }
    if arrays.split_type.iter().any(|&kind| kind != 0) {
        return Err(
            "categorical splits are not supported; encode categories as numbers before training".to_owned()
        );
    }
    if !matches!(arrays.tree_param.size_leaf_vector.as_str(), "" | "0" | "1") {
        return Err(
            "leaves with several values are not supported; train with multi_strategy one_output_per_tree"
                .to_owned(),
        );
    }
    let child = |index: i64| usize::try_from(index).map_err(|_| format!("a child {index}"));
    (0..count)
        .map(|index| {
            if arrays.left_children[index] == -1 {
                return Ok(Node::Leaf(vec![(sum, f64::from(arrays.split_conditions[index]) * weight)]));
            }
            Ok(Node::Split {
                feature: arrays.split_indices[index],
                edge: f64::from(arrays.split_conditions[index]),
                missing_right: !arrays.default_left[index].is_set(),
                left: child(arrays.left_children[index])?,
                right: child(arrays.right_children[index])?,
            })
        })
        .collect()
}

/// `weights`: features by sums, then a bias per sum.
fn linear(path: &Path, weights: &[f64], features: usize, sums: usize, base: &[f64]) -> Result<Layer> {
    if weights.len() != (features + 1) * sums {
        let expected = (features + 1) * sums;
        return Err(Error::malformed(path, "weights", format!("expected {expected}, got {}", weights.len())));
    }
    let column = |sum: usize| (0..features).map(move |feature| weights[feature * sums + sum]);
    Ok(Layer {
        inputs: features,
        weights: (0..sums).flat_map(column).collect(),
        bias: (0..sums).map(|sum| weights[features * sums + sum] + base[sum]).collect(),
        activation: Activation::Identity,
    })
}
