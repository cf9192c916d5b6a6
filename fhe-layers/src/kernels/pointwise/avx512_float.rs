//! AVX-512 forms for processors without IFMA: products of residues in doubles, the rest as in [`super::avx512`].
//!
//! For `a, b < q < 2^50`, `h = a b` rounded and `l = a b - h` by a fused multiply-add are exact together, with
//! `|l| <= 2^46`. With `k` the integer next to `h / q` as computed, `|h - k q| < q - 2^46`, an integer of less than 53
//! bits, which a fused multiply-add therefore gives exactly; so `h - k q + l` is the product modulo `q` up to one `q`.
#![allow(unsafe_code, reason = "AVX-512 code; the facade checks the processor")]

use std::arch::x86_64::*;

use super::avx512::Into;
use super::scalar;
use crate::arith::Modulus;
use crate::kernels::reduce52::{load8, store8};

pub(super) use super::avx512::{add_assign, centred, digits, neg_assign, residues, sub_assign};

const LANES: usize = 8;

pub(super) fn mul(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { products(modulus, a, b, out, Into::Overwrite) }
    let tail = out.len() / LANES * LANES;
    scalar::mul(modulus, &a[tail..], &b[tail..], &mut out[tail..]);
}

pub(super) fn mul_sub(modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { products(modulus, a, b, acc, Into::Subtract) }
    let tail = acc.len() / LANES * LANES;
    scalar::mul_sub(modulus, &a[tail..], &b[tail..], &mut acc[tail..]);
}

pub(super) fn mul_add(modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { products(modulus, a, b, acc, Into::Add) }
    let tail = acc.len() / LANES * LANES;
    scalar::mul_add(modulus, &a[tail..], &b[tail..], &mut acc[tail..]);
}

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
