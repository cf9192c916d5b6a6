//! Fixed point, pad and noise in one pass over the features; and back in one pass over the rows.
//!
//! Nothing here branches on a secret.

use crate::ciphertext::Reply;
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::params::{BODY_BITS, Params};
use crate::random::noise::NoiseRng;
use crate::secret::SecretWords;
use crate::switch::{Decoder, Switch};
use zeroize::Zeroizing;

/// `1.5 * 2^52`: adding it rounds a double of magnitude below `2^51` to an integer, ties to even, and leaves the
/// integer in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The fixed-point encoding of one input.
pub(crate) struct Fixed {
    scale: f64,
    /// All ones when the input is finite, else 0.
    keep: i64,
}

impl Fixed {
    /// The largest scale such that `phi max_row_norm |x| scale <= (q/2)(1 - 2^-5)`: by Cauchy-Schwarz no output can
    /// overflow, whatever the weights. A zero or non-finite input gets scale 1.
    ///
    /// Rows with integer weights have norm 0 or at least 1, so `max_row_norm` below 1 counts as 1; then a product
    /// `x scale` is below `2^49 / phi`, as [`ROUNDER`] needs.
    pub(crate) fn new(params: &Params, max_row_norm: f64, x: &[f32]) -> Self {
        let norm = square_sum(x).sqrt();
        let reach = params.q() as f64 / 2.0 * (1.0 - 2f64.powi(-5)) / params.phi() as f64;
        let scale = reach / (max_row_norm.max(1.0) * norm);
        let finite = norm.is_finite();
        // Below 2^-900 the quotient could overflow; f32 norms are 0 or above 2^-149.
        let scale = if norm > 0.0 && finite { scale } else { 1.0 };
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
    sums.iter().sum()
}

/// `v_i = round((A s)[f + phi t] + e_i + X_i, from q to 2^40)` with fresh noise.
///
/// `pads`: at least as many words as `message` has integers, each of magnitude below `q`.
pub(super) fn encrypt_words(
    instance: &Instance,
    pads: &SecretWords,
    message: impl ExactSizeIterator<Item = i64>,
    rng: &mut NoiseRng,
) -> Vec<u64> {
    let mut noise = Zeroizing::new(vec![0i8; message.len()]);
    rng.fill_small_noise(instance.params(), &mut noise);
    masked(instance, pads, message, &noise)
}

/// As [`encrypt_words`] with given noise.
pub(crate) fn masked(
    instance: &Instance,
    pads: &[u64],
    message: impl ExactSizeIterator<Item = i64>,
    noise: &[i8],
) -> Vec<u64> {
    let ring = instance.ring();
    let switch = Switch::new(ring.modulus(), BODY_BITS);
    let mut words = SecretWords::zeroed(message.len());
    for ((word, message), &pad) in words.iter_mut().zip(message).zip(pads) {
        // |message| < q - 2^7 and pad < q: with noise the sum is above -q and below 2q.
        *word = pad.wrapping_add_signed(message);
    }
    pointwise::switch_noisy(ring.isa(), &switch, &mut words, noise);
    words.publish()
}

/// `phi u_j + correction_j mod q`, centred, for every row, in place of `corrections`.
///
/// # Panics
/// If `reply` has another number of words than there are corrections.
pub(crate) fn decode_centred<'a>(
    instance: &Instance,
    corrections: &'a mut [u64],
    reply: &Reply,
) -> impl Iterator<Item = i64> + 'a {
    let ring = instance.ring();
    let decoder = Decoder::new(ring.modulus(), instance.params().phi());
    pointwise::decode(ring.isa(), &decoder, reply.words(), corrections);
    corrections.iter().map(|&value| value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::sets::n2048_q50_tau;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn outputs_stay_in_range_and_encoding_rounds(
            x in prop::collection::vec(-1e30f32..1e30, 1..40), tau in prop_oneof![Just(8usize), Just(64), Just(256)], norm in 0.0..2e4f64,
        ) {
            let params = n2048_q50_tau(tau).unwrap();
            let fixed = Fixed::new(&params, norm, &x);
            let squares: f64 = x.iter().map(|&v| fixed.encode(v) as f64).map(|v| v * v).sum();
            let reach = params.phi() as f64 * norm.max(1.0) * squares.sqrt();
            prop_assert!(reach <= params.q() as f64 / 2.0 * (1.0 - 2f64.powi(-6)), "{reach}");
            for &v in &x {
                prop_assert_eq!(fixed.encode(v), (f64::from(v) * fixed.scale()).round_ties_even() as i64);
            }
        }
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
