//! AVX-512 form for processors without IFMA: products of 25-bit halves as in [`super::avx2`], sums reduced in doubles.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{HALF_BITS, HALF_SUMS, LINE_WORDS, MacKey, MacShape, PREFETCH_LINES, Term, rotated_lines, runs};
use crate::arith::{MODULUS_BITS, Modulus};
use crate::kernels::reduce_float::FloatReducer;
use crate::kernels::reduce52::{load8, store8};

type Sums = [__m512i; HALF_SUMS];

by_batches!();

#[target_feature(enable = "avx512f,avx512dq")]
fn batches<const K: usize>(
    shape: &MacShape,
    table: &[u64],
    keys: &[&MacKey],
    modulus: &Modulus,
    outs: &mut [&mut [u64]],
) {
    let joiner = Joiner::new(modulus);
    let keys: [&[u64]; K] = std::array::from_fn(|b| &keys[b].words[..]);
    for (chunk, lines) in table.chunks_exact(shape.terms() * LINE_WORDS).enumerate() {
        let mut sums = [[_mm512_setzero_si512(); HALF_SUMS]; K];
        for (first, key_line, len) in runs(shape, chunk) {
            let digits = &lines[first * LINE_WORDS..(first + len) * LINE_WORDS];
            let keys = keys.map(|key| &key[key_line * LINE_WORDS..(key_line + len) * LINE_WORDS]);
            for (line, digits) in digits.chunks_exact(LINE_WORDS).enumerate() {
                _mm_prefetch::<_MM_HINT_T0>(digits.as_ptr().wrapping_add(PREFETCH_LINES * LINE_WORDS).cast());
                let digits = halves(load8(digits));
                for (key, sums) in keys.iter().zip(sums.iter_mut()) {
                    multiply(digits, halves(load8(&key[line * LINE_WORDS..])), sums);
                }
            }
        }
        for (sums, out) in sums.iter().zip(outs.iter_mut()) {
            store8(&mut out[chunk * LINE_WORDS..], joiner.join(sums));
        }
    }
}

/// Low and high half of each lane, both below `2^25`.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(words: __m512i) -> [__m512i; 2] {
    let low_bits = _mm512_set1_epi64((1 << HALF_BITS) - 1);
    [_mm512_and_si512(words, low_bits), _mm512_srli_epi64::<HALF_BITS>(words)]
}

/// Adds the three partial products of `digit * key`.
#[inline]
#[target_feature(enable = "avx512f")]
fn multiply([d0, d1]: [__m512i; 2], [k0, k1]: [__m512i; 2], sums: &mut Sums) {
    let middle = _mm512_add_epi64(_mm512_mul_epu32(d1, k0), _mm512_mul_epu32(d0, k1));
    sums[0] = _mm512_add_epi64(sums[0], _mm512_mul_epu32(d0, k0));
    sums[1] = _mm512_add_epi64(sums[1], middle);
    sums[2] = _mm512_add_epi64(sums[2], _mm512_mul_epu32(d1, k1));
}

/// Reduces sums of partial products.
struct Joiner {
    reducer: FloatReducer,
    /// `2^50` and `2^100`, next to zero.
    powers: [__m512d; 2],
}

impl Joiner {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(modulus: &Modulus) -> Self {
        let power = |exponent| modulus.centred(modulus.pow(2, exponent)) as f64;
        let [low, high] = [1, 2].map(|times| power(times * u64::from(MODULUS_BITS)));
        Self {
            reducer: FloatReducer::new(modulus.q() as f64),
            powers: [_mm512_set1_pd(low), _mm512_set1_pd(high)],
        }
    }

    /// The residues in `[0, q)`. With carries out of the low 25 bits of the lower two sums, these are a number below
    /// `2^50`, and the highest sum, below `2^63`, counts in `2^50`: 50 bits of it and at most 13 above. The three terms
    /// together are below `2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn join(&self, [low, middle, high]: &Sums) -> __m512i {
        let half_bits = _mm512_set1_epi64((1 << HALF_BITS) - 1);
        let middle = _mm512_add_epi64(*middle, _mm512_srli_epi64::<HALF_BITS>(*low));
        let high = _mm512_add_epi64(*high, _mm512_srli_epi64::<HALF_BITS>(middle));
        let middle = _mm512_slli_epi64::<HALF_BITS>(_mm512_and_si512(middle, half_bits));
        let low = _mm512_or_si512(middle, _mm512_and_si512(*low, half_bits));
        let top = _mm512_srli_epi64::<MODULUS_BITS>(high);
        let high = _mm512_and_si512(high, _mm512_set1_epi64((1 << MODULUS_BITS) - 1));
        let [high, top] =
            self.reducer.multiply([high, top].map(|word| _mm512_cvtepi64_pd(word)), self.powers);
        let sum = _mm512_add_pd(_mm512_add_pd(high, top), _mm512_cvtepi64_pd(low));
        let [sum] = self.reducer.reduce([sum]);
        self.reducer.residue(sum)
    }
}

/// The three parts are those of [`multiply`].
pub(super) fn accumulate(term: &Term<'_>, sums: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { accumulate_lines(term, sums) }
}

#[target_feature(enable = "avx512f")]
fn accumulate_lines(term: &Term<'_>, sums: &mut [u64]) {
    let lines = term.digits.chunks_exact(LINE_WORDS).zip(sums.chunks_exact_mut(HALF_SUMS * LINE_WORDS));
    for ((digits, sums), line) in lines.zip(rotated_lines(term)) {
        let mut parts = load_sums(sums);
        multiply(halves(load8(digits)), halves(load8(&term.key[line * LINE_WORDS..])), &mut parts);
        for (p, part) in parts.into_iter().enumerate() {
            store8(&mut sums[p * LINE_WORDS..], part);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_sums(words: &[u64]) -> Sums {
    [load8(words), load8(&words[LINE_WORDS..]), load8(&words[2 * LINE_WORDS..])]
}

pub(super) fn reduce(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { reduce_lines(sums, modulus, out) }
}

#[target_feature(enable = "avx512f,avx512dq")]
fn reduce_lines(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    let joiner = Joiner::new(modulus);
    for (sums, out) in sums.chunks_exact(HALF_SUMS * LINE_WORDS).zip(out.chunks_exact_mut(LINE_WORDS)) {
        store8(out, joiner.join(&load_sums(sums)));
    }
}
