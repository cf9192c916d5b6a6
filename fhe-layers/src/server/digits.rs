//! Digits, final masks and folds as bytes: what tables keep of each block besides the NTT form.

use crate::kernels::pointwise::Fold;

/// Bytes of a coefficient of a final mask: residues have 50 bits.
pub(crate) const MASK_BYTES: usize = 7;

/// Writes signed digits, `width` bytes each, little-endian. `width`: 2 or 3, enough for every digit.
pub(crate) fn store_digits(digits: &[i32], width: usize, out: &mut [u8]) {
    assert_eq!(out.len(), width * digits.len(), "bytes of the digits");
    for (out, digit) in out.chunks_exact_mut(width).zip(digits) {
        out.copy_from_slice(&digit.to_le_bytes()[..width]);
    }
}

/// Reads what [`store_digits`] wrote.
pub(crate) fn load_digits(bytes: &[u8], width: usize, out: &mut [i32]) {
    assert_eq!(bytes.len(), width * out.len(), "bytes of the digits");
    // Two loops, so that the compiler sees the width.
    match width {
        2 => {
            for (digit, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *digit = i32::from(i16::from_le_bytes([b[0], b[1]]));
            }
        }
        _ => {
            for (digit, b) in out.iter_mut().zip(bytes.chunks_exact(3)) {
                *digit = i32::from_le_bytes([0, b[0], b[1], b[2]]) >> 8;
            }
        }
    }
}

/// Writes residues below `2^56`, seven bytes each.
pub(crate) fn store_mask(words: &[u64], out: &mut [u8]) {
    assert_eq!(out.len(), MASK_BYTES * words.len(), "bytes of a mask");
    for (out, word) in out.chunks_exact_mut(MASK_BYTES).zip(words) {
        out.copy_from_slice(&word.to_le_bytes()[..MASK_BYTES]);
    }
}

/// Reads what [`store_mask`] wrote.
pub(crate) fn load_mask(bytes: &[u8], out: &mut [u64]) {
    assert_eq!(bytes.len(), MASK_BYTES * out.len(), "bytes of a mask");
    for (word, b) in out.iter_mut().zip(bytes.chunks_exact(MASK_BYTES)) {
        *word = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], 0]);
    }
}

/// The part of a block's phase error that is known when it is prepared: the mean of the chain's rounding errors.
///
/// `error = sum_j rho_j sigma^j(s)` with `rho_j` what the gadget rounded away in rotation `j`, and `s` has mean 1/2. Half of
/// `sum_j rho_j sigma^j(1 + X + ...)` is therefore subtracted from every body; what is left has half the variance. It is
/// kept in steps of `2^(drop - 5)`: two bytes hold 28 deviations at tau 64 and 10 at tau 8, and the step adds nothing that
/// shows next to `2^drop sqrt(N phi / 48)`.
#[derive(Clone, Copy)]
pub(crate) struct FoldStep(u32);

impl FoldStep {
    pub(crate) fn new(drop: u32) -> Self {
        Self(drop.saturating_sub(5))
    }

    /// The nearest multiple of the step to half of `twice`, clamped to what two bytes hold.
    pub(crate) fn store(self, twice: i64) -> i16 {
        let half_step = if self.0 == 0 { 0 } else { 1i64 << (self.0 - 1) };
        let steps = ((twice >> 1) + half_step) >> self.0;
        steps.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16
    }

    /// A fold as the kernels take it.
    pub(crate) fn of(self, steps: &[i16]) -> Fold<'_> {
        Fold { steps, shift: self.0 }
    }

    /// `words[i] -= fold[i]`, as wrapped words between `-q` and `2q` for residues `words`: the fold is below `2^37`.
    pub(crate) fn subtract(self, fold: &[i16], words: &mut [u64]) {
        for (word, &steps) in words.iter_mut().zip(fold) {
            *word = word.wrapping_sub((i64::from(steps) << self.0) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stored_is_loaded(values in prop::collection::vec(-(1i32 << 22)..=1 << 22, 0..50), wide: bool) {
            let width = if wide { 3 } else { 2 };
            let digits: Vec<i32> = values.iter().map(|&v| if wide { v } else { v >> 7 }).collect();
            let mut bytes = vec![0; width * digits.len()];
            store_digits(&digits, width, &mut bytes);
            let mut loaded = vec![0; digits.len()];
            load_digits(&bytes, width, &mut loaded);
            prop_assert_eq!(loaded, digits);
            let words: Vec<u64> = values.iter().map(|&v| (v as u64).wrapping_mul(0x9e37_79b9_7f4a) >> 14).collect();
            let mut bytes = vec![0; MASK_BYTES * words.len()];
            store_mask(&words, &mut bytes);
            let mut loaded = vec![0; words.len()];
            load_mask(&bytes, &mut loaded);
            prop_assert_eq!(loaded, words);
        }

        #[test]
        fn folds_are_rounded_to_the_step(twice in -(1i64 << 32)..1 << 32, drop in prop_oneof![Just(20u32), Just(27)]) {
            let step = FoldStep::new(drop);
            let mut word = [1u64 << 40];
            step.subtract(&[step.store(twice)], &mut word);
            let folded = (1i64 << 40) - word[0] as i64;
            let largest = (1i64 << 15) << (drop - 5);
            prop_assert!((folded - (twice >> 1)).abs() <= 1 << (drop - 6) || (twice >> 1).abs() >= largest - (1 << drop));
        }
    }
}
