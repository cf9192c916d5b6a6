//! Integer weights from noisy products: regularised least squares, rounded.

use rayon::prelude::*;

/// Pairs of inputs and products, accumulated as normal equations.
pub(super) struct NormalEquations {
    inputs: usize,
    outputs: usize,
    /// `X^T X`, `[inputs, inputs]`, lower half.
    gram: Vec<f64>,
    /// `Y^T X`, `[outputs, inputs]`.
    cross: Vec<f64>,
}

/// How well a solution meets the true weights.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score {
    /// `sum (w - w')^2` before rounding.
    pub(super) square_error: f64,
    /// `sum w^2`.
    pub(super) square: f64,
    /// Weights that rounding gives exactly.
    pub(super) rounded: usize,
    /// Weights in all.
    pub(super) weights: usize,
}

impl Score {
    /// The sum of two.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            square_error: self.square_error + other.square_error,
            square: self.square + other.square,
            rounded: self.rounded + other.rounded,
            weights: self.weights + other.weights,
        }
    }
}

impl NormalEquations {
    /// No pair yet.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, gram: vec![0.0; inputs * inputs], cross: vec![0.0; outputs * inputs] }
    }

    /// Adds pairs given by column: `x`, `[inputs][tokens]`, and `y`, `[outputs][tokens]`.
    pub(super) fn add(&mut self, x: &[Vec<f64>], y: &[Vec<f64>]) {
        let inputs = self.inputs;
        debug_assert!(x.len() == inputs && y.len() == self.outputs);
        self.gram.par_chunks_exact_mut(inputs).zip(x).enumerate().for_each(|(i, (row, column))| {
            row.iter_mut().zip(&x[..=i]).for_each(|(sum, other)| *sum += dot(column, other));
        });
        self.cross.par_chunks_exact_mut(inputs).zip(y).for_each(|(row, column)| {
            row.iter_mut().zip(x).for_each(|(sum, other)| *sum += dot(column, other));
        });
    }

    /// Solves for the weights and compares them with `truth`, `[outputs, inputs]`. `ridge`: the variance of the noise
    /// over that of a weight.
    pub(super) fn score(&self, ridge: f64, truth: &[i8]) -> Score {
        let n = self.inputs;
        let lower = self.cholesky(ridge);
        let mut upper = vec![0.0; n * n];
        for (i, row) in lower.chunks_exact(n).enumerate() {
            row[..=i].iter().enumerate().for_each(|(j, &value)| upper[j * n + i] = value);
        }
        let rows = self.cross.par_chunks_exact(n).zip(truth.par_chunks_exact(n));
        rows.map(|(cross, truth)| score_row(&lower, &upper, cross, truth)).reduce(Score::default, Score::and)
    }

    /// The lower factor of `X^T X + ridge`.
    fn cholesky(&self, ridge: f64) -> Vec<f64> {
        let n = self.inputs;
        let mut lower = vec![0.0; n * n];
        for i in 0..n {
            let (done, rest) = lower.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &done[j * n..];
                row[j] = (self.gram[i * n + j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = self.gram[i * n + i] + ridge - dot(&row[..i], &row[..i]);
            // Rounding may leave nothing of a direction that no input had.
            row[i] = pivot.max(ridge).sqrt();
        }
        lower
    }
}

fn score_row(lower: &[f64], upper: &[f64], cross: &[f64], truth: &[i8]) -> Score {
    let n = cross.len();
    let mut half = vec![0.0; n];
    for i in 0..n {
        half[i] = (cross[i] - dot(&half[..i], &lower[i * n..i * n + i])) / lower[i * n + i];
    }
    let mut found = vec![0.0; n];
    for i in (0..n).rev() {
        let (rest, pivot) = (&upper[i * n + i + 1..(i + 1) * n], upper[i * n + i]);
        found[i] = (half[i] - dot(&found[i + 1..], rest)) / pivot;
    }
    Score {
        square_error: found.iter().zip(truth).map(|(w, &t)| (w - f64::from(t)).powi(2)).sum(),
        square: truth.iter().map(|&t| f64::from(t).powi(2)).sum(),
        rounded: found.iter().zip(truth).filter(|(w, t)| nearest_weight(**w) == f64::from(**t)).count(),
        weights: n,
    }
}

/// The int8 weight that is nearest.
fn nearest_weight(value: f64) -> f64 {
    value.round().clamp(-127.0, 127.0)
}

/// Eight sums that do not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// Products of random int8 rows with random inputs and a little noise, by column.
    fn pairs(tokens: usize, noise: f64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>, Vec<i8>) {
        let mut rng = rand::rngs::StdRng::seed_from_u64(4);
        let truth: Vec<i8> = (0..3 * 20).map(|_| rng.random_range(-127..=127)).collect();
        let x: Vec<Vec<f64>> =
            (0..20).map(|_| (0..tokens).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
        let product = |row: &[i8], t: usize| -> f64 {
            row.iter().zip(&x).map(|(&w, column)| f64::from(w) * column[t]).sum()
        };
        let y = truth.chunks(20).map(|row| (0..tokens).map(|t| product(row, t)).collect::<Vec<_>>());
        let y = y.map(|row| row.iter().map(|y| y + noise * rng.random_range(-1.0..1.0)).collect()).collect();
        (x, y, truth)
    }

    fn score(tokens: usize, noise: f64) -> Score {
        let (x, y, truth) = pairs(tokens, noise);
        let mut equations = NormalEquations::new(20, 3);
        // In two parts: they add up.
        let part = |columns: &[Vec<f64>], range: std::ops::Range<usize>| -> Vec<Vec<f64>> {
            columns.iter().map(|column| column[range.clone()].to_vec()).collect()
        };
        equations.add(&part(&x, 0..tokens / 2), &part(&y, 0..tokens / 2));
        equations.add(&part(&x, tokens / 2..tokens), &part(&y, tokens / 2..tokens));
        equations.score(1e-9, &truth)
    }

    #[test]
    fn enough_tokens_determine_the_weights_and_fewer_do_not() {
        let enough = score(60, 0.01);
        assert_eq!((enough.rounded, enough.weights), (60, 60));
        assert!(enough.square_error < 1e-3 * enough.square);
        let few = score(10, 0.01);
        assert!(few.rounded < 30 && few.square_error > 0.1 * few.square, "{few:?}");
        let noisy = score(60, 300.0);
        assert!(noisy.rounded < 30, "{noisy:?}");
    }
}
