//! The fixed-point scale of one input: the largest for which no output can overflow, whatever the weights.

use crate::noise::bounds;
use crate::params::Params;
use zeroize::{Zeroize, Zeroizing};

/// `1.5 * 2^52`: adding it rounds a double of magnitude below `2^51` to an integer, ties to even, and leaves the
/// integer in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Largest magnitude of an int8 weight.
const MAX_WEIGHT: f64 = 127.0;

/// Independent streams in which the largest magnitudes are sought: the lanes of a vector.
const LANES: usize = 16;
/// Largest magnitudes that are kept per lane.
const KEPT: usize = 4;

/// The fixed-point encoding of one input.
pub(crate) struct Fixed {
    scale: f64,
    /// All ones when the input is finite, else 0.
    keep: i64,
}

impl Drop for Fixed {
    fn drop(&mut self) {
        self.scale.zeroize();
        self.keep.zeroize();
    }
}

impl Fixed {
    /// The largest scale that keeps a bound on `max_j |w_j x| scale` below `(q/2)(1 - 2^-5)`. A zero or non-finite input gets
    /// scale 1.
    ///
    /// The bound, provable: for any `m` inputs, `|w x| <= 127 sum |x_i| + |w| |rest of x|`, by the triangle inequality and
    /// Cauchy-Schwarz. It is taken for the `m` largest, `m` in `0..=64`, and the least counts: 0.3 bit better than `m = 0` on
    /// average, 1.6 bits with massive activations.
    ///
    /// Rows with integer weights have norm 0 or at least 1, so `max_row_norm` below 1 counts as 1; then a product `x scale`
    /// is below `2^49`, as [`ROUNDER`] needs.
    pub(crate) fn new(params: &Params, max_row_norm: f64, x: &[f32]) -> Self {
        let bound = output_bound(max_row_norm.max(1.0), x);
        let finite = bound.is_finite();
        // Bounds of f32 inputs are 0 or above 2^-149, so the quotient is finite.
        let scale = if bound > 0.0 && finite { bounds::reach(params) / bound } else { 1.0 };
        Self { scale, keep: -i64::from(finite) }
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.keep != 0
    }

    /// `round(x scale)`; 0 throughout when the input is not finite, so that the traffic does not depend on it.
    #[inline(always)]
    pub(crate) fn encode(&self, x: f32) -> i64 {
        let rounded = f64::from(x) * self.scale + ROUNDER;
        (rounded.to_bits() as i64).wrapping_sub(ROUNDER.to_bits() as i64) & self.keep
    }
}

/// The factor by which a client multiplies `x` before it rounds and encrypts it; as secret as `x`. For measurements.
pub fn input_scale(params: &Params, max_row_norm: f64, x: &[f32]) -> f64 {
    Fixed::new(params, max_row_norm, x).scale()
}

/// Least bound on `|w x|` over all rows of norm up to `row_norm` with entries in `-127..=127`; see [`Fixed::new`].
fn output_bound(row_norm: f64, x: &[f32]) -> f64 {
    let squares = square_sum(x);
    let largest = largest_magnitudes(x);
    let mut least = row_norm * squares.sqrt();
    let (mut sum, mut rest) = (0.0, squares);
    for &magnitude in largest.iter() {
        let magnitude = f64::from(magnitude);
        sum += magnitude;
        // Rounding may leave a rest just below zero; it is then 0 up to 2^-25 of the norm, and the margin is 2^-5.
        rest -= magnitude * magnitude;
        let bound = MAX_WEIGHT * sum + row_norm * rest.max(0.0).sqrt();
        // A comparison with NaN is false, so that an input that is not finite keeps its bound.
        least = if bound < least { bound } else { least };
    }
    sum.zeroize();
    rest.zeroize();
    least
}

/// Up to `LANES * KEPT` large magnitudes of `x`, largest first: the `KEPT` largest of each lane. Without branches.
fn largest_magnitudes(x: &[f32]) -> Zeroizing<[f32; LANES * KEPT]> {
    let mut top = Zeroizing::new([0f32; LANES * KEPT]);
    let mut insert = |values: &[f32]| {
        for (lane, value) in values.iter().enumerate() {
            let mut value = value.abs();
            for rank in 0..KEPT {
                let kept = &mut top[rank * LANES + lane];
                let larger = if value > *kept { value } else { *kept };
                value = if value > *kept { *kept } else { value };
                *kept = larger;
            }
        }
    };
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    chunks.for_each(&mut insert);
    insert(tail);
    sort_descending(&mut top);
    top
}

/// Batcher's odd-even merge sort: the same comparisons whatever the values. `values.len()` must be a power of two.
fn sort_descending(values: &mut [f32; LANES * KEPT]) {
    let n = values.len();
    let mut p = 1;
    while p < n {
        let mut k = p;
        while k > 0 {
            for j in (k % p..n - k).step_by(2 * k) {
                for i in 0..k.min(n - j - k) {
                    if (i + j) / (2 * p) == (i + j + k) / (2 * p) {
                        let (a, b) = (values[i + j], values[i + j + k]);
                        values[i + j] = if a > b { a } else { b };
                        values[i + j + k] = if a > b { b } else { a };
                    }
                }
            }
            k /= 2;
        }
        p *= 2;
    }
}

/// `sum x_i^2`, in eight sums that do not wait for each other. Exact squares, no overflow: f32 values, f64 sums.
fn square_sum(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let chunks = x.chunks_exact(8);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(tail) {
        *sum += f64::from(value) * f64::from(value);
    }
    let total = sums.iter().sum();
    sums.zeroize();
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::sets::n2048_q50_tau;
    use proptest::prelude::*;

    /// Largest `|w x|` over rows with entries in `-127..=127` and norm up to `norm`: spends the norm on the largest inputs
    /// first, `w_i` in proportion to `x_i`, cut at 127. No row does better, so a bound below this would be wrong.
    fn largest_output(norm: f64, x: &[f32]) -> f64 {
        let mut magnitudes: Vec<f64> = x.iter().map(|v| f64::from(v.abs())).collect();
        magnitudes.sort_by(|a, b| b.total_cmp(a));
        (0..=magnitudes.len())
            .map(|m| {
                let (top, rest) = magnitudes.split_at(m);
                let left = norm * norm - 127.0 * 127.0 * m as f64;
                let rest_norm = rest.iter().map(|v| v * v).sum::<f64>().sqrt();
                let fits = left >= 0.0
                    && rest.first().is_none_or(|&v| left.sqrt() * v <= 127.0 * rest_norm * 1.000_001);
                if fits { 127.0 * top.iter().sum::<f64>() + left.sqrt() * rest_norm } else { 0.0 }
            })
            .fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn outputs_stay_in_range_and_encoding_rounds(
            x in prop::collection::vec(prop_oneof![-1e30f32..1e30, -1f32..1.0], 1..200),
            tau in prop_oneof![Just(8usize), Just(64), Just(256)], norm in 0.0..2e4f64,
        ) {
            let params = n2048_q50_tau(tau).unwrap();
            let fixed = Fixed::new(&params, norm, &x);
            let reach = bounds::reach(&params);
            let largest = largest_output(norm.max(1.0), &x) * fixed.scale();
            prop_assert!(largest <= reach * (1.0 + 1e-6), "{largest} of {reach}");
            let squares: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
            prop_assert!(fixed.scale() * norm.max(1.0) * squares.sqrt() >= reach * (1.0 - 1e-9), "never worse than the norm");
            for &v in &x {
                prop_assert_eq!(fixed.encode(v), (f64::from(v) * fixed.scale()).round_ties_even() as i64);
            }
        }

        #[test]
        fn large_magnitudes_come_sorted(x in prop::collection::vec(-1e3f32..1e3, 0..200)) {
            let found = largest_magnitudes(&x);
            prop_assert!(found.windows(2).all(|pair| pair[0] >= pair[1]));
            let largest = x.iter().fold(0f32, |a, b| a.max(b.abs()));
            prop_assert_eq!(found[0], largest);
            let mut all: Vec<f32> = x.iter().map(|v| v.abs()).collect();
            all.sort_by(|a, b| b.total_cmp(a));
            for (rank, value) in found.iter().enumerate().filter(|(_, v)| **v > 0.0) {
                prop_assert!(all[rank] >= *value);
            }
        }
    }

    #[test]
    fn massive_activations_gain_precision() {
        let params = n2048_q50_tau(64).unwrap();
        let mut x = vec![1f32; 576];
        x[100] = 3000.0;
        let norm = 32.0 * 24.0;
        let plain =
            bounds::reach(&params) / (norm * x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt());
        let gained = (Fixed::new(&params, norm, &x).scale() / plain).log2();
        assert!(gained > 1.6, "{gained:.2} bits");
    }

    #[test]
    fn extreme_inputs_have_a_scale() {
        let params = n2048_q50_tau(64).unwrap();
        for x in [[0.0, 0.0], [f32::MIN_POSITIVE, 0.0], [1e-45, 0.0], [f32::MAX, f32::MAX]] {
            let fixed = Fixed::new(&params, 5000.0, &x);
            assert!(fixed.is_finite() && fixed.scale().is_finite() && fixed.scale() > 0.0);
            assert_eq!(fixed.encode(x[0]) == 0, x[0] == 0.0);
        }
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let fixed = Fixed::new(&params, 5000.0, &[1.0, bad]);
            assert!(!fixed.is_finite());
            assert_eq!((fixed.scale(), fixed.encode(1.0), fixed.encode(bad)), (1.0, 0, 0));
        }
    }
}
