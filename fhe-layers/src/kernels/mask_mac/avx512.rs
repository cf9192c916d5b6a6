//! AVX-512 IFMA form: the low and high 52-bit halves of products, summed in 64 bits each.
//!
//! With operands below `2^50` a low half is below `2^52` and a high half below `2^48`; `MAX_TERMS = 2^12` of them stay
//! below `2^64` and `2^60`.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{LINE_WORDS, MacKey, MacShape, PREFETCH_LINES, Term, rotated_lines, runs};
use crate::arith::Modulus;
use crate::kernels::reduce52::{Reducer, load8, store8};

by_batches!();

#[target_feature(enable = "avx512f,avx512ifma")]
fn batches<const K: usize>(
    shape: &MacShape,
    table: &[u64],
    keys: &[&MacKey],
    modulus: &Modulus,
    outs: &mut [&mut [u64]],
) {
    let reducer = Reducer::new(modulus);
    let keys: [&[u64]; K] = std::array::from_fn(|b| &keys[b].words[..]);
    for (chunk, lines) in table.chunks_exact(shape.terms() * LINE_WORDS).enumerate() {
        // Even and odd terms are summed apart: two chains per half hide the latency of the multiplier.
        let mut sums = [[[_mm512_setzero_si512(); 2]; 2]; K];
        for (first, key_line, len) in runs(shape, chunk) {
            let digits = &lines[first * LINE_WORDS..(first + len) * LINE_WORDS];
            let key_lines = keys.map(|key| &key[key_line * LINE_WORDS..(key_line + len) * LINE_WORDS]);
            run(digits, key_lines, &mut sums);
        }
        for (sums, out) in sums.iter().zip(outs.iter_mut()) {
            let low = _mm512_add_epi64(sums[0][0], sums[1][0]);
            let high = _mm512_add_epi64(sums[0][1], sums[1][1]);
            store8(&mut out[chunk * LINE_WORDS..], reducer.reduce_sums(low, high));
        }
    }
}

/// Adds the products of consecutive lines.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn run<const K: usize>(digits: &[u64], keys: [&[u64]; K], sums: &mut [[[__m512i; 2]; 2]; K]) {
    let lines = digits.len() / LINE_WORDS;
    assert!(keys.iter().all(|key| key.len() == digits.len()));
    // SAFETY: lines `0..lines` are inside the digits and inside every key, which has the same length.
    unsafe {
        for line in (0..lines / 2 * 2).step_by(2) {
            multiply(digits, &keys, line, 0, sums);
            multiply(digits, &keys, line + 1, 1, sums);
        }
        if lines % 2 == 1 {
            multiply(digits, &keys, lines - 1, 0, sums);
        }
    }
}

/// Adds the products of one line to the sums of `parity`.
///
/// # Safety
/// `line` is inside the digits and inside every key.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn multiply<const K: usize>(
    digits: &[u64],
    keys: &[&[u64]; K],
    line: usize,
    parity: usize,
    sums: &mut [[[__m512i; 2]; 2]; K],
) {
    let at = line * LINE_WORDS;
    // SAFETY: by the contract of this function; a prefetch may name any address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(digits.as_ptr().wrapping_add(at + PREFETCH_LINES * LINE_WORDS).cast());
        let digit = _mm512_loadu_si512(digits.as_ptr().add(at).cast());
        for (key, sums) in keys.iter().zip(sums.iter_mut()) {
            let key = _mm512_loadu_si512(key.as_ptr().add(at).cast());
            let [low, high] = &mut sums[parity];
            *low = _mm512_madd52lo_epu64(*low, digit, key);
            *high = _mm512_madd52hi_epu64(*high, digit, key);
        }
    }
}

/// The two parts are the sums of low and high halves.
pub(super) fn accumulate(term: &Term<'_>, sums: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { accumulate_lines(term, sums) }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn accumulate_lines(term: &Term<'_>, sums: &mut [u64]) {
    let lines = term.digits.chunks_exact(LINE_WORDS).zip(sums.chunks_exact_mut(2 * LINE_WORDS));
    for ((digits, sums), line) in lines.zip(rotated_lines(term)) {
        let digits = load8(digits);
        let key = load8(&term.key[line * LINE_WORDS..]);
        let (low, high) = sums.split_at_mut(LINE_WORDS);
        let (low_sum, high_sum) = (load8(low), load8(high));
        store8(low, _mm512_madd52lo_epu64(low_sum, digits, key));
        store8(high, _mm512_madd52hi_epu64(high_sum, digits, key));
    }
}

pub(super) fn reduce(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { reduce_lines(sums, modulus, out) }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn reduce_lines(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    let reducer = Reducer::new(modulus);
    for (sums, out) in sums.chunks_exact(2 * LINE_WORDS).zip(out.chunks_exact_mut(LINE_WORDS)) {
        let (low, high) = sums.split_at(LINE_WORDS);
        store8(out, reducer.reduce_sums(load8(low), load8(high)));
    }
}
