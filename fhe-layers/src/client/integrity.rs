//! Whether the server multiplies by the pinned weights: Freivalds' check on every reply.
//!
//! Whoever holds the weights draws, in secret, 32 subsets `r_k` of a round's rows (`r_k` in `{0, 1}^rows`) and keeps
//! `c_k = r_k^T W`. With these and without the weights a client checks each reply:
//!
//! * **Words** ([`RoundCheck::reply_misfits`]): `r_k^T u = c_k v mod 2^40`. An honest reply word, times `2^8`, differs
//!   from `W v mod 2^40` by at most `2^7` (32 of 40 bits, rounded to nearest), so an honest sum is within
//!   `2^7 |r_k|_1`: never flagged, whatever weights and body. Nothing is decrypted: the verdict depends on words that the
//!   server has seen and on `r_k`, so a client may stop because of it.
//! * **Values** ([`RoundCheck::value_misfits`]): `r_k^T y = c_k x` for the decoded result, within twelve deviations of
//!   the documented noise. This covers the mask half as well. It depends on decrypted values: **the verdict may be shown to
//!   the local user and must change nothing that the server sees**.
//!
//! A reply with an error above `2^8 |r_k|_1` in any row passes one vector with probability at most 1/2, whatever the other
//! errors are: with the other choices fixed, the row's own error is added or not, and only one of the two sums can lie in
//! a window narrower than it. Hence `2^-32` for all of them, over the drawing of `r`, for errors chosen without knowing it.
//! Signs instead of subsets would not do: modulo `2^40` a server that adds `2^39` to two rows would always pass.
//!
//! Source: R. Freivalds, *Probabilistic machines can use less running time*, IFIP 1977; the modulus and the rounding
//! are this protocol's.

use super::scale::Fixed;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::form::{WORD_BITS, Widths, WireForm};
use crate::layout::RoundSpec;
use crate::noise::bounds;
use crate::params::{BODY_BITS, Params, REPLY_BITS};
use crate::random::noise::NoiseRng;
use crate::words::{WordBody, WordReply};
use zeroize::Zeroizing;

/// Test vectors of a round: a wrong reply passes with probability `2^-VECTORS`.
pub const VECTORS: usize = 32;

/// Bits that a reply word drops.
const DROPPED_BITS: u32 = BODY_BITS - REPLY_BITS;

/// Largest rounding error of a reply word on the scale of `W v`.
const ROUNDING: u64 = 1 << (DROPPED_BITS - 1);

/// Values may be off by this many standard deviations of the documented noise.
const VALUE_SIGMAS: f64 = 12.0;

/// Maximum rows of a round: sums of `127 rows` fit an `i32`.
const MAX_ROUND_ROWS: usize = 1 << 24;

/// The secret test vectors of one round and their products with its weights.
///
/// Secret from the server: who knows the choices can cheat unseen.
pub struct RoundCheck {
    d_in: usize,
    /// Bit `k` of word `j`: whether vector `k` includes row `j`, `[rows]`.
    choices: Zeroizing<Vec<u32>>,
    /// `c_k[i]` at `[i * VECTORS + k]`, `[d_in][VECTORS]`.
    sums: Zeroizing<Vec<i32>>,
    /// Rows that vector `k` includes.
    included: [u64; VECTORS],
    /// `|c_k|^2`.
    squares: [f64; VECTORS],
}

impl RoundCheck {
    /// Draws the vectors of a round from `rng` and multiplies them by its weights. `matrices`: as `spec` lists them, each
    /// `[rows, columns.len()]` int8, row-major.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for matrices of another shape.
    pub fn new(spec: &RoundSpec, matrices: &[&[i8]], rng: &mut NoiseRng) -> Result<Self> {
        Error::check("matrices of a round", spec.matrices.len(), matrices.len())?;
        let rows = spec.rows();
        if rows > MAX_ROUND_ROWS {
            let got = rows as u64;
            return Err(Error::OutOfRange { what: "rows of a round", range: "at most 2^24", got });
        }
        let mut bytes = Zeroizing::new(vec![0u8; 4 * rows]);
        rng.fill_bytes(&mut bytes);
        let choices = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let choices = Zeroizing::new(choices.collect::<Vec<_>>());
        let mut sums = Zeroizing::new(vec![0i32; spec.d_in * VECTORS]);
        let mut first = 0;
        for (matrix, weights) in spec.matrices.iter().zip(matrices) {
            Error::check("weights of a matrix", matrix.rows * matrix.columns.len(), weights.len())?;
            let choices = &choices[first..first + matrix.rows];
            let columns = matrix.columns.start * VECTORS..matrix.columns.end * VECTORS;
            add_sums(choices, weights, &mut sums[columns]);
            first += matrix.rows;
        }
        let mut included = [0; VECTORS];
        for choice in choices.iter() {
            each_vector(&mut included, |k, count| *count += u64::from(choice >> k & 1));
        }
        let mut squares = [0.0; VECTORS];
        for column in sums.chunks_exact(VECTORS) {
            each_vector(&mut squares, |k, square| *square += f64::from(column[k]).powi(2));
        }
        Ok(Self { d_in: spec.d_in, choices, sums, included, squares })
    }

    /// Features of the round's input.
    pub fn d_in(&self) -> usize {
        self.d_in
    }

    /// Rows of the round.
    pub fn rows(&self) -> usize {
        self.choices.len()
    }

    /// As [`RoundCheck::reply_misfits`] in the stateless form: the same modulo `2^32`, with replies of `R` bits.
    ///
    /// An honest sum is within `2^(31 - R) |r_k|_1`. In the lean form there is no such check: a reply contains words that the
    /// client does not know.
    ///
    /// # Errors
    /// As [`RoundCheck::reply_misfits`].
    pub fn word_misfits(&self, body: &WordBody, reply: &WordReply, widths: Widths) -> Result<u32> {
        Error::check("words of a body", self.d_in, body.words().len())?;
        Error::check("words of a reply", self.rows(), reply.words().len())?;
        let left = self.subset_sums(reply.words().iter().copied(), u32::wrapping_add);
        let mut right = [0u32; VECTORS];
        for (&word, column) in body.words().iter().zip(self.sums.chunks_exact(VECTORS)) {
            each_vector(&mut right, |k, sum| {
                *sum = sum.wrapping_add(word.wrapping_mul(column[k].cast_unsigned()))
            });
        }
        let rounding = 1u64 << (WORD_BITS - 1 - widths.reply());
        Ok(misfits(|k| {
            let difference = left[k].wrapping_sub(right[k]).cast_signed();
            u64::from(difference.unsigned_abs()) > rounding * self.included[k]
        }))
    }

    /// The vectors that `reply` to `body` does not fit in the full form, bit `k` for vector `k`: 0 for an honest reply, always.
    ///
    /// Which bits are set is a secret; whether any is may be acted upon.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of words.
    pub fn reply_misfits(&self, body: &Body, reply: &Reply) -> Result<u32> {
        Error::check("words of a body", self.d_in, body.words().len())?;
        Error::check("words of a reply", self.rows(), reply.words().len())?;
        let left = self.subset_sums(reply.words().iter().map(|&word| u64::from(word)), u64::wrapping_add);
        let mut right = [0u64; VECTORS];
        for (&word, column) in body.words().iter().zip(self.sums.chunks_exact(VECTORS)) {
            // Modulo 2^64, hence modulo 2^40.
            each_vector(&mut right, |k, sum| {
                *sum = sum.wrapping_add(word.wrapping_mul(i64::from(column[k]).cast_unsigned()));
            });
        }
        Ok(misfits(|k| {
            let difference = (left[k] << DROPPED_BITS).wrapping_sub(right[k]);
            let centred = (difference << (64 - BODY_BITS)).cast_signed() >> (64 - BODY_BITS);
            centred.unsigned_abs() > ROUNDING * self.included[k]
        }))
    }

    /// The vectors that the decoded result does not fit, bit `k` for vector `k`.
    ///
    /// `x`: what was encrypted, `[d_in]`; `max_row_norm`: what it was encrypted with; `y`: what
    /// [`crate::PendingReply::decode`] gave, `[rows]`. Inputs that are not finite fit anything: zeros were sent.
    ///
    /// The result depends on decrypted values: the server must not be able to observe it in any way.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of values.
    pub fn value_misfits(&self, params: &Params, max_row_norm: f64, x: &[f32], y: &[f32]) -> Result<u32> {
        self.value_misfits_in(WireForm::Full, params, max_row_norm, x, y)
    }

    /// As [`RoundCheck::value_misfits`] for results of `form`.
    ///
    /// # Errors
    /// As [`RoundCheck::value_misfits`].
    pub fn value_misfits_in(
        &self,
        form: WireForm,
        params: &Params,
        max_row_norm: f64,
        x: &[f32],
        y: &[f32],
    ) -> Result<u32> {
        Error::check("activations", self.d_in, x.len())?;
        Error::check("outputs", self.rows(), y.len())?;
        let fixed = Fixed::new(params, max_row_norm, x);
        if !fixed.is_finite() {
            return Ok(0);
        }
        let left = self.subset_sums(y.iter().map(|&value| f64::from(value)), |a, b| a + b);
        let mut right = [0.0; VECTORS];
        for (&value, column) in x.iter().zip(self.sums.chunks_exact(VECTORS)) {
            each_vector(&mut right, |k, sum| *sum += f64::from(value) * f64::from(column[k]));
        }
        // Per row: packing, re-randomisation and switching are as good as independent; the reply's rounding is not
        // when rows are alike, so it counts in full.
        let parts = bounds::parts(params, form, 1.0);
        let per_row = parts.key_switch + parts.rerandomisation + parts.mask + parts.words;
        let rounding = params.q() as f64 / 2f64.powi(form.reply_bits() as i32 + 1) + 1.0;
        // Noise, switching and fixed point of the input are common to all rows: they go through `c_k`.
        let per_square = parts.body + 1.0 / 12.0;
        // A decoded value is an f32.
        let decoded = y.iter().map(|&value| f64::from(value).abs()).sum::<f64>() * 2f64.powi(-24);
        Ok(misfits(|k| {
            let included = self.included[k] as f64;
            let deviation = (included * per_row + self.squares[k] * per_square).sqrt();
            let noise = (VALUE_SIGMAS * deviation + included * rounding) / fixed.scale();
            let fits = (left[k] - right[k]).abs() <= noise + decoded;
            !fits
        }))
    }

    /// For every vector the sum of the values of its rows: per byte of the choices one sum for each of its 256 values,
    /// then each bit's half of them.
    fn subset_sums<T: Copy + Default>(
        &self,
        values: impl Iterator<Item = T>,
        add: impl Fn(T, T) -> T,
    ) -> [T; VECTORS] {
        let mut buckets = [[T::default(); 256]; VECTORS / 8];
        for (choice, value) in self.choices.iter().zip(values) {
            for (bucket, byte) in buckets.iter_mut().zip(choice.to_le_bytes()) {
                let sum = &mut bucket[usize::from(byte)];
                *sum = add(*sum, value);
            }
        }
        let mut sums = [T::default(); VECTORS];
        for (bucket, sums) in buckets.iter_mut().zip(sums.chunks_exact_mut(8)) {
            for bit in (0..8).rev() {
                let (low, high) = bucket.split_at_mut(1 << bit);
                for (low, &high) in low.iter_mut().zip(high.iter().take(1 << bit)) {
                    sums[bit] = add(sums[bit], high);
                    *low = add(*low, high);
                }
            }
        }
        sums
    }
}

/// Adds `r_k^T W` of one matrix to `sums`, `[columns][VECTORS]`: as [`RoundCheck::subset_sums`], for whole rows.
fn add_sums(choices: &[u32], weights: &[i8], sums: &mut [i32]) {
    let columns = sums.len() / VECTORS;
    let mut buckets = Zeroizing::new(vec![0i32; 256 * columns]);
    for byte in 0..VECTORS / 8 {
        buckets.fill(0);
        for (choice, row) in choices.iter().zip(weights.chunks_exact(columns)) {
            let bucket = usize::from(choice.to_le_bytes()[byte]);
            let bucket = &mut buckets[bucket * columns..(bucket + 1) * columns];
            bucket.iter_mut().zip(row).for_each(|(sum, &weight)| *sum += i32::from(weight));
        }
        for bit in (0..8).rev() {
            let (low, high) = buckets.split_at_mut(columns << bit);
            for (low, high) in low.chunks_exact_mut(columns).zip(high.chunks_exact(columns)) {
                let column_sums = sums.iter_mut().skip(8 * byte + bit).step_by(VECTORS);
                for ((sum, low), &high) in column_sums.zip(low).zip(high) {
                    *sum += high;
                    *low += high;
                }
            }
        }
    }
}

fn each_vector<T>(values: &mut [T; VECTORS], mut action: impl FnMut(usize, &mut T)) {
    values.iter_mut().enumerate().for_each(|(k, value)| action(k, value));
}

/// One bit per vector; all of them are computed, whatever the first ones say.
fn misfits(fails: impl Fn(usize) -> bool) -> u32 {
    (0..VECTORS).fold(0, |bits, k| bits | u32::from(fails(k)) << k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MatrixSpec;
    use proptest::prelude::*;

    const SPEC: fn() -> RoundSpec = || RoundSpec {
        d_in: 9,
        matrices: vec![MatrixSpec { rows: 21, columns: 0..9 }, MatrixSpec { rows: 40, columns: 3..8 }],
    };

    /// Random weights and the same as dense rows over the whole input.
    fn weights(seed: u64) -> (Vec<Vec<i8>>, Vec<[i64; 9]>) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % 255) as i8 as i64
        };
        let (mut raw, mut dense) = (Vec::new(), Vec::new());
        for matrix in SPEC().matrices {
            let mut values = Vec::new();
            for _ in 0..matrix.rows {
                let mut row = [0; 9];
                for column in matrix.columns.clone() {
                    row[column] = next().max(-127);
                    values.push(row[column] as i8);
                }
                dense.push(row);
            }
            raw.push(values);
        }
        (raw, dense)
    }

    fn check(raw: &[Vec<i8>], seed: u64) -> RoundCheck {
        let matrices: Vec<&[i8]> = raw.iter().map(Vec::as_slice).collect();
        RoundCheck::new(&SPEC(), &matrices, &mut NoiseRng::from_seed(u128::from(seed))).unwrap()
    }

    #[test]
    fn sums_are_those_of_the_chosen_rows() {
        let (raw, dense) = weights(5);
        let check = check(&raw, 7);
        for k in 0..VECTORS {
            let chosen = || check.choices.iter().zip(&dense).filter(|(choice, _)| *choice >> k & 1 == 1);
            assert_eq!(check.included[k], chosen().count() as u64);
            for column in 0..9 {
                let expected: i64 = chosen().map(|(_, row)| row[column]).sum();
                assert_eq!(i64::from(check.sums[column * VECTORS + k]), expected, "vector {k}");
            }
        }
        assert!(check.included.iter().all(|&count| (12..=49).contains(&count)), "{:?}", check.included);
    }

    proptest! {
        /// Every rounding that a reply may have is let through; one more step in a chosen row of many is not certain to be
        /// seen, but an error above twice the tolerance is, by exactly the vectors that include its row.
        #[test]
        fn errors_are_seen_by_the_vectors_of_their_row(
            seed: u64, words in prop::collection::vec(0u64..1 << 40, 9), row in 0usize..61, error in 1u32 << 8..1 << 31,
        ) {
            let (raw, dense) = weights(seed);
            let check = check(&raw, seed);
            let product = |row: &[i64; 9]| -> i64 {
                row.iter().zip(&words).fold(0, |sum, (&w, &v)| sum.wrapping_add(w.wrapping_mul(v as i64)))
            };
            let up: Vec<u32> = dense.iter().map(|row| ((product(row) + 128) >> 8) as u32).collect();
            let body = Body::from_words(words.clone()).unwrap();
            prop_assert_eq!(check.reply_misfits(&body, &Reply::from_words(up.clone())).unwrap(), 0);
            let mut wrong = up;
            wrong[row] = wrong[row].wrapping_add(error);
            let seen = check.reply_misfits(&body, &Reply::from_words(wrong)).unwrap();
            prop_assert_eq!(seen, check.choices[row]);
        }

        /// The same in the stateless form.
        #[test]
        fn word_errors_are_seen_by_the_vectors_of_their_row(
            seed: u64, words in prop::collection::vec(any::<u32>(), 9), row in 0usize..61, error in 1u32 << 8..1 << 19,
        ) {
            let widths = Widths::STATELESS;
            let (raw, dense) = weights(seed);
            let check = check(&raw, seed);
            let words: Vec<u32> = words.into_iter().map(|word| word & 0xffff_fff0).collect();
            let product = |row: &[i64; 9]| -> u32 {
                row.iter().zip(&words).fold(0, |sum, (&w, &v)| sum.wrapping_add((w as u32).wrapping_mul(v)))
            };
            let up: Vec<u32> = dense.iter().map(|row| product(row).wrapping_add(1 << 11) & 0xffff_f000).collect();
            let body = WordBody::from_words(words.clone(), widths).unwrap();
            let reply = |words| WordReply::new(words, widths);
            prop_assert_eq!(check.word_misfits(&body, &reply(up.clone()), widths).unwrap(), 0);
            let mut wrong = up;
            wrong[row] = wrong[row].wrapping_add(error << 12);
            prop_assert_eq!(check.word_misfits(&body, &reply(wrong), widths).unwrap(), check.choices[row]);
        }
    }

    #[test]
    fn shapes_are_checked() {
        let (raw, _) = weights(1);
        let short = [raw[0].as_slice()];
        assert!(RoundCheck::new(&SPEC(), &short, &mut NoiseRng::from_seed(1)).is_err());
        let short = [raw[0].as_slice(), &raw[1][1..]];
        assert!(RoundCheck::new(&SPEC(), &short, &mut NoiseRng::from_seed(1)).is_err());
        let check = check(&raw, 1);
        let body = |len| Body::from_words(vec![0; len]).unwrap();
        assert!(check.reply_misfits(&body(8), &Reply::from_words(vec![0; 61])).is_err());
        assert!(check.reply_misfits(&body(9), &Reply::from_words(vec![0; 60])).is_err());
    }
}
