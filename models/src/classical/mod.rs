//! Trees, linear models and small networks on the same encrypted layer.
//!
//! * [`trees`]: an ensemble of decision trees is two rounds of exact integers. The client encrypts which bin edges its
//!   features reach; the first round counts, per leaf, how many conditions on its path fail. The client finds the leaves
//!   where none does, one per tree, and encrypts that vector; the second round adds up their values.
//! * [`network`]: a linear model is one round, a network of dense layers one per layer, with the activations in the clear.
//!
//! Files are read by [`xgboost`], [`lightgbm`] and [`onnx`]; [`import`] tells them apart. Values are split into digits of at
//! most 8 bits, a row for each ([`digits`]), so that the server's int8 weights lose nothing that a float holds.
//!
//! What the client learns: which of the shuffled leaves a row falls into and how many conditions each other leaf misses;
//! of networks, the hidden layers' values. As everywhere, enough answers determine the weights.

pub mod columns;
pub mod digits;
pub mod lightgbm;
pub mod network;
pub mod onnx;
pub mod part;
pub mod trees;
pub mod xgboost;

pub use part::{Model, Predictor, PredictorPart, import, is_predictor, split, split_to};

use serde::{Deserialize, Serialize};

/// Features of a model: more would not fit into the input of a round.
pub const MAX_FEATURES: usize = crate::limits::MAX_WIDTH;

/// Classes or targets of a model.
pub const MAX_OUTPUTS: usize = 4096;

/// Bytes of a model file. The largest forests in use have some hundred MB as text.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// What the sums of a model mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Values as they are: one per target.
    Values,
    /// Logarithms of values: Poisson, gamma and Tweedie regression.
    Exponential,
    /// One log-odds: the second class against the first.
    Logistic,
    /// One probability: that of the second class.
    Probability,
    /// A score per class, of which softmax makes probabilities.
    Softmax,
    /// A probability per class.
    Probabilities,
    /// A log-odds per class, each for itself (one against the rest).
    LogisticEach,
    /// As [`LogisticEach`](Self::LogisticEach), divided by their sum.
    LogisticShare,
    /// One distance from the border between two classes, without a probability.
    Margin,
    /// A score per class, without probabilities.
    Margins,
}

impl Output {
    /// Whether a model with this output names classes.
    pub fn is_classifier(self) -> bool {
        !matches!(self, Self::Values | Self::Exponential)
    }

    /// Whether a prediction comes with a probability per class.
    pub fn has_probabilities(self) -> bool {
        self.is_classifier() && !matches!(self, Self::Margin | Self::Margins)
    }

    /// Sums that it is made of, for `classes` classes or targets.
    pub fn sums(self, classes: usize) -> usize {
        match self {
            Self::Logistic | Self::Probability | Self::Margin => 1,
            _ => classes,
        }
    }

    /// The prediction that `sums` mean.
    ///
    /// # Panics
    /// If there are no sums.
    pub fn prediction(self, sums: &[f64]) -> Prediction {
        let binary = |p: f64| Prediction::class(usize::from(p > 0.5), Some(vec![1.0 - p, p]));
        match self {
            Self::Values => Prediction::Values(sums.to_vec()),
            Self::Exponential => Prediction::Values(sums.iter().map(|sum| sum.exp()).collect()),
            Self::Logistic => binary(sigmoid(sums[0])),
            Self::Probability => binary(sums[0]),
            Self::Softmax => {
                let largest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = sums.iter().map(|sum| (sum - largest).exp()).collect();
                let whole: f64 = weights.iter().sum();
                Prediction::class(argmax(sums), Some(weights.iter().map(|weight| weight / whole).collect()))
            }
            Self::Probabilities => Prediction::class(argmax(sums), Some(sums.to_vec())),
            Self::LogisticEach => {
                Prediction::class(argmax(sums), Some(sums.iter().map(|&sum| sigmoid(sum)).collect()))
            }
            Self::LogisticShare => {
                let each: Vec<f64> = sums.iter().map(|&sum| sigmoid(sum)).collect();
                let whole = each.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                Prediction::class(argmax(sums), Some(each.iter().map(|each| each / whole).collect()))
            }
            Self::Margin => Prediction::class(usize::from(sums[0] > 0.0), None),
            Self::Margins => Prediction::class(argmax(sums), None),
        }
    }
}

/// What a model says of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// A value per target.
    Values(Vec<f64>),
    /// A class.
    Class {
        /// Its index among the model's labels.
        index: usize,
        /// A probability per class, where the model gives them.
        probabilities: Option<Vec<f64>>,
    },
}

impl Prediction {
    /// The label, the value or, for several targets, the list of values, as JSON.
    ///
    /// # Panics
    /// If there is no label for the class.
    pub fn to_json(&self, labels: &[String]) -> serde_json::Value {
        match self {
            Self::Values(values) if values.len() == 1 => values[0].into(),
            Self::Values(values) => values.clone().into(),
            Self::Class { index, .. } => labels[*index].clone().into(),
        }
    }

    fn class(index: usize, probabilities: Option<Vec<f64>>) -> Self {
        Self::Class { index, probabilities }
    }
}

/// The first of the largest.
fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_become_predictions() {
        let probabilities = |output: Output, sums: &[f64]| match output.prediction(sums) {
            Prediction::Class { index, probabilities } => (index, probabilities),
            Prediction::Values(values) => panic!("{values:?}"),
        };
        assert_eq!(probabilities(Output::Logistic, &[0.0]), (0, Some(vec![0.5, 0.5])));
        assert_eq!(probabilities(Output::Probability, &[0.75]), (1, Some(vec![0.25, 0.75])));
        assert_eq!(probabilities(Output::Softmax, &[1e9, 0.0]), (0, Some(vec![1.0, 0.0])));
        assert_eq!(probabilities(Output::Margin, &[-1.0]), (0, None));
        assert_eq!(probabilities(Output::Margins, &[1.0, 3.0, 3.0]), (1, None));
        assert_eq!(Output::Exponential.prediction(&[0.0]), Prediction::Values(vec![1.0]));
    }
}
