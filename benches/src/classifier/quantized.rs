//! Asymmetric 8-bit quantization of a classifier's inputs and weights.

use serde::Serialize;

use super::regression::Classifier;
use crate::digits::PIXELS;

/// `q = round(x / delta) + z`, with `q` in `[lowest, lowest + 2^8 - 1]` and `x = 0` exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Affine {
    /// Step.
    pub delta: f64,
    /// Zero point: the integer that stands for 0.
    pub zero: i64,
    /// Least integer.
    lowest: i64,
    /// Largest integer.
    highest: i64,
}

impl Affine {
    /// The quantizer of reals in `[low, high]` to integers in `[lowest, highest]`; the range is widened to hold 0.
    #[must_use]
    pub fn fit(low: f64, high: f64, lowest: i64, highest: i64) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let delta = ((high - low) / (highest - lowest) as f64).max(f64::MIN_POSITIVE);
        let zero = (lowest - (low / delta).round() as i64).clamp(lowest, highest);
        Self { delta, zero, lowest, highest }
    }

    /// The integer of `x`, clamped to the range.
    #[must_use]
    pub fn quantize(&self, x: f64) -> i64 {
        ((x / self.delta).round() as i64 + self.zero).clamp(self.lowest, self.highest)
    }

    /// The real number that `q` stands for.
    #[must_use]
    pub fn real(&self, q: i64) -> f64 {
        (q - self.zero) as f64 * self.delta
    }
}

/// Integer weights (the server's) and what the client needs to turn integers back into logits.
pub struct QuantizedClassifier {
    /// `[CLASSES, PIXELS]` row-major, each in `[-127, 127]`.
    pub weights: Vec<i8>,
    /// Sum of each row of `weights`.
    pub row_sums: Vec<i64>,
    /// Quantizer of the weights.
    pub weight: Affine,
    /// Quantizer of the pixels: `[0, 255]`.
    pub input: Affine,
    bias: Vec<f64>,
}

impl QuantizedClassifier {
    /// Quantizes `model`; pixels range over `[low, high]` (from the training set).
    #[must_use]
    pub fn new(model: &Classifier, low: f64, high: f64) -> Self {
        let least = model.weights.iter().copied().fold(f64::MAX, f64::min);
        let largest = model.weights.iter().copied().fold(f64::MIN, f64::max);
        let weight = Affine::fit(least, largest, -127, 127);
        let weights: Vec<i8> = model.weights.iter().map(|w| weight.quantize(*w) as i8).collect();
        let row_sums = weights.chunks_exact(PIXELS).map(|r| r.iter().map(|w| i64::from(*w)).sum()).collect();
        Self { weights, row_sums, weight, input: Affine::fit(low, high, 0, 255), bias: model.bias.clone() }
    }

    /// The client's integers of an image.
    #[must_use]
    pub fn quantize(&self, pixels: &[f64]) -> Vec<i64> {
        pixels.iter().map(|p| self.input.quantize(*p)).collect()
    }

    /// `sum q_w q_x` of every row: what the server computes, here in clear.
    #[must_use]
    pub fn products(&self, q: &[i64]) -> Vec<i64> {
        self.weights
            .chunks_exact(PIXELS)
            .map(|row| row.iter().zip(q).map(|(w, x)| i64::from(*w) * x).sum())
            .collect()
    }

    /// Logits from the server's products and the client's own integers.
    #[must_use]
    pub fn logits(&self, products: &[i64], q: &[i64]) -> Vec<f64> {
        let (zw, zx) = (self.weight.zero, self.input.zero);
        let sum_x: i64 = q.iter().sum();
        let scale = self.weight.delta * self.input.delta;
        products
            .iter()
            .zip(&self.row_sums)
            .zip(&self.bias)
            .map(|((p, sum_w), bias)| {
                let centred = p - zx * sum_w - zw * sum_x + (PIXELS as i64) * zw * zx;
                centred as f64 * scale + bias
            })
            .collect()
    }
}

/// 4-bit limbs of 8-bit integers: `q = 16 high + low`.
#[must_use]
pub(super) fn limbs(q: &[i64]) -> (Vec<i64>, Vec<i64>) {
    (q.iter().map(|x| x >> 4).collect(), q.iter().map(|x| x & 15).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_range_is_kept() {
        let q = Affine::fit(-0.3, 1.7, -127, 127);
        assert!(q.real(q.quantize(0.0)).abs() < 1e-12);
        assert!((q.real(q.quantize(1.0)) - 1.0).abs() <= q.delta / 2.0 + 1e-12);
        assert_eq!(q.quantize(1e9), 127);
        assert_eq!(Affine::fit(0.0, 1.0, 0, 255).zero, 0);
    }

    #[test]
    fn limbs_join() {
        let q = [0, 15, 16, 255];
        let (high, low) = limbs(&q);
        for i in 0..4 {
            assert_eq!(16 * high[i] + low[i], q[i]);
            assert!((0..16).contains(&high[i]) && (0..16).contains(&low[i]));
        }
    }

    #[test]
    fn zero_points_cancel() {
        // Asymmetric inputs too: pixels in [-0.5, 1].
        let model = Classifier {
            weights: (0..10 * PIXELS).map(|i| ((i * 37 % 101) as f64 - 30.0) / 100.0).collect(),
            bias: vec![0.25; 10],
        };
        let quantized = QuantizedClassifier::new(&model, -0.5, 1.0);
        assert!(quantized.weight.zero != 0 && quantized.input.zero != 0);
        let pixels: Vec<f64> = (0..PIXELS).map(|i| (i * 13 % 64) as f64 / 64.0 * 1.5 - 0.5).collect();
        let q = quantized.quantize(&pixels);
        let got = quantized.logits(&quantized.products(&q), &q);
        for (g, w) in got.iter().zip(model.logits(&pixels)) {
            assert!((g - w).abs() < 0.15, "{g} against {w}");
        }
    }
}
