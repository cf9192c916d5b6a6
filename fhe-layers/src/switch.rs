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

/// `2^phi_bits round(w q / 2^32) + c mod q`, centred: what a reply word and its correction decode to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    modulus: Modulus,
    phi_bits: u32,
    /// `2^phi_bits / q`.
    ratio: f64,
}

impl Decoder {
    /// For `2^49 < q < 2^50` and `phi <= 2^12`, a power of two.
    ///
    /// # Panics
    /// If `q` or `phi` is out of range.
    pub(crate) fn new(modulus: &Modulus, phi: usize) -> Self {
        let q = modulus.q();
        assert!(q > 1 << 49 && phi.is_power_of_two() && phi <= 1 << 12, "decoding modulo {q} with phi {phi}");
        Self { modulus: *modulus, phi_bits: phi.trailing_zeros(), ratio: phi as f64 / q as f64 }
    }

    /// The decoded integer, in `(-q/2, q/2]`, for a correction below `q`.
    ///
    /// `quotient` is within `1/2 + 2^-40` of `phi up / q`, so that the rest is above `-q` and below `2q`.
    #[inline(always)]
    pub(crate) fn centred(&self, w: u32, correction: u64) -> i64 {
        let up = up(&self.modulus, w);
        let quotient = nearest(up, self.ratio);
        let rest = ((up << self.phi_bits) + correction).wrapping_sub(quotient.wrapping_mul(self.modulus.q()));
        self.modulus.centred(self.modulus.residue(rest))
    }
}

/// An integer next to `v ratio`, for `v` and the product below `2^52`: without a conversion, which vectors may lack.
#[inline(always)]
fn nearest(v: u64, ratio: f64) -> u64 {
    let value = f64::from_bits(v | TWO_POW_52.to_bits()) - TWO_POW_52;
    (value * ratio + TWO_POW_52).to_bits() & ((1 << 52) - 1)
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Switch, up};
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
        fn equals_division(v in prop_oneof![0..Q, Just(0), Just(Q - 1), Just(Q / 2), Just(Q / 2 + 1)], bits in prop_oneof![Just(32u32), Just(40)]) {
            let switch = Switch::new(&modulus(), bits);
            check_down(&switch, v);
        }

        #[test]
        fn switching_up_equals_a_wide_product(w in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)]) {
            check_up(w);
        }

        #[test]
        fn decoding_equals_wide_integers(
            w in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)],
            correction in prop_oneof![0..Q, Just(0), Just(Q - 1), Just(Q / 2), Just(Q / 2 + 1)],
            phi in (0u32..=12).prop_map(|bits| 1usize << bits),
            near_a_tie in prop::option::of(-2i64..=2),
        ) {
            let modulus = modulus();
            let product = modulus.mul(phi as u64, up(&modulus, w));
            // Or such that the sum lies next to half the modulus.
            let correction = near_a_tie.map_or(correction, |offset| {
                modulus.sub((Q / 2).wrapping_add_signed(offset), product)
            });
            let expected = modulus.centred(modulus.add(product, correction));
            for isa in Isa::supported() {
                let mut values = [correction; 19];
                pointwise::decode(isa, &Decoder::new(&modulus, phi), &[w; 19], &mut values);
                assert_eq!(values, [expected as u64; 19], "{isa}");
            }
        }

        #[test]
        fn equals_division_near_ties(w in 0u64..1 << 40, offset in -3i64..=3, bits in prop_oneof![Just(32u32), Just(40)]) {
            let switch = Switch::new(&modulus(), bits);
            let w = u128::from(w & ((1 << bits) - 1));
            let tie = (((2 * w + 1) * u128::from(Q)) >> (bits + 1)) as i64;
            let v = (tie + offset).clamp(0, Q as i64 - 1) as u64;
            check_down(&switch, v);
        }
    }
}
