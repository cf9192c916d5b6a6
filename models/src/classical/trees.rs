//! Ensembles of decision trees as two rounds of exact integers.
//!
//! A feature's *code* says which of its public edges it reaches: bit `b` is 1 if `x >= edge b`. A path from the root to a
//! leaf leaves each feature an interval, so a leaf is reached if, for each feature of its path, the bit of the lower edge is
//! 1 and that of the upper edge 0. The sum of the lower bits minus that of the upper bits minus the number of lower edges is
//! then 0, and negative for every other row: one product of the encrypted code with a row of small integers per leaf. A
//! bit that is always 1 carries the constant; one bit per feature says that it is missing.

use super::digits::{Digits, is_exact, rounded};
use super::{MAX_FEATURES, MAX_OUTPUTS, Output};
use crate::limits::MAX_WIDTH;
use crate::linear::LinearBackend;
use crate::linear::quantize::{IntMatrix, QuantizedRound, RoundScales};
use crate::split::plan::{PlanKind, PlanRound, SplitPlan};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Levels of a tree.
const MAX_DEPTH: usize = 256;

/// Real edges of a feature beside which as many decoys stand.
const DECOYS_PER_EDGE: usize = 1;

/// The arithmetic in which a library compares features with thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32: XGBoost, scikit-learn, ONNX.
    Single,
    /// f64: LightGBM.
    Double,
}

/// What a missing value (NaN, an empty cell) is to a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Each split says where it goes.
    Directed,
    /// It counts as 0.
    Zero,
    /// Each split says where it goes, and 0 is as good as missing.
    DirectedWithZero,
}

/// A node of a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Goes right if the feature is at least `edge`, left if it is less.
    Split {
        /// Index of the feature.
        feature: usize,
        /// The least value that goes right.
        edge: f64,
        /// Whether a missing value goes right.
        missing_right: bool,
        /// Index of the left child.
        left: usize,
        /// Index of the right child.
        right: usize,
    },
    /// Adds `(sum, value)` pairs.
    Leaf(Vec<(usize, f64)>),
}

/// A tree: its nodes, the root first.
pub type Tree = Vec<Node>;

/// An ensemble as its file says it.
#[derive(Clone, Debug)]
pub struct Ensemble {
    /// The model's name.
    pub name: String,
    /// Names of the features; made up where the file has none.
    pub features: Vec<String>,
    /// What a missing value is, per feature.
    pub missing: Vec<Missing>,
    /// How values are compared.
    pub precision: Precision,
    /// The trees.
    pub trees: Vec<Tree>,
    /// Added to each sum.
    pub base: Vec<f64>,
    /// What the sums mean.
    pub output: Output,
    /// Names of the classes; empty for regression.
    pub labels: Vec<String>,
}

impl Ensemble {
    /// Checks that every index is within its bounds and every tree is one.
    ///
    /// # Errors
    /// What is wrong, and in which tree.
    pub fn validate(&self) -> Result<()> {
        let wrong = |reason: String| Err(Error::config("model", reason));
        if self.features.is_empty()
            || self.features.len() > MAX_FEATURES
            || self.missing.len() != self.features.len()
        {
            return wrong(format!("{} features; 1 to {MAX_FEATURES} are supported", self.features.len()));
        }
        let sums = self.base.len();
        let classes = if self.output.is_classifier() { self.labels.len() } else { sums };
        if sums == 0 || sums > MAX_OUTPUTS || self.output.sums(classes) != sums {
            return wrong(format!("{sums} sums for {classes} classes or targets"));
        }
        if self.trees.is_empty() || self.base.iter().any(|base| !base.is_finite()) {
            return wrong("no trees, or a base score that is not finite".to_owned());
        }
        for (index, tree) in self.trees.iter().enumerate() {
            self.check_tree(tree)
                .map_err(|reason| Error::config("model", format!("tree {index}: {reason}")))?;
        }
        Ok(())
    }

    fn check_tree(&self, tree: &Tree) -> std::result::Result<(), String> {
        let mut seen = vec![false; tree.len()];
        let mut open = vec![(0, 0)];
        while let Some((index, depth)) = open.pop() {
            let node = tree.get(index).ok_or_else(|| format!("there is no node {index}"))?;
            if std::mem::replace(&mut seen[index], true) {
                return Err(format!("node {index} has two parents"));
            }
            if depth > MAX_DEPTH {
                return Err(format!("more than {MAX_DEPTH} levels"));
            }
            match node {
                Node::Split { feature, edge, left, right, .. } => {
                    if *feature >= self.features.len() {
                        return Err(format!(
                            "node {index} asks for feature {feature} of {}",
                            self.features.len()
                        ));
                    }
                    if edge.is_nan() {
                        return Err(format!("node {index} has a threshold that is not a number"));
                    }
                    open.extend([(*left, depth + 1), (*right, depth + 1)]);
                }
                Node::Leaf(values) => {
                    if let Some((sum, value)) =
                        values.iter().find(|(sum, value)| *sum >= self.base.len() || !value.is_finite())
                    {
                        return Err(format!("leaf {index} adds {value} to sum {sum} of {}", self.base.len()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The sums for a row of features, in the clear: a walk through each tree.
    ///
    /// # Panics
    /// If there is not one value per feature, or [`validate`](Self::validate) would fail.
    pub fn sums(&self, row: &[f64]) -> Vec<f64> {
        assert_eq!(row.len(), self.features.len(), "values of a row");
        let mut sums = self.base.clone();
        for tree in &self.trees {
            let mut index = 0;
            loop {
                match &tree[index] {
                    Node::Split { feature, edge, missing_right, left, right } => {
                        let value = read(row[*feature], self.missing[*feature], self.precision);
                        let goes_right = value.map_or(*missing_right, |value| value >= *edge);
                        index = if goes_right { *right } else { *left };
                    }
                    Node::Leaf(values) => {
                        values.iter().for_each(|(sum, value)| sums[*sum] += value);
                        break;
                    }
                }
            }
        }
        sums
    }
}

/// The value that splits see; `None` if it is missing to them.
fn read(value: f64, missing: Missing, precision: Precision) -> Option<f64> {
    /// What LightGBM takes for zero.
    const ZERO: f64 = 1e-35;
    let value = match precision {
        Precision::Single => f64::from(value as f32),
        Precision::Double => value,
    };
    match missing {
        Missing::Directed => (!value.is_nan()).then_some(value),
        Missing::Zero => Some(if value.is_nan() { 0.0 } else { value }),
        Missing::DirectedWithZero => (!value.is_nan() && value.abs() > ZERO).then_some(value),
    }
}

/// A feature as the client codes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coded {
    /// Its name.
    pub name: String,
    /// What a missing value is.
    pub missing: Missing,
    /// The edges, ascending, as the bits of f64s: a number in JSON may come back as its neighbour.
    edges: Vec<u64>,
}

/// The client's part of an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trees {
    features: Vec<Coded>,
    precision: Precision,
    trees: usize,
    leaves: usize,
    digits: Digits,
    /// Per sum, the bits of its scale.
    scales: Vec<u64>,
    /// Per sum, the bits of what is added.
    base: Vec<u64>,
}

/// What splitting an ensemble gives.
pub(super) struct SplitTrees {
    pub(super) client: Trees,
    pub(super) plan: SplitPlan,
    pub(super) rounds: Vec<QuantizedRound>,
}

/// What a path leaves of a feature.
#[derive(Clone, Copy, Debug)]
struct Interval {
    /// The largest edge that must be reached.
    lower: Option<usize>,
    /// The smallest edge that must not be reached.
    upper: Option<usize>,
    /// Whether a missing value takes this path.
    missing: bool,
}

/// A leaf with the way to it.
struct Leaf<'a> {
    path: BTreeMap<usize, Interval>,
    values: &'a [(usize, f64)],
}

/// Splits an ensemble. `random` shuffles the leaves and draws the decoys.
///
/// # Errors
/// If it is not valid, or too large: [`MAX_WIDTH`] bits and leaves.
pub(super) fn split(model: &Ensemble, random: &mut impl FnMut() -> u64) -> Result<SplitTrees> {
    model.validate()?;
    let edges = edges(model, random);
    let mut first = Vec::with_capacity(edges.len());
    let mut bits = 1;
    for (edges, missing) in edges.iter().zip(&model.missing) {
        first.push(bits);
        bits += edges.len() + usize::from(has_missing(edges, *missing));
    }
    let mut leaves = Vec::new();
    for tree in &model.trees {
        paths(model, tree, &edges, &mut leaves);
    }
    for (what, got) in [("bin edges", bits), ("leaves", leaves.len())] {
        if got > MAX_WIDTH {
            let reason =
                format!("{got} {what}, at most {MAX_WIDTH} are supported; use fewer or shallower trees");
            return Err(Error::config("model", reason));
        }
    }
    for index in (1..leaves.len()).rev() {
        leaves.swap(index, (random() % (index as u64 + 1)) as usize);
    }
    let conditions = conditions(&leaves, &edges, model, &first, bits)?;
    let (digits, scales, values) = values(model, &leaves)?;
    let sums = model.base.len();
    let plan = SplitPlan {
        kind: PlanKind::Plain,
        rounds: vec![
            PlanRound::new("conditions", bits, [("leaves".to_owned(), leaves.len(), 0..bits)]),
            PlanRound::new(
                "values",
                leaves.len(),
                [("sums".to_owned(), sums * digits.count, 0..leaves.len())],
            ),
        ],
    };
    plan.validate()?;
    let features =
        model.features.iter().zip(&model.missing).zip(&edges).map(|((name, missing), edges)| Coded {
            name: name.clone(),
            missing: *missing,
            edges: edges.iter().map(|edge| edge.to_bits()).collect(),
        });
    let client = Trees {
        features: features.collect(),
        precision: model.precision,
        trees: model.trees.len(),
        leaves: leaves.len(),
        digits,
        scales: scales.iter().map(|scale| scale.to_bits()).collect(),
        base: model.base.iter().map(|base| base.to_bits()).collect(),
    };
    Ok(SplitTrees { client, plan, rounds: vec![conditions, values] })
}

/// Whether a feature has a bit for missing values.
fn has_missing(edges: &[f64], missing: Missing) -> bool {
    !edges.is_empty() && missing != Missing::Zero
}

/// Per feature, its edges and decoys between and around them, ascending.
fn edges(model: &Ensemble, random: &mut impl FnMut() -> u64) -> Vec<Vec<f64>> {
    let mut edges = vec![Vec::new(); model.features.len()];
    for node in model.trees.iter().flatten() {
        // A pruned tree keeps nodes that nothing leads to, with whatever they held.
        if let Node::Split { feature, edge, .. } = node
            && let Some(edges) = edges.get_mut(*feature)
            && !edge.is_nan()
        {
            edges.push(*edge);
        }
    }
    for edges in &mut edges {
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let finite: Vec<f64> = edges.iter().copied().filter(|edge| edge.is_finite()).collect();
        let (Some(&low), Some(&high)) = (finite.first(), finite.last()) else { continue };
        // A single edge says nothing of a feature's range; its own size is as good a guess as any.
        let width = if high > low { high - low } else { low.abs().max(1.0) };
        for _ in 0..finite.len() * DECOYS_PER_EDGE {
            let unit = (random() >> 11) as f64 / (1u64 << 53) as f64;
            let decoy = low - 0.1 * width + 1.2 * width * unit;
            edges.push(match model.precision {
                Precision::Single => f64::from(decoy as f32),
                Precision::Double => decoy,
            });
        }
        edges.sort_by(f64::total_cmp);
        edges.dedup();
    }
    edges
}

/// Appends the leaves of a tree with the ways to them.
fn paths<'a>(model: &Ensemble, tree: &'a Tree, edges: &[Vec<f64>], out: &mut Vec<Leaf<'a>>) {
    let mut open = vec![(0, BTreeMap::new())];
    while let Some((index, path)) = open.pop() {
        match &tree[index] {
            Node::Leaf(values) => out.push(Leaf { path, values }),
            Node::Split { feature, edge, missing_right, left, right } => {
                let found = edges[*feature].partition_point(|other| other < edge);
                let at = |right: bool| {
                    let mut path: BTreeMap<usize, Interval> = path.clone();
                    let interval =
                        path.entry(*feature).or_insert(Interval { lower: None, upper: None, missing: true });
                    interval.missing &= right == *missing_right && model.missing[*feature] != Missing::Zero;
                    if right {
                        interval.lower = interval.lower.max(Some(found));
                    } else {
                        interval.upper = Some(interval.upper.map_or(found, |upper| upper.min(found)));
                    }
                    path
                };
                let (to_left, to_right) = (at(false), at(true));
                open.push((*left, to_left));
                open.push((*right, to_right));
            }
        }
    }
}

/// The first round: per leaf, 0 for the codes that reach it, and less for all others.
fn conditions(
    leaves: &[Leaf<'_>],
    edges: &[Vec<f64>],
    model: &Ensemble,
    first: &[usize],
    bits: usize,
) -> Result<QuantizedRound> {
    let mut weights = vec![0i8; leaves.len() * bits];
    let (mut largest, mut longest) = (0u64, 0);
    for (leaf, row) in leaves.iter().zip(weights.chunks_exact_mut(bits)) {
        let mut lower = 0i32;
        for (feature, interval) in &leaf.path {
            let missing = first[*feature] + edges[*feature].len();
            let has_missing = has_missing(&edges[*feature], model.missing[*feature]);
            if let Some(edge) = interval.lower {
                row[first[*feature] + edge] += 1;
                lower += 1;
                // All bits of a missing value are 0, so it fails here unless it is let through.
                if interval.missing {
                    row[missing] += 1;
                }
            } else if has_missing && !interval.missing {
                row[missing] -= 1;
            }
            if let Some(edge) = interval.upper {
                row[first[*feature] + edge] -= 1;
            }
        }
        row[0] = i8::try_from(-lower).map_err(|_| {
            Error::config("model", format!("a path with {lower} lower edges; at most 127 are supported"))
        })?;
        let square: u64 = row.iter().map(|&weight| u64::from(weight.unsigned_abs()).pow(2)).sum();
        largest = largest.max(square);
        longest = longest.max(leaf.path.len());
    }
    let norm = (largest as f64).sqrt();
    if !is_exact(norm, (bits as f64).sqrt()) {
        return Err(Error::config(
            "model",
            format!("paths over {longest} features and {bits} edges are too long to be exact"),
        ));
    }
    Ok(round(IntMatrix { rows: leaves.len(), cols: bits, weights }, norm))
}

/// The second round: the digits of the leaves' values, and the scale of each sum.
fn values(model: &Ensemble, leaves: &[Leaf<'_>]) -> Result<(Digits, Vec<f64>, QuantizedRound)> {
    let sums = model.base.len();
    let mut largest = vec![0f64; sums];
    let mut counts = vec![0usize; sums];
    for (sum, value) in leaves.iter().flat_map(|leaf| leaf.values) {
        largest[*sum] = largest[*sum].max(value.abs());
        counts[*sum] += 1;
    }
    let row = counts.into_iter().max().unwrap_or(0).max(1);
    let digits = Digits::for_rows(row, (model.trees.len() as f64).sqrt())?;
    if model.output.is_classifier() {
        // One scale for all classes: equal scores stay equal, so that ties are decided as the library decides them.
        let most = largest.iter().copied().fold(0f64, f64::max);
        largest.fill(most);
    }
    let scales: Vec<f64> = largest.iter().map(|&largest| digits.scale(largest)).collect();
    let columns = leaves.len();
    let mut weights = vec![0i8; sums * digits.count * columns];
    for (column, leaf) in leaves.iter().enumerate() {
        for (sum, value) in leaf.values {
            for (digit, weight) in digits.of(*value, scales[*sum]).into_iter().enumerate() {
                weights[(sum * digits.count + digit) * columns + column] = weight;
            }
        }
    }
    let square =
        weights.chunks_exact(columns).map(|row| row.iter().map(|&w| i64::from(w).pow(2)).sum::<i64>());
    let norm = (square.max().unwrap_or(0) as f64).sqrt();
    Ok((digits.clone(), scales, round(IntMatrix { rows: sums * digits.count, cols: columns, weights }, norm)))
}

/// A round of integers that are worth what they are.
fn round(matrix: IntMatrix, max_row_norm: f64) -> QuantizedRound {
    let scales = RoundScales {
        column_scale: vec![1.0; matrix.cols],
        row_scale: vec![vec![1.0; matrix.rows]],
        max_row_norm,
    };
    QuantizedRound { matrices: vec![matrix], scales }
}

impl Trees {
    /// The features, in order.
    pub fn features(&self) -> impl ExactSizeIterator<Item = &str> {
        self.features.iter().map(|feature| feature.name.as_str())
    }

    /// Sums.
    pub(super) fn sums_len(&self) -> usize {
        self.base.len()
    }

    fn bits(&self) -> usize {
        let of = |feature: &Coded| {
            feature.edges.len() + usize::from(!feature.edges.is_empty() && feature.missing != Missing::Zero)
        };
        1 + self.features.iter().map(of).sum::<usize>()
    }

    /// Checks a part that comes from a file against its plan.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn validate(&self, plan: &SplitPlan) -> Result<()> {
        self.digits.validate()?;
        let shapes: Vec<(usize, usize)> =
            plan.rounds.iter().map(|round| (round.d_in, round.rows())).collect();
        let expected = [(self.bits(), self.leaves), (self.leaves, self.base.len() * self.digits.count)];
        let finite = self.scales.iter().chain(&self.base).all(|&bits| f64::from_bits(bits).is_finite());
        if shapes != expected || self.scales.len() != self.base.len() || self.base.is_empty() || !finite {
            return Err(Error::config("predictor", format!("has shapes {expected:?}, the plan {shapes:?}")));
        }
        Ok(())
    }

    /// The code of a row: 1 bit that is always set, then per feature its edges and whether it is missing.
    fn code(&self, row: &[f64]) -> Vec<f32> {
        let mut code = Vec::with_capacity(self.bits());
        code.push(1.0);
        for (feature, &value) in self.features.iter().zip(row) {
            if feature.edges.is_empty() {
                continue;
            }
            let value = read(value, feature.missing, self.precision);
            let reached = |edge: u64| value.is_some_and(|value| value >= f64::from_bits(edge));
            code.extend(feature.edges.iter().map(|&edge| f32::from(u8::from(reached(edge)))));
            if feature.missing != Missing::Zero {
                code.push(f32::from(u8::from(value.is_none())));
            }
        }
        code
    }

    /// The sums of each row, and whether all products were integers and each tree had one leaf. Both rounds of a pass are made
    /// whatever the first one says, so that what a server sees does not depend on it.
    ///
    /// # Errors
    /// Those of the backend.
    pub(super) fn predict(
        &self,
        backend: &mut dyn LinearBackend,
        rows: &[&[f64]],
    ) -> Result<(Vec<Vec<f64>>, bool)> {
        let tokens = rows.len();
        let codes: Vec<f32> = rows.iter().flat_map(|row| self.code(row)).collect();
        let counts = product(backend, 0, codes, tokens, self.bits())?;
        let (mut wrong, mut reached) = (false, vec![0f32; tokens * self.leaves]);
        for (counts, reached) in counts.chunks_exact(self.leaves).zip(reached.chunks_exact_mut(self.leaves)) {
            let (counts, doubtful) = rounded(counts);
            let mut full = 0;
            for (count, reached) in counts.iter().zip(reached) {
                *reached = f32::from(u8::from(*count == 0.0));
                full += usize::from(*count == 0.0);
            }
            wrong |= doubtful || full != self.trees;
        }
        let width = self.base.len() * self.digits.count;
        let sums = product(backend, 1, reached, tokens, self.leaves)?;
        let mut out = Vec::with_capacity(tokens);
        for sums in sums.chunks_exact(width) {
            let (sums, doubtful) = rounded(sums);
            wrong |= doubtful;
            let sums = sums.chunks_exact(self.digits.count).zip(&self.scales).zip(&self.base);
            out.push(
                sums.map(|((digits, scale), base)| {
                    f64::from_bits(*base) + self.digits.value(digits, f64::from_bits(*scale))
                })
                .collect(),
            );
        }
        Ok((out, !wrong))
    }
}

/// One round over `tokens` rows.
pub(super) fn product(
    backend: &mut dyn LinearBackend,
    round: usize,
    input: Vec<f32>,
    tokens: usize,
    width: usize,
) -> Result<Vec<f32>> {
    let input = Tensor::from_vec(input, (tokens, width), &Device::Cpu)?;
    let output = backend.round(round, &input)?.remove(0);
    Ok(output.flatten_all()?.to_vec1::<f32>()?)
}
