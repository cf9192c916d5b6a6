//! ONNX graphs of predictors: what skl2onnx makes of scikit-learn's trees, forests, boosting, linear models, scalers and
//! networks, and what PyTorch makes of dense networks.
//!
//! The graph is followed from its input through operators with one data input; operators that only format the answer
//! (`ZipMap`, `ArgMax`, `Cast`, ...) end it. Semantics: the ONNX specification of `ai.onnx` and `ai.onnx.ml`.

use super::network::{Activation, Layer, Network};
use super::part::Model;
use super::trees::{Ensemble, Missing, Node, Precision, Tree};
use super::{MAX_FEATURES, Output};
use crate::formats::onnx::schema::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::{Error, Result};
use prost::Message;
use std::collections::HashMap;
use std::path::Path;

/// Reads a file's bytes; `path` is for messages.
///
/// # Errors
/// If it is damaged, or uses an operator that is not supported.
pub(super) fn read(path: &Path, name: &str, bytes: &[u8]) -> Result<Model> {
    let model = ModelProto::decode(bytes).map_err(|source| Error::malformed_by(path, "protobuf", source))?;
    let graph = model.graph.ok_or_else(|| Error::malformed(path, "graph", "missing"))?;
    Graph::new(path, &graph)?.read(name)
}

struct Graph<'a> {
    path: &'a Path,
    graph: &'a GraphProto,
    initializers: HashMap<&'a str, &'a TensorProto>,
}

/// `(x - offset) * scale` before the first operator with weights, in f32 as ONNX Runtime does it.
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

/// Operators that leave numbers as they are.
const PASSING: [&str; 6] = ["Cast", "Identity", "Flatten", "Reshape", "Squeeze", "Dropout"];

impl<'a> Graph<'a> {
    fn new(path: &'a Path, graph: &'a GraphProto) -> Result<Self> {
        let mut initializers = HashMap::new();
        for tensor in &graph.initializer {
            if tensor.data_location != 0 {
                return Err(Error::malformed(path, &tensor.name, "external data is not supported"));
            }
            initializers.insert(tensor.name.as_str(), tensor);
        }
        Ok(Self { path, graph, initializers })
    }

    fn wrong(&self, what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::malformed(self.path, what.into(), reason.into())
    }

    fn read(&self, name: &str) -> Result<Model> {
        let mut inputs =
            self.graph.input.iter().filter(|input| !self.initializers.contains_key(input.name.as_str()));
        let (Some(input), None) = (inputs.next(), inputs.next()) else {
            let advice = "expected one input with all features; convert with one FloatTensorType([None, n])";
            return Err(self.wrong("graph input", advice));
        };
        let dims = input.kind.as_ref().and_then(|kind| kind.tensor.as_ref()).and_then(|t| t.shape.as_ref());
        let width = dims.and_then(|shape| shape.dim.last()).map_or(0, |dim| dim.value);
        let width = usize::try_from(width).unwrap_or(0);
        let mut at = input.name.as_str();
        let mut scaler = None;
        // Each step goes to another node, so a graph with a circle ends, too.
        for _ in 0..=self.graph.node.len() {
            let Some(node) = self.next(at) else { break };
            match node.op_type.as_str() {
                op if PASSING.contains(&op) => {}
                "Scaler" if scaler.is_none() => {
                    scaler = Some(Scaler { offset: floats(node, "offset"), scale: floats(node, "scale") });
                }
                "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => {
                    return Ok(Model::Trees(self.ensemble(name, node, width, scaler)?));
                }
                "LinearClassifier" | "LinearRegressor" => {
                    return Ok(Model::Network(self.linear(name, node, width, scaler)?));
                }
                _ => return Ok(Model::Network(self.network(name, at, width, scaler)?)),
            }
            at = node.output.first().map(String::as_str).unwrap_or_default();
        }
        Err(self.wrong("graph", "no operator with weights follows the input"))
    }

    /// The node that takes `tensor` and carries on: one whose other inputs are weights.
    fn next(&self, tensor: &str) -> Option<&'a NodeProto> {
        let takes = |node: &&NodeProto| {
            node.input.iter().any(|input| input == tensor)
                && node.input.iter().all(|input| {
                    input == tensor || input.is_empty() || self.initializers.contains_key(input.as_str())
                })
        };
        let ending =
            |node: &&NodeProto| matches!(node.op_type.as_str(), "ArgMax" | "ZipMap" | "Concat" | "Greater");
        self.graph.node.iter().find(|node| takes(node) && !ending(node))
    }

    fn names(&self, width: usize) -> Result<Vec<String>> {
        if !(1..=MAX_FEATURES).contains(&width) {
            return Err(
                self.wrong("graph input", format!("expected 1 to {MAX_FEATURES} features, got {width}"))
            );
        }
        Ok((0..width).map(|index| format!("f{index}")).collect())
    }

    fn ensemble(
        &self,
        name: &str,
        node: &NodeProto,
        width: usize,
        scaler: Option<Scaler>,
    ) -> Result<Ensemble> {
        let classifier = node.op_type == "TreeEnsembleClassifier";
        let features = ints(node, "nodes_featureids");
        let used = features.iter().copied().max().map_or(0, |largest| largest.saturating_add(1));
        let width = width.max(usize::try_from(used).unwrap_or(0));
        let (trees, of_node) = self.trees(node)?;
        let mut trees = trees;
        let prefix = if classifier { "class" } else { "target" };
        let lists = [ints(node, &format!("{prefix}_treeids")), ints(node, &format!("{prefix}_nodeids"))];
        let (ids, weights) =
            (ints(node, &format!("{prefix}_ids")), floats(node, &format!("{prefix}_weights")));
        if lists.iter().any(|list| list.len() != ids.len()) || weights.len() != ids.len() {
            return Err(self.wrong(format!("{prefix}_weights"), "lists of different lengths"));
        }
        let labels = if classifier { self.labels(node)? } else { Vec::new() };
        let mut distinct: Vec<i64> = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        // A score for one class of two.
        let single = classifier && labels.len() == 2 && distinct.len() == 1;
        let sums = match (classifier, single) {
            (true, true) => 1,
            (true, false) => labels.len(),
            (false, _) => usize::try_from(int(node, "n_targets").unwrap_or(1)).unwrap_or(0),
        };
        let average = match text(node, "aggregate_function").as_deref() {
            None | Some("SUM") => false,
            Some("AVERAGE") => true,
            Some(other) => return Err(self.wrong("aggregate_function", format!("{other} is not supported"))),
        };
        let factor = if average { 1.0 / trees.len() as f64 } else { 1.0 };
        for (index, (&id, &weight)) in ids.iter().zip(&weights).enumerate() {
            let place = (lists[0][index], lists[1][index]);
            let &(tree, leaf) = of_node
                .get(&place)
                .ok_or_else(|| self.wrong("class_nodeids", format!("no node {place:?}")))?;
            let sum = if single { 0 } else { usize::try_from(id).unwrap_or(usize::MAX) };
            match &mut trees[tree][leaf] {
                Node::Leaf(values) => values.push((sum, f64::from(weight) * factor)),
                Node::Split { .. } => {
                    return Err(self.wrong("class_nodeids", format!("node {place:?} is no leaf")));
                }
            }
        }
        let output = match (classifier, text(node, "post_transform").as_deref().unwrap_or("NONE")) {
            (false, "NONE") => Output::Values,
            (true, "NONE") if single => Output::Probability,
            (true, "NONE") => Output::Probabilities,
            (true, "LOGISTIC") if single => Output::Logistic,
            (true, "LOGISTIC") => Output::LogisticEach,
            (true, "SOFTMAX") => Output::Softmax,
            (_, other) => return Err(self.wrong("post_transform", format!("{other} is not supported"))),
        };
        let mut base: Vec<f64> = floats(node, "base_values").into_iter().map(f64::from).collect();
        if base.is_empty() {
            base = vec![0.0; sums];
        }
        if base.len() != sums {
            return Err(self.wrong("base_values", format!("expected {sums}, got {}", base.len())));
        }
        if let Some(scaler) = scaler {
            self.move_edges(&mut trees, &scaler, width)?;
        }
        let features = self.names(width)?;
        let missing = vec![Missing::Directed; width];
        let model = Ensemble {
            name: name.to_owned(),
            features,
            missing,
            precision: Precision::Single,
            trees,
            base,
            output,
            labels,
        };
        model.validate()?;
        Ok(model)
    }

    /// The trees, and where each (tree, node) of the file is.
    #[allow(clippy::type_complexity, reason = "two tables that belong together")]
    fn trees(&self, node: &NodeProto) -> Result<(Vec<Tree>, HashMap<(i64, i64), (usize, usize)>)> {
        let of_tree = ints(node, "nodes_treeids");
        let of_node = ints(node, "nodes_nodeids");
        let features = ints(node, "nodes_featureids");
        let modes = strings(node, "nodes_modes");
        let values = floats(node, "nodes_values");
        let (yes, no) = (ints(node, "nodes_truenodeids"), ints(node, "nodes_falsenodeids"));
        let tracks = ints(node, "nodes_missing_value_tracks_true");
        let count = of_tree.len();
        let lengths = [of_node.len(), features.len(), modes.len(), values.len(), yes.len(), no.len()];
        if count == 0 || lengths.iter().any(|&length| length != count) || ![0, count].contains(&tracks.len())
        {
            return Err(
                self.wrong("nodes_values", "lists of different lengths, or doubles, which are not supported")
            );
        }
        let mut places = HashMap::new();
        let mut trees: Vec<Tree> = Vec::new();
        let mut order = HashMap::new();
        for (&tree, &node) in of_tree.iter().zip(&of_node) {
            let index = *order.entry(tree).or_insert_with(|| {
                trees.push(Vec::new());
                trees.len() - 1
            });
            if places.insert((tree, node), (index, trees[index].len())).is_some() {
                return Err(self.wrong("nodes_nodeids", format!("node {node} of tree {tree} occurs twice")));
            }
            trees[index].push(Node::Leaf(Vec::new()));
        }
        for index in 0..count {
            let (tree, at) = places[&(of_tree[index], of_node[index])];
            let mode = modes[index].as_str();
            if mode == "LEAF" {
                continue;
            }
            let child = |id: i64| {
                let found = places.get(&(of_tree[index], id)).map(|place| place.1);
                found.ok_or_else(|| self.wrong("nodes_truenodeids", format!("there is no node {id}")))
            };
            let (yes, no) = (child(yes[index])?, child(no[index])?);
            let value = values[index];
            let (edge, true_right) = match mode {
                "BRANCH_LEQ" => (value.next_up(), false),
                "BRANCH_LT" => (value, false),
                "BRANCH_GTE" => (value, true),
                "BRANCH_GT" => (value.next_up(), true),
                other => return Err(self.wrong("nodes_modes", format!("{other} is not supported"))),
            };
            // A comparison with NaN is false.
            let missing_true = tracks.get(index).is_some_and(|&tracks| tracks != 0);
            let (left, right) = if true_right { (no, yes) } else { (yes, no) };
            let feature = usize::try_from(features[index]).unwrap_or(usize::MAX);
            let edge = f64::from(edge);
            trees[tree][at] =
                Node::Split { feature, edge, missing_right: missing_true == true_right, left, right };
        }
        if trees.iter().any(|tree| matches!(tree.first(), Some(Node::Leaf(_)) if tree.len() > 1)) {
            return Err(self.wrong("nodes_nodeids", "a tree does not list its root first"));
        }
        Ok((trees, places))
    }

    /// Edges of unscaled features that mean the same: the least f32 that reaches the edge when it is scaled.
    fn move_edges(&self, trees: &mut [Tree], scaler: &Scaler, width: usize) -> Result<()> {
        let (offset, scale) = self.scaler(scaler, width)?;
        for node in trees.iter_mut().flatten() {
            let Node::Split { feature, edge, .. } = node else { continue };
            let (Some(&offset), Some(&scale)) = (offset.get(*feature), scale.get(*feature)) else { continue };
            if scale <= 0.0 {
                return Err(self.wrong("Scaler", format!("a scale of {scale} for a feature of a tree")));
            }
            let reaches = |x: f32| f64::from((x - offset) * scale) >= *edge;
            // Ordered integers that stand for the f32s from -inf to inf.
            let key = |x: f32| {
                let bits = x.to_bits() as i32;
                if bits < 0 { i64::from(i32::MIN) - i64::from(bits) } else { i64::from(bits) }
            };
            let value = |key: i64| {
                let bits = if key < 0 { (i64::from(i32::MIN) - key) as i32 } else { key as i32 };
                f32::from_bits(bits as u32)
            };
            let (mut low, mut high) = (key(f32::NEG_INFINITY), key(f32::INFINITY));
            while low < high {
                let middle = low + (high - low) / 2;
                if reaches(value(middle)) { high = middle } else { low = middle + 1 }
            }
            *edge = f64::from(value(low));
        }
        Ok(())
    }

    fn scaler(&self, scaler: &Scaler, width: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let wide = |values: &[f32]| match values.len() {
            1 => Some(vec![values[0]; width]),
            count if count == width => Some(values.to_vec()),
            _ => None,
        };
        match (wide(&scaler.offset), wide(&scaler.scale)) {
            (Some(offset), Some(scale)) => Ok((offset, scale)),
            _ => Err(self.wrong("Scaler", format!("expected 1 or {width} offsets and scales"))),
        }
    }

    fn labels(&self, node: &NodeProto) -> Result<Vec<String>> {
        let numbers = ints(node, "classlabels_int64s").into_iter().chain(ints(node, "classlabels_ints"));
        let mut labels: Vec<String> = numbers.map(|label| label.to_string()).collect();
        labels.extend(strings(node, "classlabels_strings"));
        if labels.len() < 2 {
            return Err(
                self.wrong("classlabels", format!("expected two classes or more, got {}", labels.len()))
            );
        }
        Ok(labels)
    }

    fn linear(&self, name: &str, node: &NodeProto, width: usize, scaler: Option<Scaler>) -> Result<Network> {
        let classifier = node.op_type == "LinearClassifier";
        let weights: Vec<f64> = floats(node, "coefficients").into_iter().map(f64::from).collect();
        let mut bias: Vec<f64> = floats(node, "intercepts").into_iter().map(f64::from).collect();
        let labels = if classifier { self.labels(node)? } else { Vec::new() };
        let rows = if classifier {
            if bias.is_empty() { labels.len() } else { bias.len() }
        } else {
            usize::try_from(int(node, "targets").unwrap_or(1)).unwrap_or(0)
        };
        if bias.is_empty() {
            bias = vec![0.0; rows];
        }
        if rows == 0 || bias.len() != rows || weights.is_empty() || !weights.len().is_multiple_of(rows) {
            return Err(self.wrong("coefficients", format!("{} for {rows} rows", weights.len())));
        }
        let inputs = weights.len() / rows;
        if width != 0 && width != inputs {
            return Err(self.wrong("coefficients", format!("expected {width} per row, got {inputs}")));
        }
        let shares = self.graph.node.iter().any(|next| {
            next.op_type == "Normalizer" && next.input.iter().any(|input| node.output.contains(input))
        });
        let transform = text(node, "post_transform").unwrap_or_else(|| "NONE".to_owned());
        let output = match (classifier, transform.as_str()) {
            (false, "NONE") => Output::Values,
            (true, "NONE") if rows == 1 => Output::Margin,
            (true, "NONE") => Output::Margins,
            (true, "LOGISTIC") if rows == 1 => Output::Logistic,
            (true, "LOGISTIC") if shares || rows == 2 => Output::LogisticShare,
            (true, "LOGISTIC") => Output::LogisticEach,
            (true, "SOFTMAX") => Output::Softmax,
            (_, other) => return Err(self.wrong("post_transform", format!("{other} is not supported"))),
        };
        let mut layer = Layer { inputs, weights, bias, activation: Activation::Identity };
        if let Some(scaler) = scaler {
            let (offset, scale) = self.scaler(&scaler, inputs)?;
            before(&mut layer, &offset, &scale);
        }
        let features = self.names(inputs)?;
        let model = Network { name: name.to_owned(), features, layers: vec![layer], output, labels };
        model.validate()?;
        Ok(model)
    }

    /// A chain of matrix products, vectors and activations from `at` on.
    fn network(&self, name: &str, at: &str, width: usize, scaler: Option<Scaler>) -> Result<Network> {
        let mut layers: Vec<Layer> = Vec::new();
        let mut output = Output::Values;
        let mut at = at;
        for _ in 0..=self.graph.node.len() {
            let Some(node) = self.next(at) else { break };
            let op = node.op_type.as_str();
            let is_probability = layers.last().is_some_and(|layer| layer.activation == Activation::Sigmoid);
            if is_probability && !matches!(op, "Gemm" | "MatMul") && !PASSING.contains(&op) {
                // What follows makes a pair of probabilities of one, or a class of it.
                break;
            }
            match op {
                _ if PASSING.contains(&op) => {}
                "Gemm" | "MatMul" => layers.push(self.product(node, at)?),
                "Add" | "Sub" | "Mul" | "Div" => self.vector(node, at, &mut layers)?,
                "Relu" | "Tanh" | "Sigmoid" => {
                    let layer = layers.last_mut().filter(|layer| layer.activation == Activation::Identity);
                    let layer = layer.ok_or_else(|| self.wrong(op, "follows no product"))?;
                    layer.activation = match op {
                        "Relu" => Activation::Relu,
                        "Tanh" => Activation::Tanh,
                        _ => Activation::Sigmoid,
                    };
                }
                "Softmax" => {
                    output = Output::Softmax;
                    break;
                }
                other => return Err(self.wrong(&node.name, format!("operator {other} is not supported"))),
            }
            at = node.output.first().map(String::as_str).unwrap_or_default();
        }
        let (Some(first), Some(last)) = (layers.first(), layers.last()) else {
            return Err(self.wrong("graph", "no product with weights follows the input"));
        };
        let (inputs, outputs) = (first.inputs, last.bias.len());
        if width != 0 && width != inputs {
            return Err(self.wrong("graph input", format!("has {width} features, the first layer {inputs}")));
        }
        if let (Some(scaler), Some(layer)) = (scaler, layers.first_mut()) {
            let (offset, scale) = self.scaler(&scaler, inputs)?;
            before(layer, &offset, &scale);
        }
        let mut labels = self.class_names();
        if let Some(last) = layers.last_mut()
            && last.activation == Activation::Sigmoid
        {
            last.activation = Activation::Identity;
            output = if outputs == 1 { Output::Logistic } else { Output::LogisticEach };
        }
        let classes = if output == Output::Logistic { 2 } else { outputs };
        if output.is_classifier() && labels.len() != classes {
            labels = (0..classes).map(|class| class.to_string()).collect();
        }
        if !output.is_classifier() {
            labels.clear();
        }
        let model = Network { name: name.to_owned(), features: self.names(inputs)?, layers, output, labels };
        model.validate()?;
        Ok(model)
    }

    /// Names of classes that the answer is looked up in.
    fn class_names(&self) -> Vec<String> {
        let lookup = self.graph.node.iter().find(|node| node.op_type == "ArrayFeatureExtractor");
        let table = lookup.and_then(|node| self.initializers.get(node.input.first()?.as_str()));
        let Some(table) = table else { return Vec::new() };
        if !table.string_data.is_empty() {
            return table.string_data.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        }
        if table.data_type == 7 && table.int64_data.is_empty() {
            let (numbers, _) = table.raw_data.as_chunks::<8>();
            return numbers.iter().map(|&bytes| i64::from_le_bytes(bytes).to_string()).collect();
        }
        let small = table.int32_data.iter().map(|&label| i64::from(label));
        table.int64_data.iter().copied().chain(small).map(|label| label.to_string()).collect()
    }

    fn product(&self, node: &NodeProto, at: &str) -> Result<Layer> {
        let gemm = node.op_type == "Gemm";
        let [data, weights, ..] = node.input.as_slice() else {
            return Err(self.wrong(&node.name, "expected two inputs"));
        };
        if data != at {
            return Err(self.wrong(&node.name, "the data is not the first factor"));
        }
        let (shape, values) = self.tensor(weights)?;
        let [rows, columns] = shape[..] else {
            return Err(self.wrong(weights, format!("expected a matrix, got shape {shape:?}")));
        };
        let factor = |name: &str| {
            let found = node.attribute.iter().find(|attribute| attribute.name == name);
            found.map_or(1.0, |attribute| f64::from(attribute.f))
        };
        let (alpha, beta) = if gemm { (factor("alpha"), factor("beta")) } else { (1.0, 1.0) };
        if gemm && int(node, "transA").unwrap_or(0) != 0 {
            return Err(self.wrong(&node.name, "transA is not supported"));
        }
        let transposed = gemm && int(node, "transB").unwrap_or(0) != 0;
        let (inputs, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
        let at = |output: usize, input: usize| {
            let place = if transposed { output * columns + input } else { input * columns + output };
            values[place] * alpha
        };
        let weights = (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input)));
        let weights = weights.map(|(output, input)| at(output, input)).collect();
        let bias = match node.input.get(2).filter(|name| gemm && !name.is_empty()) {
            None => vec![0.0; outputs],
            Some(name) => self.wide(name, outputs)?.into_iter().map(|bias| bias * beta).collect(),
        };
        Ok(Layer { inputs, weights, bias, activation: Activation::Identity })
    }

    /// A vector that is added to or multiplied with the last layer's values.
    fn vector(&self, node: &NodeProto, at: &str, layers: &mut [Layer]) -> Result<()> {
        let layer = layers.last_mut().filter(|layer| layer.activation == Activation::Identity);
        let layer =
            layer.ok_or_else(|| self.wrong(&node.name, format!("{} follows no product", node.op_type)))?;
        let [left, right] = node.input.as_slice() else {
            return Err(self.wrong(&node.name, "expected two inputs"));
        };
        let commutes = matches!(node.op_type.as_str(), "Add" | "Mul");
        let other = match (left == at, right == at) {
            (true, false) => right,
            (false, true) if commutes => left,
            _ => return Err(self.wrong(&node.name, "the data is not the first operand")),
        };
        let outputs = layer.bias.len();
        let values = self.wide(other, outputs)?;
        for (output, value) in values.into_iter().enumerate() {
            let factor = match node.op_type.as_str() {
                "Add" => {
                    layer.bias[output] += value;
                    continue;
                }
                "Sub" => {
                    layer.bias[output] -= value;
                    continue;
                }
                "Mul" => value,
                _ => 1.0 / value,
            };
            layer.bias[output] *= factor;
            layer.weights[output * layer.inputs..(output + 1) * layer.inputs]
                .iter_mut()
                .for_each(|w| *w *= factor);
        }
        Ok(())
    }

    /// A vector of `count` values, or one value for all.
    fn wide(&self, name: &str, count: usize) -> Result<Vec<f64>> {
        let (shape, values) = self.tensor(name)?;
        match values.len() {
            1 => Ok(vec![values[0]; count]),
            length if length == count => Ok(values),
            _ => Err(self.wrong(name, format!("expected {count} values, got shape {shape:?}"))),
        }
    }

    fn tensor(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let tensor =
            self.initializers.get(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let shape = shape.ok_or_else(|| self.wrong(name, "negative dimension"))?;
        let values: Vec<f64> = match tensor.data_type {
            1 if tensor.raw_data.is_empty() => {
                tensor.float_data.iter().map(|&value| f64::from(value)).collect()
            }
            1 => tensor
                .raw_data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&word| f64::from(f32::from_le_bytes(word)))
                .collect(),
            11 if tensor.raw_data.is_empty() => tensor.double_data.clone(),
            11 => tensor.raw_data.as_chunks::<8>().0.iter().map(|&word| f64::from_le_bytes(word)).collect(),
            other => return Err(self.wrong(name, format!("element type {other} is not supported"))),
        };
        let length = shape.iter().try_fold(1usize, |length, &dim| length.checked_mul(dim));
        if length != Some(values.len()) {
            return Err(self.wrong(name, format!("shape {shape:?}, but {} values", values.len())));
        }
        Ok((shape, values))
    }
}

/// Puts `(x - offset) * scale` into a layer: its input is x from then on.
fn before(layer: &mut Layer, offset: &[f32], scale: &[f32]) {
    for (row, bias) in layer.weights.chunks_exact_mut(layer.inputs).zip(&mut layer.bias) {
        for ((weight, &offset), &scale) in row.iter_mut().zip(offset).zip(scale) {
            *weight *= f64::from(scale);
            *bias -= *weight * f64::from(offset);
        }
    }
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

fn ints(node: &NodeProto, name: &str) -> Vec<i64> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
        .map_or_else(Vec::new, |found| found.ints.clone())
}

fn floats(node: &NodeProto, name: &str) -> Vec<f32> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
        .map_or_else(Vec::new, |found| found.floats.clone())
}

fn text(node: &NodeProto, name: &str) -> Option<String> {
    let found = node.attribute.iter().find(|attribute| attribute.name == name)?;
    Some(String::from_utf8_lossy(&found.s).into_owned())
}

fn strings(node: &NodeProto, name: &str) -> Vec<String> {
    let found = node.attribute.iter().find(|attribute| attribute.name == name);
    let strings = found.map_or(&[][..], |found| &found.strings);
    strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}
