//! Transformer operations on encrypted reals, each returning its result, its float twin and its bootstrap count.

use super::context::{Cipher, Context, add, sub, sum};
use crate::stats::{relative_rms_error, time_ms};

/// One operation, measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Wall-clock milliseconds of the encrypted evaluation (encryption and decryption of the ends not included).
    pub ms: f64,
    /// Bootstraps it took.
    pub bootstraps: usize,
    /// What it was run on, in words.
    pub size: String,
    /// Relative rms error against the float operation.
    pub error: f64,
    /// Decrypted results.
    pub got: Vec<f64>,
    /// Results of the float operation.
    pub want: Vec<f64>,
}

impl Measured {
    fn new(ms: f64, bootstraps: usize, size: String, got: Vec<f64>, want: Vec<f64>) -> Self {
        let error = relative_rms_error(&got, &want);
        Self { ms, bootstraps, size, error, got, want }
    }
}

/// Range of activations and of attention's inputs.
const RANGE: f64 = 8.0;

/// `f` on each of `xs` (in `[-8, 8)`), looked up at `bits` bits: one bootstrap each.
///
/// `keep` first rounds the input to that many bits on the client (the field's quantization); `None` leaves it to the
/// lookup's own steps (rounding of the input inside the bootstrap).
#[must_use]
pub fn activation(
    context: &Context,
    bits: u32,
    keep: Option<u32>,
    xs: &[f64],
    f: fn(f64) -> f64,
) -> Measured {
    let table = context.table(bits, RANGE, RANGE, f);
    let inputs: Vec<f64> = xs.iter().map(|&x| keep.map_or(x, |bits| quantize(x, RANGE, bits))).collect();
    let ciphers = context.encrypt(&inputs, RANGE);
    let (out, ms) = time_ms(|| context.lookup(&ciphers, &table));
    let want = xs.iter().map(|&x| f(x)).collect();
    Measured::new(ms, xs.len(), format!("{} values", xs.len()), context.decrypt(&out, RANGE), want)
}

/// Looks up every step of an identity-like table `repeats` times and counts the wrong answers: the observed failures
/// of `2^bits` steps under the context's set. Returns (wrong, looked up, milliseconds).
#[must_use]
pub fn exact_lookup(context: &Context, bits: u32, lookups: usize) -> (usize, usize, f64) {
    // Neighbouring steps get outputs far apart, so that an answer one step off cannot pass for noise.
    let steps = 1usize << bits;
    let spread = |i: usize| ((i * 5 + 3) % 16) as f64 - 8.0 + 0.5;
    let table = context
        .table(bits, RANGE, 2.0 * RANGE, |v| spread((((v / RANGE + 1.0) / 2.0) * steps as f64) as usize));
    let indices: Vec<usize> = (0..lookups).map(|i| i % steps).collect();
    let inputs: Vec<f64> = indices.iter().map(|&i| table.centre(i)).collect();
    let ciphers = context.encrypt(&inputs, RANGE);
    let (out, ms) = time_ms(|| context.lookup(&ciphers, &table));
    let got = context.decrypt(&out, 2.0 * RANGE);
    let wrong = indices.iter().zip(&got).filter(|(i, g)| (table.value(**i) - **g).abs() > 0.25).count();
    (wrong, lookups, ms)
}

/// Elementwise products by bootstrapped squares: `xy = (x+y)^2/4 - (x-y)^2/4`, two bootstraps each.
///
/// `xs`, `ys` have range `range_in`, which also holds `|x| + |y|`; the products have range `range_out`.
fn products(
    context: &Context,
    xs: &[Cipher],
    ys: &[Cipher],
    range_in: f64,
    range_out: f64,
) -> (Vec<Cipher>, usize) {
    let table = context.table(context.set().precision_bits, range_in, range_out, |u| u * u / 4.0);
    let mut ends: Vec<Cipher> = xs.iter().zip(ys).map(|(x, y)| add(x, y)).collect();
    ends.extend(xs.iter().zip(ys).map(|(x, y)| sub(x, y)));
    let squares = context.lookup(&ends, &table);
    let (sums, differences) = squares.split_at(xs.len());
    (sums.iter().zip(differences).map(|(s, d)| sub(s, d)).collect(), 2 * xs.len())
}

/// Scores of one query against the keys of `keys.len()` positions: encrypted dot products of length `query.len()`.
///
/// Entries in `[-1, 1]`.
#[must_use]
pub fn attention_scores(context: &Context, query: &[f64], keys: &[Vec<f64>]) -> Measured {
    let (size, range) = (query.len(), 2.0);
    let range_out = size as f64;
    let q = context.encrypt(query, range);
    let k: Vec<Vec<Cipher>> = keys.iter().map(|key| context.encrypt(key, range)).collect();
    let ((scores, bootstraps), ms) = time_ms(|| {
        let left: Vec<Cipher> = k.iter().flat_map(|_| q.iter().cloned()).collect();
        let right: Vec<Cipher> = k.iter().flatten().cloned().collect();
        let (terms, bootstraps) = products(context, &left, &right, range, range_out);
        (terms.chunks(size).map(sum).collect::<Vec<_>>(), bootstraps)
    });
    let want = keys.iter().map(|key| key.iter().zip(query).map(|(a, b)| a * b).sum()).collect();
    let text = format!("{} keys x {size}", keys.len());
    Measured::new(ms, bootstraps, text, context.decrypt(&scores, range_out), want)
}

/// Weighted sum of the value vectors of `weights.len()` positions; weights and entries in `[-1, 1]`.
#[must_use]
pub fn attention_values(context: &Context, weights: &[f64], values: &[Vec<f64>]) -> Measured {
    let (range, width) = (2.0, values[0].len());
    // Weights of a softmax sum to one, so the result stays within the values' own range.
    let range_out = 2.0;
    let w = context.encrypt(weights, range);
    let v: Vec<Vec<Cipher>> = values.iter().map(|row| context.encrypt(row, range)).collect();
    let ((out, bootstraps), ms) = time_ms(|| {
        let left: Vec<Cipher> = (0..width).flat_map(|_| w.iter().cloned()).collect();
        let right: Vec<Cipher> =
            (0..width).flat_map(|column| v.iter().map(move |row| row[column].clone())).collect();
        let (terms, bootstraps) = products(context, &left, &right, range, range_out);
        (terms.chunks(weights.len()).map(sum).collect::<Vec<_>>(), bootstraps)
    });
    let want = (0..width)
        .map(|column| weights.iter().zip(values).map(|(weight, row)| weight * row[column]).sum())
        .collect();
    let text = format!("{} values x {width}", weights.len());
    Measured::new(ms, bootstraps, text, context.decrypt(&out, range_out), want)
}

/// Softmax of `scores` (in `[-4, 4)`): maximum by a tree of `max(a, b) = b + relu(a - b)`, exponential, sum, reciprocal,
/// product. `T` scores take `T - 1 + 2T + 1 + 2T` bootstraps.
#[must_use]
pub fn softmax(context: &Context, scores: &[f64]) -> Measured {
    let (count, bits) = (scores.len(), context.set().precision_bits);
    let range_sum = count as f64 * 1.25;
    let relu = context.table(bits, RANGE, RANGE, |v| v.max(0.0));
    let exp_for_sum = context.table(bits, RANGE, range_sum, |v| v.min(0.0).exp());
    let exp_for_product = context.table(bits, RANGE, 2.0, |v| v.min(0.0).exp());
    let reciprocal = context.table(bits, range_sum, 2.0, |v| 1.0 / v.max(1.0));
    let inputs = context.encrypt(scores, RANGE);
    let ((out, bootstraps), ms) = time_ms(|| {
        let mut bootstraps = 0;
        let mut level = inputs.clone();
        while level.len() > 1 {
            let pairs: Vec<(Cipher, Cipher)> =
                level.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            let odd = (level.len() % 2 == 1).then(|| level[level.len() - 1].clone());
            let differences: Vec<Cipher> = pairs.iter().map(|(a, b)| sub(a, b)).collect();
            let positive = context.lookup(&differences, &relu);
            bootstraps += differences.len();
            level = pairs.iter().zip(&positive).map(|((_, b), p)| add(b, p)).chain(odd).collect();
        }
        let shifted: Vec<Cipher> = inputs.iter().map(|s| sub(s, &level[0])).collect();
        let total = sum(&context.lookup(&shifted, &exp_for_sum));
        let inverse = context.lookup(&[total], &reciprocal);
        let exponentials = context.lookup(&shifted, &exp_for_product);
        let inverses = vec![inverse[0].clone(); count];
        let (weights, squares) = products(context, &exponentials, &inverses, 2.0, 2.0);
        (weights, bootstraps + 2 * count + 1 + squares)
    });
    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let want = exponentials.iter().map(|e| e / total).collect();
    Measured::new(ms, bootstraps, format!("1 row of {count}"), context.decrypt(&out, 2.0), want)
}

/// RMS norm of `xs` (in `[-2.5, 2.5]`, rms at least a half): squares, levelled mean, reciprocal square root,
/// products. `d` entries take `d + 1 + 2d` bootstraps.
#[must_use]
pub fn rms_norm(context: &Context, xs: &[f64]) -> Measured {
    let (count, bits) = (xs.len(), context.set().precision_bits);
    // `|x| + 1/rms <= 4.5`, and a mean of squares is at most 2.5 squared.
    let (range, range_mean) = (5.0, 6.5);
    let square = context.table(bits, range, range_mean, |v| v * v / count as f64);
    let inverse_root = context.table(bits, range_mean, range, |v| v.max(0.25).sqrt().recip());
    let inputs = context.encrypt(xs, range);
    let ((out, bootstraps), ms) = time_ms(|| {
        let mean = sum(&context.lookup(&inputs, &square));
        let inverse = context.lookup(&[mean], &inverse_root);
        let inverses = vec![inverse[0].clone(); count];
        let (normed, squares) = products(context, &inputs, &inverses, range, 2.0 * range);
        (normed, count + 1 + squares)
    });
    let mean: f64 = xs.iter().map(|x| x * x).sum::<f64>() / count as f64;
    let want = xs.iter().map(|x| x / mean.sqrt()).collect();
    Measured::new(ms, bootstraps, format!("{count} entries"), context.decrypt(&out, 2.0 * range), want)
}

/// The centre of the step that `x` falls into, of `2^bits` steps over `[-range, range)`.
fn quantize(x: f64, range: f64, bits: u32) -> f64 {
    let step = 2.0 * range / f64::from(1u32 << bits);
    ((x / step).floor() + 0.5) * step
}
