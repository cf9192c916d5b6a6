//! AVX-512 forms for processors without IFMA: products of residues in doubles, the rest as in [`super::avx512`].
//!
//! For `a, b < q < 2^50`, `h = a b` rounded and `l = a b - h`, a fused multiply-add, are exact together. The integer `k`
//! next to `h / q` as computed is off by at most `1/2 + q 2^-52`, so `h - k q` is an integer below `q` in magnitude, which a
//! fused multiply-add gives exactly. With `|l| <= q^2 2^-53`, `h - k q + l` is still between `-q` and `q`: the product
//! modulo `q`, but for one `q` where it is negative.
#![allow(unsafe_code, reason = "AVX-512 code; the facade checks the processor")]

use std::arch::x86_64::*;

use super::avx512::{Into, LANES, product_forms};
use super::scalar;
use crate::arith::Modulus;
use crate::kernels::reduce52::{load8, store8};

pub(super) use super::avx512::{add_assign, centred, digits, neg_assign, residues, sub_assign};

product_forms!();

/// All whole vectors of a product.
#[target_feature(enable = "avx512f,avx512dq")]
fn products(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64], into: Into) {
    let q = _mm512_set1_epi64(modulus.q() as i64);
    let float_q = _mm512_set1_pd(modulus.q() as f64);
    let inverse = _mm512_set1_pd(1.0 / modulus.q() as f64);
    let factors = a.chunks_exact(LANES).zip(b.chunks_exact(LANES));
    for ((a, b), out) in factors.zip(out.chunks_exact_mut(LANES)) {
        let (a, b) = (_mm512_cvtepi64_pd(load8(a)), _mm512_cvtepi64_pd(load8(b)));
        let high = _mm512_mul_pd(a, b);
        let low = _mm512_fmsub_pd(a, b, high);
        let quotient = _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
            _mm512_mul_pd(high, inverse),
        );
        let rest = _mm512_add_pd(_mm512_fnmadd_pd(quotient, float_q, high), low);
        let rest = _mm512_cvtpd_epi64(rest);
        let product = _mm512_add_epi64(rest, _mm512_and_si512(_mm512_srai_epi64::<63>(rest), q));
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
