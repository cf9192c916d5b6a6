//! LightGBM's text format (`Booster.save_model("model.txt")`), version 3 and 4.
//!
//! A value is compared in f64; up to the threshold goes left. The bits of `decision_type` are those of LightGBM's
//! `tree.h`: 1 categorical, 2 missing goes left, and above them what is missing: 0 nothing, 1 zero, 2 NaN.

use super::part::Model;
use super::trees::{Ensemble, Missing, Node, Precision, Tree};
use super::{MAX_FEATURES, MAX_OUTPUTS, Output};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Whether a text looks like one of these files.
pub(super) fn is_one(text: &[u8]) -> bool {
    text.starts_with(b"tree\n") || text.starts_with(b"tree\r\n")
}

/// `key=value` lines.
struct Section<'a> {
    path: &'a Path,
    name: String,
    values: HashMap<&'a str, &'a str>,
}

impl<'a> Section<'a> {
    fn new(path: &'a Path, name: impl Into<String>) -> Self {
        Self { path, name: name.into(), values: HashMap::new() }
    }

    fn wrong(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::malformed(self.path, format!("{}: {key}", self.name), reason.into())
    }

    fn text(&self, key: &str) -> Result<&'a str> {
        self.values.get(key).copied().ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn number(&self, key: &str) -> Result<usize> {
        let text = self.text(key)?;
        text.trim().parse().map_err(|_| self.wrong(key, format!("expected a number, got {text:?}")))
    }

    fn list<T: std::str::FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>> {
        let list: std::result::Result<Vec<T>, _> =
            self.text(key)?.split_whitespace().map(str::parse).collect();
        let list = list.map_err(|_| self.wrong(key, "holds something that is not a number"))?;
        if list.len() == count {
            Ok(list)
        } else {
            Err(self.wrong(key, format!("expected {count}, got {}", list.len())))
        }
    }
}

/// Reads a file's text; `path` is for messages.
///
/// # Errors
/// If it is damaged, or asks for what is not supported: categorical splits, linear leaves, unknown objectives.
pub(super) fn read(path: &Path, name: &str, text: &[u8]) -> Result<Model> {
    let text = std::str::from_utf8(text).map_err(|source| Error::malformed_by(path, "text", source))?;
    let mut header = Section::new(path, "header");
    let mut trees: Vec<Section<'_>> = Vec::new();
    let mut averaged = false;
    let mut ended = false;
    for line in text.lines().map(str::trim) {
        match line.split_once('=') {
            Some(("Tree", index)) => trees.push(Section::new(path, format!("tree {index}"))),
            Some((key, value)) => {
                let section = trees.last_mut().unwrap_or(&mut header);
                section.values.insert(key, value);
            }
            None if line == "average_output" => averaged = true,
            None if line == "end of trees" => {
                ended = true;
                break;
            }
            None => {}
        }
    }
    if !ended {
        return Err(Error::malformed(path, "end of trees", "is missing: the file is cut off"));
    }
    let names: Vec<String> = header.text("feature_names")?.split_whitespace().map(str::to_owned).collect();
    let features = header.number("max_feature_idx")?.saturating_add(1);
    if features > MAX_FEATURES || names.len() != features {
        let reason =
            format!("expected {features} names of up to {MAX_FEATURES} features, got {}", names.len());
        return Err(header.wrong("feature_names", reason));
    }
    let sums = header.number("num_tree_per_iteration")?;
    if !(1..=MAX_OUTPUTS).contains(&sums) {
        return Err(
            header.wrong("num_tree_per_iteration", format!("expected 1 to {MAX_OUTPUTS}, got {sums}"))
        );
    }
    if trees.is_empty() || !trees.len().is_multiple_of(sums) {
        return Err(header.wrong("trees", format!("{} trees for {sums} sums", trees.len())));
    }
    let (output, sharpness) = output(&header)?;
    let labels = match output {
        Output::Logistic => vec!["0".to_owned(), "1".to_owned()],
        _ if output.is_classifier() => (0..sums).map(|class| class.to_string()).collect(),
        _ => Vec::new(),
    };
    // The mean of the trees of each sum, or their sum; a sigmoid's sharpness is one more factor.
    let factor = if averaged { sharpness * sums as f64 / trees.len() as f64 } else { sharpness };
    let mut missing = vec![None; features];
    let trees = trees
        .iter()
        .enumerate()
        .map(|(index, section)| tree(section, index % sums, factor, &mut missing))
        .collect::<Result<Vec<_>>>()?;
    let model = Ensemble {
        name: name.to_owned(),
        features: names,
        missing: missing.into_iter().map(|missing| missing.unwrap_or(Missing::Zero)).collect(),
        precision: Precision::Double,
        trees,
        base: vec![0.0; sums],
        output,
        labels,
    };
    model.validate()?;
    Ok(Model::Trees(model))
}

/// What the sums mean, and what they are multiplied by first.
fn output(header: &Section<'_>) -> Result<(Output, f64)> {
    let objective = header.values.get("objective").copied().unwrap_or("regression");
    let mut words = objective.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let options: HashMap<&str, &str> = words.filter_map(|word| word.split_once(':')).collect();
    let sharpness = match options.get("sigmoid") {
        None => 1.0,
        Some(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            _ => return Err(header.wrong("objective", format!("sigmoid:{text}"))),
        },
    };
    Ok(match kind {
        "binary" => (Output::Logistic, sharpness),
        "multiclass" => (Output::Softmax, 1.0),
        "multiclassova" => (Output::LogisticEach, sharpness),
        "regression" if objective.contains("sqrt") => {
            return Err(header.wrong("objective", "the square root of targets (reg_sqrt) is not supported"));
        }
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" | "lambdarank"
        | "rank_xendcg" => (Output::Values, 1.0),
        "poisson" | "gamma" | "tweedie" => (Output::Exponential, 1.0),
        "cross_entropy" => (Output::Logistic, 1.0),
        other => return Err(header.wrong("objective", format!("{other:?} is not supported"))),
    })
}

fn tree(section: &Section<'_>, sum: usize, factor: f64, missing: &mut [Option<Missing>]) -> Result<Tree> {
    let leaves = section.number("num_leaves")?;
    if leaves == 0 {
        return Err(section.wrong("num_leaves", "expected at least 1"));
    }
    if section.values.get("num_cat").is_some_and(|text| text.trim() != "0") {
        let advice = "categorical splits are not supported; encode categories as numbers before training";
        return Err(section.wrong("num_cat", advice));
    }
    if section.values.get("is_linear").is_some_and(|text| text.trim() != "0") {
        return Err(section.wrong("is_linear", "linear leaves are not supported"));
    }
    let leaf = |value: f64| Node::Leaf(vec![(sum, value * factor)]);
    let values: Vec<f64> = section.list("leaf_value", leaves)?;
    let splits = leaves - 1;
    if splits == 0 {
        return Ok(vec![leaf(values[0])]);
    }
    let features: Vec<usize> = section.list("split_feature", splits)?;
    let thresholds: Vec<f64> = section.list("threshold", splits)?;
    let decisions: Vec<u8> = section.list("decision_type", splits)?;
    let left: Vec<i64> = section.list("left_child", splits)?;
    let right: Vec<i64> = section.list("right_child", splits)?;
    // Splits first, then leaves: a negative child is the complement of a leaf's index.
    let child = |index: i64| {
        let place = if index >= 0 { Some(index as usize) } else { splits.checked_add(!index as usize) };
        place
            .filter(|&place| place < splits + leaves)
            .ok_or_else(|| section.wrong("left_child", format!("{index}")))
    };
    let mut nodes = Vec::with_capacity(splits + leaves);
    for index in 0..splits {
        let (feature, decision) = (features[index], decisions[index]);
        if decision & 1 == 1 {
            return Err(section.wrong("decision_type", "categorical splits are not supported"));
        }
        let kind = match (decision >> 2) & 3 {
            0 => Missing::Zero,
            1 => Missing::DirectedWithZero,
            _ => Missing::Directed,
        };
        let slot = missing
            .get_mut(feature)
            .ok_or_else(|| section.wrong("split_feature", format!("there is no feature {feature}")))?;
        if slot.replace(kind).is_some_and(|other| other != kind) {
            return Err(section.wrong("decision_type", format!("feature {feature} is missing in two ways")));
        }
        nodes.push(Node::Split {
            feature,
            edge: thresholds[index].next_up(),
            missing_right: decision & 2 == 0,
            left: child(left[index])?,
            right: child(right[index])?,
        });
    }
    nodes.extend(values.into_iter().map(leaf));
    Ok(nodes)
}
