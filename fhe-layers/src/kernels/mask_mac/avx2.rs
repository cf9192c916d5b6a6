//! AVX2 form: products of 25-bit halves.
//!
//! With `a = a1 2^25 + a0` and `k = k1 2^25 + k0` below `2^50`, `a k = a1 k1 2^50 + (a1 k0 + a0 k1) 2^25 + a0 k0`. A
//! partial product is below `2^50`; `MAX_TERMS = 2^12` of the outer ones stay below `2^62`, and the middle sum, two
//! per term, below `2^63`.
#![allow(unsafe_code, reason = "AVX2 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{HALF_BITS, HALF_SUMS, LINE_WORDS, MacKey, MacShape, Term, rotated_lines, runs};
use crate::arith::Modulus;

/// Lanes of a vector; a line is two vectors.
const LANES: usize = 4;

pub(super) fn mask_mac(
    shape: &MacShape,
    table: &[u64],
    keys: &[&MacKey],
    modulus: &Modulus,
    outs: &mut [&mut [u64]],
) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { lines(shape, table, keys, modulus, outs) }
}

#[target_feature(enable = "avx2")]
fn lines(shape: &MacShape, table: &[u64], keys: &[&MacKey], modulus: &Modulus, outs: &mut [&mut [u64]]) {
    for (chunk, lines) in table.chunks_exact(shape.terms() * LINE_WORDS).enumerate() {
        for (key, out) in keys.iter().zip(outs.iter_mut()) {
            let mut sums = [[_mm256_setzero_si256(); HALF_SUMS]; 2];
            for (first, key_line, len) in runs(shape, chunk) {
                let digits = lines[first * LINE_WORDS..].chunks_exact(LINE_WORDS);
                let key_lines = key.words[key_line * LINE_WORDS..].chunks_exact(LINE_WORDS);
                for (digits, key) in digits.zip(key_lines).take(len) {
                    multiply(load4(digits), load4(key), &mut sums[0]);
                    multiply(load4(&digits[LANES..]), load4(&key[LANES..]), &mut sums[1]);
                }
            }
            let out = &mut out[chunk * LINE_WORDS..][..LINE_WORDS];
            for (sums, out) in sums.iter().zip(out.chunks_exact_mut(LANES)) {
                let mut parts = [0; HALF_SUMS * LANES];
                for (part, sum) in parts.chunks_exact_mut(LANES).zip(sums) {
                    store4(part, *sum);
                }
                join(&parts, LANES, modulus, out);
            }
        }
    }
}

/// Adds the three partial products of `digit * key`.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply(digit: __m256i, key: __m256i, sums: &mut [__m256i; HALF_SUMS]) {
    let low_bits = _mm256_set1_epi64x((1 << HALF_BITS) - 1);
    let (d0, d1) = (_mm256_and_si256(digit, low_bits), _mm256_srli_epi64::<{ HALF_BITS as i32 }>(digit));
    let (k0, k1) = (_mm256_and_si256(key, low_bits), _mm256_srli_epi64::<{ HALF_BITS as i32 }>(key));
    let middle = _mm256_add_epi64(_mm256_mul_epu32(d1, k0), _mm256_mul_epu32(d0, k1));
    sums[0] = _mm256_add_epi64(sums[0], _mm256_mul_epu32(d0, k0));
    sums[1] = _mm256_add_epi64(sums[1], middle);
    sums[2] = _mm256_add_epi64(sums[2], _mm256_mul_epu32(d1, k1));
}

/// Reduces `parts`, `[HALF_SUMS, width]`, to `out`, `[width]`.
#[inline(always)]
fn join(parts: &[u64], width: usize, modulus: &Modulus, out: &mut [u64]) {
    for (lane, out) in out.iter_mut().enumerate() {
        let part = |p: usize| u128::from(parts[p * width + lane]) << (p as u32 * HALF_BITS);
        *out = modulus.reduce_u128(part(0) + part(1) + part(2));
    }
}

/// The three parts are those of [`multiply`].
pub(super) fn accumulate(term: &Term<'_>, sums: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { accumulate_lines(term, sums) }
}

#[target_feature(enable = "avx2")]
fn accumulate_lines(term: &Term<'_>, sums: &mut [u64]) {
    let lines = term.digits.chunks_exact(LINE_WORDS).zip(sums.chunks_exact_mut(HALF_SUMS * LINE_WORDS));
    for ((digits, sums), line) in lines.zip(rotated_lines(term)) {
        let key = &term.key[line * LINE_WORDS..][..LINE_WORDS];
        for half in [0, LANES] {
            let mut parts = [0, 1, 2].map(|p| load4(&sums[p * LINE_WORDS + half..]));
            multiply(load4(&digits[half..]), load4(&key[half..]), &mut parts);
            for (p, part) in parts.into_iter().enumerate() {
                store4(&mut sums[p * LINE_WORDS + half..], part);
            }
        }
    }
}

pub(super) fn reduce(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    for (sums, out) in sums.chunks_exact(HALF_SUMS * LINE_WORDS).zip(out.chunks_exact_mut(LINE_WORDS)) {
        join(sums, LINE_WORDS, modulus, out);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load4(words: &[u64]) -> __m256i {
    let words: &[u64; LANES] = words[..LANES].try_into().expect("four words");
    // SAFETY: the reference covers the 32 bytes that the unaligned load reads.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store4(words: &mut [u64], value: __m256i) {
    let words: &mut [u64; LANES] = (&mut words[..LANES]).try_into().expect("four words");
    // SAFETY: the reference covers the 32 bytes that the unaligned store writes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}
