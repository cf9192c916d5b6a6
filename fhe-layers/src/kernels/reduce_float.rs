//! Products and residues modulo `q < 2^50` in doubles, for AVX-512 without IFMA, shared by the kernels.
//!
//! Values are integers in doubles of less than `2^53`, and so exact.
//!
//! # The product
//! For `|a w| < 2^51 q`: `h = a w` rounded and `l = a w - h`, a fused multiply-add, are exact together. The integer next to
//! `h / q`, `k`, is found by adding and taking away `1.5 2^52`, which rounds because `|h / q| < 2^51`. The relative errors
//! of `h` and of `1/q`, `2^-53` each, put it off by at most `|a w / q| 2^-52` beyond the half of rounding. `h - k q` is an
//! integer below `2^52`, so that a fused multiply-add gives it exactly, and `h - k q + l` is `a w` modulo `q`.
//!
//! Time does not depend on the values: none is denormal, and there is no branch on them.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; every caller runs after Isa::assert_supported")]

use std::arch::x86_64::*;
use std::array::from_fn;

use super::reduce52::load8;

/// Adding and taking this away rounds what is below `2^51` in magnitude.
const ROUNDER: f64 = 1.5 * (1u64 << 52) as f64;

/// The modulus in vector registers.
pub(super) struct FloatReducer {
    q: __m512d,
    inverse: __m512d,
    rounder: __m512d,
}

impl FloatReducer {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(q: f64) -> Self {
        Self { q: _mm512_set1_pd(q), inverse: _mm512_set1_pd(1.0 / q), rounder: _mm512_set1_pd(ROUNDER) }
    }

    /// The integers next to `x / q`, for `|x / q| < 2^51`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quotients<const K: usize>(&self, x: [__m512d; K]) -> [__m512d; K] {
        let rounded = x.map(|x| _mm512_fmadd_pd(x, self.inverse, self.rounder));
        rounded.map(|x| _mm512_sub_pd(x, self.rounder))
    }

    /// `a w` modulo `q` in `(1/2 + |a w / q| 2^-52) q`, for `|a w| < 2^51 q`; see the top of this file. Several products
    /// go step by step together, so that one does not wait for its own last step.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn multiply<const K: usize>(&self, a: [__m512d; K], w: [__m512d; K]) -> [__m512d; K] {
        let high: [__m512d; K] = from_fn(|i| _mm512_mul_pd(a[i], w[i]));
        let low: [__m512d; K] = from_fn(|i| _mm512_fmsub_pd(a[i], w[i], high[i]));
        let quotients = self.quotients(high);
        let rest: [__m512d; K] = from_fn(|i| _mm512_fnmadd_pd(quotients[i], self.q, high[i]));
        from_fn(|i| _mm512_add_pd(rest[i], low[i]))
    }

    /// `x` modulo `q` with `|x| <= q/2`, but for rounding, for `|x / q| < 2^51`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn reduce<const K: usize>(&self, x: [__m512d; K]) -> [__m512d; K] {
        let quotients = self.quotients(x);
        from_fn(|i| _mm512_fnmadd_pd(quotients[i], self.q, x[i]))
    }

    /// The residue in `[0, q)` of `x` between `-q` and `q`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) fn residue(&self, x: __m512d) -> __m512i {
        let word = _mm512_cvtpd_epi64(x);
        let q = _mm512_cvtpd_epi64(self.q);
        _mm512_add_epi64(word, _mm512_and_si512(_mm512_srai_epi64::<63>(word), q))
    }
}

/// The first eight words of a slice, below `2^53`, as doubles.
///
/// # Panics
/// If it is shorter.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn load_residues(words: &[u64]) -> __m512d {
    _mm512_cvtepi64_pd(load8(words))
}
