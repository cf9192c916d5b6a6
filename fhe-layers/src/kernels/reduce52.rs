//! Reductions modulo `q < 2^50` in AVX-512 IFMA, shared by the AVX-512 kernels.
//!
//! Everything rests on the Shoup product of [`crate::arith::Factor52`]: for `x < 2^52`, [`Reducer::shoup`] gives
//! `x * factor mod q` in `[0, 2q)`.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; every caller runs after Isa::assert_supported")]

use std::arch::x86_64::*;

use crate::arith::{Factor52, Modulus};

/// A constant factor in every lane.
#[derive(Clone, Copy)]
struct WideFactor {
    factor: __m512i,
    quotient: __m512i,
}

/// The modulus and the factors `1`, `2^32`, `2^52`, `2^104` in vector registers.
#[derive(Clone, Copy)]
pub(super) struct Reducer {
    q: __m512i,
    low_bits: __m512i,
    one: WideFactor,
    two_pow_32: WideFactor,
    two_pow_52: WideFactor,
    two_pow_104: WideFactor,
}

impl Reducer {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new(modulus: &Modulus) -> Self {
        let factors = modulus.factors52();
        Self {
            q: _mm512_set1_epi64(modulus.q() as i64),
            low_bits: _mm512_set1_epi64((1 << 52) - 1),
            one: wide(factors.one),
            two_pow_32: wide(factors.two_pow_32),
            two_pow_52: wide(factors.two_pow_52),
            two_pow_104: wide(factors.two_pow_104),
        }
    }

    /// `x * factor mod q` in `[0, 2q)`, for `x < 2^52` (higher bits are ignored).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn shoup(&self, x: __m512i, by: WideFactor) -> __m512i {
        let zero = _mm512_setzero_si512();
        let quotient = _mm512_madd52hi_epu64(zero, x, by.quotient);
        let product = _mm512_madd52lo_epu64(zero, x, by.factor);
        let multiple = _mm512_madd52lo_epu64(zero, quotient, self.q);
        _mm512_and_si512(_mm512_sub_epi64(product, multiple), self.low_bits)
    }

    /// `x mod m` for `x < 2m`, given that `m` fits.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fold(x: __m512i, m: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, m))
    }

    /// From `[0, 8q)`, below `2^53`, to `[0, q)`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fold8(&self, x: __m512i) -> __m512i {
        let x = Self::fold(x, _mm512_slli_epi64::<2>(self.q));
        let x = Self::fold(x, _mm512_slli_epi64::<1>(self.q));
        Self::fold(x, self.q)
    }

    /// `high 2^52 + low mod q` in `[0, q)`, for `high < 2^52` and `low < 2^52`: two terms below `2q` each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce_product(&self, low: __m512i, high: __m512i) -> __m512i {
        let sum = _mm512_add_epi64(self.shoup(high, self.two_pow_52), self.shoup(low, self.one));
        Self::fold(Self::fold(sum, _mm512_slli_epi64::<1>(self.q)), self.q)
    }

    /// `high 2^52 + low mod q` in `[0, q)` for any `low` and any `high < 2^64 - 2^12`: three terms below `2q` each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce_sums(&self, low: __m512i, high: __m512i) -> __m512i {
        let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
        let top = _mm512_srli_epi64::<52>(high);
        let sum = _mm512_add_epi64(self.shoup(low, self.one), self.shoup(high, self.two_pow_52));
        self.fold8(_mm512_add_epi64(sum, self.shoup(top, self.two_pow_104)))
    }

    /// `high 2^32 + low mod q` in `[0, q)` for any `low` and `high < 2^52`: three terms below `2q` each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce_planes(&self, low: __m512i, high: __m512i) -> __m512i {
        let top = _mm512_srli_epi64::<52>(low);
        let sum = _mm512_add_epi64(self.shoup(low, self.one), self.shoup(high, self.two_pow_32));
        self.fold8(_mm512_add_epi64(sum, self.shoup(top, self.two_pow_52)))
    }

    /// `a - b mod q` for residues.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn sub(&self, a: __m512i, b: __m512i) -> __m512i {
        let difference = _mm512_sub_epi64(a, b);
        _mm512_min_epu64(difference, _mm512_add_epi64(difference, self.q))
    }

    /// `a + b mod q` for residues.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(&self, a: __m512i, b: __m512i) -> __m512i {
        Self::fold(_mm512_add_epi64(a, b), self.q)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn wide(by: Factor52) -> WideFactor {
    WideFactor {
        factor: _mm512_set1_epi64(by.factor as i64),
        quotient: _mm512_set1_epi64(by.quotient as i64),
    }
}

/// The first eight words of a slice.
///
/// # Panics
/// If it is shorter.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load8(words: &[u64]) -> __m512i {
    let words: &[u64; 8] = words[..8].try_into().expect("eight words");
    // SAFETY: the reference covers the 64 bytes that the unaligned load reads.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Overwrites the first eight words of a slice.
///
/// # Panics
/// If it is shorter.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store8(words: &mut [u64], value: __m512i) {
    let words: &mut [u64; 8] = (&mut words[..8]).try_into().expect("eight words");
    // SAFETY: the reference covers the 64 bytes that the unaligned store writes.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}
