//! Exact modulus switching: `q` to a power of two and back, rounding to nearest, halves up.
//!
//! No division: the quotient comes from one high product with a precomputed reciprocal and one correction.

/// Switches residues modulo `q` to `bits`-bit words and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    q: u64,
    bits: u32,
    /// `floor(2^(64 + bits) / q)`, below `2^(15 + bits)` for `q > 2^49`.
    reciprocal: u64,
}

impl Switch {
    /// For `2^49 < q < 2^50` and `bits <= 40`.
    ///
    /// # Panics
    /// If `q` or `bits` is out of range.
    pub(crate) fn new(q: u64, bits: u32) -> Self {
        assert!(q > 1 << 49 && q < 1 << 50 && (1..=40).contains(&bits), "switch from {q} to {bits} bits");
        Self { q, bits, reciprocal: ((1u128 << (64 + bits)) / u128::from(q)) as u64 }
    }

    /// `round(v 2^bits / q) mod 2^bits` for `v < q`.
    ///
    /// The estimate `floor(v reciprocal / 2^64)` is at most the true quotient and at most 1 below it plus one for the
    /// half, since `v reciprocal / 2^64 > v 2^bits / q - v / 2^64`; so the remainder is below `3q < 2^64` and wrapping
    /// arithmetic recovers it exactly.
    #[inline(always)]
    pub(crate) fn down(&self, v: u64) -> u64 {
        let estimate = ((u128::from(v) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut rest = (v << self.bits).wrapping_add(self.q / 2).wrapping_sub(estimate.wrapping_mul(self.q));
        let mut quotient = estimate;
        for _ in 0..2 {
            let more = u64::from(rest >= self.q);
            quotient += more;
            rest = rest.wrapping_sub(self.q & more.wrapping_neg());
        }
        quotient & ((1 << self.bits) - 1)
    }

    /// `round(w q / 2^bits)` for `w < 2^bits`; below `q`.
    #[inline(always)]
    pub(crate) fn up(&self, w: u64) -> u64 {
        ((u128::from(w) * u128::from(self.q) + (1 << (self.bits - 1))) >> self.bits) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Switch;
    use crate::params::sets::Q;
    use proptest::prelude::*;

    fn reference_down(v: u64, bits: u32) -> u64 {
        let (num, den) = (u128::from(v) << bits, u128::from(Q));
        ((2 * num + den) / (2 * den) % (1 << bits)) as u64
    }

    proptest! {
        #[test]
        fn equals_division(v in prop_oneof![0..Q, Just(0), Just(Q - 1), Just(Q / 2), Just(Q / 2 + 1)], bits in prop_oneof![Just(32u32), Just(40)]) {
            let switch = Switch::new(Q, bits);
            prop_assert_eq!(switch.down(v), reference_down(v, bits));
            let w = v & ((1 << bits) - 1);
            let up = ((2 * u128::from(w) * u128::from(Q) + (1 << bits)) >> (bits + 1)) as u64;
            prop_assert_eq!(switch.up(w), up);
            prop_assert!(switch.up(w) < Q);
        }

        #[test]
        fn equals_division_near_ties(w in 0u64..1 << 40, offset in -3i64..=3, bits in prop_oneof![Just(32u32), Just(40)]) {
            let switch = Switch::new(Q, bits);
            let w = u128::from(w & ((1 << bits) - 1));
            let tie = (((2 * w + 1) * u128::from(Q)) >> (bits + 1)) as i64;
            let v = (tie + offset).clamp(0, Q as i64 - 1) as u64;
            prop_assert_eq!(switch.down(v), reference_down(v, bits));
        }
    }
}
