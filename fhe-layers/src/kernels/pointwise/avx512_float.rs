//! AVX-512 forms for processors without IFMA: products of residues in doubles, the rest as in [`super::avx512`].
#![allow(unsafe_code, reason = "AVX-512 code; the facade checks the processor")]

use std::arch::x86_64::*;

use super::avx512::{Into, LANES, product_forms};
use super::scalar;
use crate::arith::Modulus;
use crate::kernels::reduce_float::{FloatReducer, load_residues};
use crate::kernels::reduce52::{load8, store8};

pub(super) use super::avx512::{
    add_assign, centred, digits, neg_assign, residues, spread_bits, sub_assign, switch_folded, switch_noisy,
    switch_up,
};

product_forms!();

/// All whole vectors of a product: factors below `q` give one between `-3/4 q` and `3/4 q`.
#[target_feature(enable = "avx512f,avx512dq")]
fn products(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64], into: Into) {
    let reducer = FloatReducer::new(modulus.q() as f64);
    let q = _mm512_set1_epi64(modulus.q() as i64);
    let factors = a.chunks_exact(LANES).zip(b.chunks_exact(LANES));
    for ((a, b), out) in factors.zip(out.chunks_exact_mut(LANES)) {
        let [product] = reducer.multiply([load_residues(a)], [load_residues(b)]);
        let product = reducer.residue(product);
        let value = match into {
            Into::Overwrite => product,
            Into::Add => {
                let sum = _mm512_add_epi64(load8(out), product);
                _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q))
            }
            Into::Subtract => {
                let difference = _mm512_sub_epi64(load8(out), product);
                _mm512_min_epu64(difference, _mm512_add_epi64(difference, q))
            }
        };
        store8(out, value);
    }
}
