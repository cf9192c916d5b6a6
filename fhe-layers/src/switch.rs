//! Exact modulus switching: `q` to a power of two and back, rounding to nearest, halves up.
//!
//! No division: the quotient comes from a product of doubles and one correction, operations that vectors have:
//! [`crate::kernels::pointwise::switch_down`].

/// Switches residues modulo `q` to `bits`-bit words and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    q: u64,
    bits: u32,
    /// `2^bits / q`.
    ratio: f64,
}

/// Adding this to a double below it rounds to an integer, which its low 52 bits then hold.
const TWO_POW_52: f64 = (1u64 << 52) as f64;

impl Switch {
    /// For `2^49 < q < 2^50` and `bits <= 40`.
    ///
    /// # Panics
    /// If `q` or `bits` is out of range.
    pub(crate) fn new(q: u64, bits: u32) -> Self {
        assert!(q > 1 << 49 && q < 1 << 50 && (1..=40).contains(&bits), "switch from {q} to {bits} bits");
        let ratio = (1u64 << bits) as f64 / q as f64;
        Self { q, bits, ratio }
    }

    /// `round(v 2^bits / q) mod 2^bits` for `v < q`.
    ///
    /// `v < 2^50` is exact as a double, and `v ratio`, below `2^40`, within `2^-11` of `v 2^bits / q`: the integer next to it is
    /// at most one off from the quotient rounded, and the rest, between `-q` and `2q`, says so.
    #[inline(always)]
    pub(crate) fn down(&self, v: u64) -> u64 {
        let value = f64::from_bits(v | TWO_POW_52.to_bits()) - TWO_POW_52;
        let estimate = (value * self.ratio + TWO_POW_52).to_bits() & ((1 << 52) - 1);
        let rest = (v << self.bits).wrapping_add(self.q / 2).wrapping_sub(estimate.wrapping_mul(self.q));
        let less = rest >> 63;
        let more = u64::from(rest as i64 >= self.q as i64);
        estimate.wrapping_sub(less).wrapping_add(more) & ((1 << self.bits) - 1)
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
    use crate::kernels::{Isa, pointwise};
    use crate::params::sets::Q;
    use proptest::prelude::*;

    fn reference_down(v: u64, bits: u32) -> u64 {
        let (num, den) = (u128::from(v) << bits, u128::from(Q));
        ((2 * num + den) / (2 * den) % (1 << bits)) as u64
    }

    fn check_down(switch: &Switch, v: u64) {
        let expected = reference_down(v, switch.bits);
        for isa in Isa::supported() {
            // A vector and what is left over.
            let mut words = [v; 19];
            pointwise::switch_down(isa, switch, &mut words);
            assert_eq!(words, [expected; 19], "{isa}");
        }
    }

    proptest! {
        #[test]
        fn equals_division(v in prop_oneof![0..Q, Just(0), Just(Q - 1), Just(Q / 2), Just(Q / 2 + 1)], bits in prop_oneof![Just(32u32), Just(40)]) {
            let switch = Switch::new(Q, bits);
            check_down(&switch, v);
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
            check_down(&switch, v);
        }
    }
}
