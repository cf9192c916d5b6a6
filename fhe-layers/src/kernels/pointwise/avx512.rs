//! AVX-512 forms: products by IFMA, the rest compiled from the portable bodies.
#![allow(unsafe_code, reason = "AVX-512 code; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{Fold, Gadget, scalar};
use crate::arith::Modulus;
use crate::kernels::reduce52::{Reducer, load8, store8};
use crate::switch::Switch;

pub(super) const LANES: usize = 8;

/// What becomes of the product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Overwrite,
    Add,
    Subtract,
}

/// The three products by way of a `products` in scope; what is left over a whole vector is done in scalars.
macro_rules! product_forms {
    () => {
        product_forms! {
            mul, Into::Overwrite;
            mul_add, Into::Add;
            mul_sub, Into::Subtract;
        }
    };
    ($($name:ident, $into:expr;)+) => {$(
        pub(super) fn $name(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
            // SAFETY: the facade has called Isa::assert_supported.
            unsafe { products(modulus, a, b, out, $into) }
            let tail = out.len() / LANES * LANES;
            scalar::$name(modulus, &a[tail..], &b[tail..], &mut out[tail..]);
        }
    )+};
}
pub(super) use product_forms;

product_forms!();

/// All whole vectors of a product. Factors below `2^50` give halves below `2^52` and `2^48`.
#[target_feature(enable = "avx512f,avx512ifma")]
fn products(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64], into: Into) {
    let reducer = Reducer::new(modulus);
    let zero = _mm512_setzero_si512();
    let factors = a.chunks_exact(LANES).zip(b.chunks_exact(LANES));
    for ((a, b), out) in factors.zip(out.chunks_exact_mut(LANES)) {
        let (a, b) = (load8(a), load8(b));
        let low = _mm512_madd52lo_epu64(zero, a, b);
        let high = _mm512_madd52hi_epu64(zero, a, b);
        let product = reducer.reduce_product(low, high);
        let value = match into {
            Into::Overwrite => product,
            Into::Add => reducer.add(load8(out), product),
            Into::Subtract => reducer.sub(load8(out), product),
        };
        store8(out, value);
    }
}

/// Compiles a portable body for this instruction set.
macro_rules! recompiled {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        pub(super) fn $name($($argument: $kind),*) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
