//! Exact modulus switching: `q` to a power of two and back, rounding to nearest, halves up.
//!
//! No division: the quotient comes from a product of doubles and one correction, operations that vectors have. Whole slices
//! are switched by [`crate::kernels::pointwise`].

use crate::arith::Modulus;

/// Switches residues modulo `q` to `bits`-bit words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    modulus: Modulus,
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
    pub(crate) fn new(modulus: &Modulus, bits: u32) -> Self {
        let q = modulus.q();
        assert!(q > 1 << 49 && (1..=40).contains(&bits), "switch from {q} to {bits} bits");
        Self { modulus: *modulus, bits, ratio: (1u64 << bits) as f64 / q as f64 }
    }

    /// Bits of a word.
    #[inline(always)]
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// `round((v + noise) 2^bits / q) mod 2^bits` for `-q < v + noise < 2q`, a negative `v` as a wrapped word.
    #[inline(always)]
    pub(crate) fn down(&self, v: u64, noise: i8) -> u64 {
        self.residue_down(self.modulus.residue(v.wrapping_add_signed(i64::from(noise))))
    }

    /// `round(v 2^bits / q) mod 2^bits` for `v < q`.
    ///
    /// `v < 2^50` is exact as a double, and `v ratio`, below `2^40`, within `2^-11` of `v 2^bits / q`: the integer next to it is
    /// at most one off from the quotient rounded, and the rest, between `-q` and `2q`, says so.
    #[inline(always)]
    fn residue_down(&self, v: u64) -> u64 {
        let (q, estimate) = (self.modulus.q(), nearest(v, self.ratio));
        let rest = (v << self.bits).wrapping_add(q / 2).wrapping_sub(estimate.wrapping_mul(q));
        let less = rest >> 63;
        let more = u64::from(rest as i64 >= q as i64);
        estimate.wrapping_sub(less).wrapping_add(more) & ((1 << self.bits) - 1)
    }
}

/// `round(w q / 2^32)`, below `q`.
#[inline(always)]
pub(crate) fn up(modulus: &Modulus, w: u32) -> u64 {
    let (high, low) = (modulus.q() >> 32, modulus.q() & u64::from(u32::MAX));
    // Below 2^50 and 2^64: the halves of the product stay words.
    u64::from(w) * high + ((u64::from(w) * low + (1 << 31)) >> 32)
}

/// An integer next to `v ratio`, for `v` and the product below `2^52`: without a conversion, which vectors may lack.
#[inline(always)]
fn nearest(v: u64, ratio: f64) -> u64 {
    let value = f64::from_bits(v | TWO_POW_52.to_bits()) - TWO_POW_52;
    (value * ratio + TWO_POW_52).to_bits() & ((1 << 52) - 1)
}

#[cfg(test)]
mod tests {
    use super::Switch;
    use crate::arith::Modulus;
    use crate::kernels::{Isa, pointwise};
    use crate::params::sets::Q;
    use proptest::prelude::*;

    fn modulus() -> Modulus {
        Modulus::new(Q).unwrap()
    }

    fn reference_down(v: u64, bits: u32) -> u64 {
        let (num, den) = (u128::from(v) << bits, u128::from(Q));
        ((2 * num + den) / (2 * den) % (1 << bits)) as u64
    }

    fn check_down(switch: &Switch, v: u64) {
        let expected = reference_down(v, switch.bits);
        // The noisy sum may lie one modulus below or above; a zero, not below.
        let turns = if v == 0 { 0..=1 } else { -1..=1 };
        for (turn, noise) in turns.flat_map(|turn| [0, i8::MIN, i8::MAX].map(|noise| (turn, noise))) {
            let word = v.wrapping_add_signed(turn * Q as i64 - i64::from(noise));
            for isa in Isa::supported() {
                // Vectors and what is left over.
                let mut words = [word; 19];
                pointwise::switch_noisy(isa, switch, &mut words, &[noise; 19]);
                assert_eq!(words, [expected; 19], "{isa}, turn {turn}, noise {noise}");
            }
        }
    }

    fn check_folded(switch: &Switch, v: u64, steps: i16, shift: u32) {
        let folded = (i128::from(v) - (i128::from(steps) << shift)).rem_euclid(i128::from(Q)) as u64;
        let expected = (reference_down(folded, switch.bits) as u32) << (32 - switch.bits);
        for isa in Isa::supported() {
            let (mut out, fold) = ([0; 19], pointwise::Fold { steps: &[steps; 19], shift });
            pointwise::switch_folded(isa, switch, &fold, &[v; 19], &mut out);
            assert_eq!(out, [expected; 19], "{isa}, {steps} steps of 2^{shift}");
        }
    }

    #[test]
    fn bits_are_spread_lowest_first() {
        for isa in Isa::supported() {
            let mut out = [7; 24];
            pointwise::spread_bits(isa, &[0b1000_0001, 0xff, 0b10], &mut out);
            let expected = [1u64, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(out, expected, "{isa}");
        }
    }

    fn check_up(w: u32) {
        let expected = ((2 * u128::from(w) * u128::from(Q) + (1 << 32)) >> 33) as u64;
        for isa in Isa::supported() {
            let mut words = [0; 19];
            pointwise::switch_up(isa, &modulus(), &[w; 19], &mut words);
            assert_eq!(words, [expected; 19], "{isa}");
        }
    }

    proptest! {
        #[test]
        fn equals_division(v in prop_oneof![0..Q, Just(0), Just(Q - 1), Just(Q / 2), Just(Q / 2 + 1)], bits in prop_oneof![Just(22u32), Just(24), Just(28), Just(30), Just(32), Just(40)]) {
            let switch = Switch::new(&modulus(), bits);
            check_down(&switch, v);
        }

        #[test]
        fn folding_and_switching_equals_division(
            v in prop_oneof![0..Q, Just(0), Just(Q - 1)], steps: i16, bits in prop_oneof![Just(22u32), Just(24), Just(32)],
        ) {
            for shift in [15, 22] {
                check_folded(&Switch::new(&modulus(), bits), v, steps, shift);
            }
        }

        #[test]
        fn switching_up_equals_a_wide_product(w in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)]) {
            check_up(w);
        }

        #[test]
        fn equals_division_near_ties(w in 0u64..1 << 40, offset in -3i64..=3, bits in prop_oneof![Just(22u32), Just(24), Just(28), Just(30), Just(32), Just(40)]) {
            let switch = Switch::new(&modulus(), bits);
            let w = u128::from(w & ((1 << bits) - 1));
            let tie = (((2 * w + 1) * u128::from(Q)) >> (bits + 1)) as i64;
            let v = (tie + offset).clamp(0, Q as i64 - 1) as u64;
            check_down(&switch, v);
        }
    }
}
