//! Linear models and networks of dense layers: a round per layer, activations in the clear.
//!
//! A layer's weights are scaled per column by a power of two, the largest weight's, and then split into digits of 8 bits, so
//! that products have the precision of f32 weights; inputs are those of the protocol, 16 bits of the largest.

use super::digits::Digits;
use super::trees::product;
use super::{MAX_FEATURES, MAX_OUTPUTS, Output};
use crate::limits::MAX_WIDTH;
use crate::linear::LinearBackend;
use crate::linear::quantize::{IntMatrix, QuantizedRound, RoundScales};
use crate::split::plan::{PlanKind, PlanRound, SplitPlan};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Layers of a network.
const MAX_LAYERS: usize = 64;

/// Digits per weight: two of base 255 are 16 bits, as many as inputs have.
const DIGITS: Digits = Digits { base: 255, count: 2 };

/// What follows a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl Activation {
    fn apply(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => super::sigmoid(x),
        }
    }
}

/// A dense layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Inputs.
    pub inputs: usize,
    /// `[outputs, inputs]`, row-major.
    pub weights: Vec<f64>,
    /// `[outputs]`.
    pub bias: Vec<f64>,
    /// What follows.
    pub activation: Activation,
}

/// A network as its file says it.
#[derive(Clone, Debug)]
pub struct Network {
    /// The model's name.
    pub name: String,
    /// Names of the features; made up where the file has none.
    pub features: Vec<String>,
    /// The layers; a linear model has one.
    pub layers: Vec<Layer>,
    /// What the last layer's values mean.
    pub output: Output,
    /// Names of the classes; empty for regression.
    pub labels: Vec<String>,
}

impl Network {
    /// Checks shapes and values.
    ///
    /// # Errors
    /// What is wrong, and in which layer.
    pub fn validate(&self) -> Result<()> {
        let wrong = |reason: String| Err(Error::config("model", reason));
        if !(1..=MAX_FEATURES).contains(&self.features.len())
            || !(1..=MAX_LAYERS).contains(&self.layers.len())
        {
            return wrong(format!("{} features and {} layers", self.features.len(), self.layers.len()));
        }
        let mut width = self.features.len();
        for (index, layer) in self.layers.iter().enumerate() {
            let outputs = layer.bias.len();
            let fits = layer.inputs == width && outputs > 0 && layer.weights.len() == outputs * width;
            if !fits || outputs > MAX_WIDTH {
                return wrong(format!(
                    "layer {index}: {} weights for {} inputs (expected {width}) and {outputs} outputs",
                    layer.weights.len(),
                    layer.inputs
                ));
            }
            if layer.weights.iter().chain(&layer.bias).any(|value| !value.is_finite()) {
                return wrong(format!("layer {index} has weights that are not finite"));
            }
            width = outputs;
        }
        let classes = if self.output.is_classifier() { self.labels.len() } else { width };
        if width > MAX_OUTPUTS || self.output.sums(classes) != width {
            return wrong(format!("{width} values for {classes} classes or targets"));
        }
        Ok(())
    }

    /// The last layer's values for a row, in the clear.
    ///
    /// # Panics
    /// If there is not one value per feature, or [`validate`](Self::validate) would fail.
    pub fn sums(&self, row: &[f64]) -> Vec<f64> {
        assert_eq!(row.len(), self.features.len(), "values of a row");
        let mut x = row.to_vec();
        for layer in &self.layers {
            let rows = layer.weights.chunks_exact(layer.inputs).zip(&layer.bias);
            x = rows
                .map(|(weights, bias)| {
                    let sum: f64 = weights.iter().zip(&x).map(|(w, x)| w * x).sum();
                    layer.activation.apply(sum + bias)
                })
                .collect();
        }
        x
    }
}

/// The client's part of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    inputs: usize,
    bias: Vec<f64>,
    activation: Activation,
}

/// The client's part of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    features: Vec<String>,
    layers: Vec<Local>,
}

/// Splits a network.
///
/// # Errors
/// If it is not valid or too wide.
pub(super) fn split(model: &Network) -> Result<(Layers, SplitPlan, Vec<QuantizedRound>)> {
    model.validate()?;
    let mut plan = Vec::new();
    let mut rounds = Vec::new();
    for (index, layer) in model.layers.iter().enumerate() {
        let rows = layer.bias.len() * DIGITS.count;
        plan.push(PlanRound::new(
            format!("layer.{index}"),
            layer.inputs,
            [(format!("layer.{index}.weights"), rows, 0..layer.inputs)],
        ));
        rounds.push(quantized(layer));
    }
    let plan = SplitPlan { kind: PlanKind::Plain, rounds: plan };
    plan.validate()?;
    let layers = model.layers.iter().map(|layer| Local {
        inputs: layer.inputs,
        bias: layer.bias.clone(),
        activation: layer.activation,
    });
    Ok((Layers { features: model.features.clone(), layers: layers.collect() }, plan, rounds))
}

fn quantized(layer: &Layer) -> QuantizedRound {
    let mut column_scale = vec![0f32; layer.inputs];
    for row in layer.weights.chunks_exact(layer.inputs) {
        for (scale, weight) in column_scale.iter_mut().zip(row) {
            *scale = scale.max(weight.abs() as f32);
        }
    }
    for scale in &mut column_scale {
        // The exponent alone, within what f32 can invert.
        *scale = if *scale > 0.0 { scale.log2().round().clamp(-100.0, 100.0).exp2() } else { 0.0 };
    }
    let outputs = layer.bias.len();
    let mut weights = vec![0i8; outputs * DIGITS.count * layer.inputs];
    let mut row_scale = Vec::with_capacity(outputs * DIGITS.count);
    let mut largest_square = 0u64;
    for (output, row) in layer.weights.chunks_exact(layer.inputs).enumerate() {
        let scaled: Vec<f64> = row
            .iter()
            .zip(&column_scale)
            .map(|(weight, &scale)| if scale > 0.0 { weight / f64::from(scale) } else { 0.0 })
            .collect();
        let largest = scaled.iter().fold(0f64, |largest, weight| largest.max(weight.abs()));
        let scale = DIGITS.scale(largest);
        for (column, weight) in scaled.iter().enumerate() {
            for (digit, value) in DIGITS.of(*weight, scale).into_iter().enumerate() {
                weights[(output * DIGITS.count + digit) * layer.inputs + column] = value;
            }
        }
        row_scale.extend(
            (0..DIGITS.count).map(|digit| (scale * f64::from(DIGITS.base).powi(digit as i32)) as f32),
        );
    }
    for row in weights.chunks_exact(layer.inputs) {
        largest_square = largest_square.max(row.iter().map(|&w| u64::from(w.unsigned_abs()).pow(2)).sum());
    }
    let rows = outputs * DIGITS.count;
    QuantizedRound {
        matrices: vec![IntMatrix { rows, cols: layer.inputs, weights }],
        scales: RoundScales {
            column_scale,
            row_scale: vec![row_scale],
            max_row_norm: (largest_square as f64).sqrt(),
        },
    }
}

impl Layers {
    /// The features, in order.
    pub fn features(&self) -> impl ExactSizeIterator<Item = &str> {
        self.features.iter().map(String::as_str)
    }

    /// Values of the last layer.
    pub(super) fn sums_len(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias.len())
    }

    /// Checks a part that comes from a file against its plan.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn validate(&self, plan: &SplitPlan) -> Result<()> {
        let shapes: Vec<(usize, usize)> =
            plan.rounds.iter().map(|round| (round.d_in, round.rows())).collect();
        let expected: Vec<(usize, usize)> =
            self.layers.iter().map(|layer| (layer.inputs, layer.bias.len() * DIGITS.count)).collect();
        let chained = self.layers.windows(2).all(|pair| pair[0].bias.len() == pair[1].inputs);
        let first = self.layers.first().map(|layer| layer.inputs);
        let finite = self.layers.iter().flat_map(|layer| &layer.bias).all(|bias| bias.is_finite());
        if shapes != expected || !chained || first != Some(self.features.len()) || !finite {
            return Err(Error::config("predictor", format!("has shapes {expected:?}, the plan {shapes:?}")));
        }
        Ok(())
    }

    /// The last layer's values of each row, and whether all values were numbers. One that is not, as only a lying server makes
    /// it, is taken for 0 and the pass goes on: what a server sees must not depend on it.
    ///
    /// # Errors
    /// Those of the backend.
    pub(super) fn predict(
        &self,
        backend: &mut dyn LinearBackend,
        rows: &[&[f64]],
    ) -> Result<(Vec<Vec<f64>>, bool)> {
        let tokens = rows.len();
        let mut x: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|&value| value as f32)).collect();
        let (mut out, mut sound) = (Vec::new(), true);
        for (index, layer) in self.layers.iter().enumerate() {
            let products = product(backend, index, std::mem::take(&mut x), tokens, layer.inputs)?;
            let rows = products.chunks_exact(layer.bias.len() * DIGITS.count);
            out = rows
                .map(|products| {
                    let sums = products.chunks_exact(DIGITS.count).zip(&layer.bias);
                    let sums = sums.map(|(digits, bias)| {
                        digits.iter().map(|&digit| f64::from(digit)).sum::<f64>() + bias
                    });
                    sums.map(|sum| layer.activation.apply(sum)).collect()
                })
                .collect::<Vec<Vec<f64>>>();
            x = out.iter().flatten().map(|&value| value as f32).collect();
            for value in x.iter_mut().filter(|value| !value.is_finite()) {
                (*value, sound) = (0.0, false);
            }
        }
        Ok((out, sound))
    }
}
