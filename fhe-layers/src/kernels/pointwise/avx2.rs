//! AVX2 forms: the portable bodies, compiled for AVX2; products stay scalar (there is no wide multiplier).
#![allow(unsafe_code, reason = "calls into AVX2 code; the facade checks the processor")]

use super::{Fold, Gadget, scalar};
use crate::arith::Modulus;
use crate::switch::Switch;

pub(super) use super::scalar::{mul, mul_add, mul_sub};

/// Compiles a portable body for this instruction set.
macro_rules! recompiled {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        pub(super) fn $name($($argument: $kind),*) {
            #[target_feature(enable = "avx2")]
            fn body($($argument: $kind),*) {
                scalar::$name($($argument),*);
            }
            // SAFETY: the facade has called Isa::assert_supported.
            unsafe { body($($argument),*) }
        }
    )*};
}

recompiled! {
    add_assign(modulus: &Modulus, acc: &mut [u64], a: &[u64]);
    sub_assign(modulus: &Modulus, acc: &mut [u64], a: &[u64]);
    neg_assign(modulus: &Modulus, a: &mut [u64]);
    centred(modulus: &Modulus, a: &[u64], out: &mut [i64]);
    residues(modulus: &Modulus, digits: &[i32], out: &mut [u64]);
    digits(gadget: &Gadget, modulus: &Modulus, values: &[u64], digits: &mut [i32]);
    switch_noisy(switch: &Switch, words: &mut [u64], noise: &[i8]);
    switch_folded(switch: &Switch, fold: &Fold<'_>, values: &[u64], out: &mut [u32]);
    spread_bits(bytes: &[u8], out: &mut [u64]);
    switch_up(modulus: &Modulus, words: &[u32], out: &mut [u64]);
}
