//! Portable form: 128-bit sums. `MAX_TERMS` products below `2^100` stay below `2^112`.

use super::{LINE_WORDS, MacKey, MacShape, Term, rotated_lines, runs};
use crate::arith::Modulus;

pub(super) fn mask_mac(
    shape: &MacShape,
    table: &[u64],
    keys: &[&MacKey],
    modulus: &Modulus,
    outs: &mut [&mut [u64]],
) {
    for (chunk, lines) in table.chunks_exact(shape.terms() * LINE_WORDS).enumerate() {
        for (key, out) in keys.iter().zip(outs.iter_mut()) {
            let mut sums = [0u128; LINE_WORDS];
            for (first, key_line, len) in runs(shape, chunk) {
                let digits = lines[first * LINE_WORDS..].chunks_exact(LINE_WORDS);
                let key_lines = key.words[key_line * LINE_WORDS..].chunks_exact(LINE_WORDS);
                for (digits, key) in digits.zip(key_lines).take(len) {
                    for ((sum, &d), &k) in sums.iter_mut().zip(digits).zip(key) {
                        *sum += u128::from(d) * u128::from(k);
                    }
                }
            }
            for (out, sum) in out[chunk * LINE_WORDS..].iter_mut().zip(sums) {
                *out = modulus.reduce_u128(sum);
            }
        }
    }
}

/// The two parts are the low and high word of a 128-bit sum.
pub(super) fn accumulate(term: &Term<'_>, sums: &mut [u64]) {
    let lines = term.digits.chunks_exact(LINE_WORDS).zip(sums.chunks_exact_mut(2 * LINE_WORDS));
    for ((digits, sums), line) in lines.zip(rotated_lines(term)) {
        let key = &term.key[line * LINE_WORDS..][..LINE_WORDS];
        let (low, high) = sums.split_at_mut(LINE_WORDS);
        for (((low, high), &d), &k) in low.iter_mut().zip(high).zip(digits).zip(key) {
            let sum = join(*low, *high) + u128::from(d) * u128::from(k);
            (*low, *high) = (sum as u64, (sum >> 64) as u64);
        }
    }
}

pub(super) fn reduce(sums: &[u64], modulus: &Modulus, out: &mut [u64]) {
    for (sums, out) in sums.chunks_exact(2 * LINE_WORDS).zip(out.chunks_exact_mut(LINE_WORDS)) {
        let (low, high) = sums.split_at(LINE_WORDS);
        for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
            *out = modulus.reduce_u128(join(low, high));
        }
    }
}

fn join(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
