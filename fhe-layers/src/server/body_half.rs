//! The online half: `u = W b mod 2^40`, one plain integer product per matrix.
//!
//! A pure function of weights and bodies: no key, no state, no `q`. Work and timing depend on shapes only.

use super::weights::ServerWeights;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::kernels::planes::{BODY_PLANES, PARALLEL_TOKENS, Planes, gemm_parallel};
use crate::params::{BODY_BITS, REPLY_BITS};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are taken apart together: at 64 tokens 16 KB, which the first-level cache holds while the tokens pass.
const TILE_ROWS: usize = 32;

/// Replies to `bodies` (one per token) for `round`: rows of all its matrices, one after the other; on the current rayon
/// pool.
///
/// # Errors
/// [`Error::Mismatch`] for an unknown round or a body of another length than `d_in`.
pub fn body_half(weights: &ServerWeights, round: usize, bodies: &[Body]) -> Result<Vec<Reply>> {
    let rows = weights.round(round)?.rows();
    let words: Vec<&[u64]> = bodies.iter().map(Body::words).collect();
    let mut replies: Vec<Vec<u32>> = bodies.iter().map(|_| Vec::with_capacity(rows)).collect();
    products(weights, round, &words, BODY_PLANES, |sums| append(sums, &mut replies))?;
    Ok(replies.into_iter().map(Reply::from_words).collect())
}

/// Appends `sums`, `[rows, tokens]`, rounded, to the `tokens` replies; many of them on the current rayon pool.
fn append(sums: &[i64], replies: &mut [Vec<u32>]) {
    let tokens = replies.len();
    let each = |first: usize, replies: &mut [Vec<u32>]| {
        for rows in sums.chunks(TILE_ROWS * tokens) {
            for (token, reply) in (first..).zip(&mut *replies) {
                reply.extend(rows.chunks_exact(tokens).map(|row| rounded(row[token])));
            }
        }
    };
    if tokens < PARALLEL_TOKENS {
        return each(0, replies);
    }
    let part = tokens.div_ceil(rayon::current_num_threads());
    replies.par_chunks_mut(part).enumerate().for_each(|(index, replies)| each(index * part, replies));
}

/// `W v` for every matrix of `round`: `each` gets its sums, `[rows, tokens]`, exact modulo `2^(8 planes)`.
///
/// # Errors
/// As [`body_half`].
pub(crate) fn products(
    weights: &ServerWeights,
    round: usize,
    tokens: &[&[u64]],
    planes: usize,
    mut each: impl FnMut(&[i64]),
) -> Result<()> {
    let spec = weights.round(round)?;
    for words in tokens {
        Error::check("words of a body", spec.d_in, words.len())?;
    }
    if tokens.is_empty() {
        return Ok(());
    }
    // Matrices of a round mostly use the same columns: their planes are kept.
    let mut current: Option<(Range<usize>, Planes)> = None;
    let mut sums = Vec::new();
    for (columns, matrix) in &spec.matrices {
        let kept = current.take().filter(|(range, _)| range == columns);
        let (_, planes) = current.insert(kept.unwrap_or_else(|| {
            let words: Vec<&[u64]> = tokens.iter().map(|words| &words[columns.clone()]).collect();
            (columns.clone(), Planes::from_tokens(&words, planes))
        }));
        sums.clear();
        sums.resize(matrix.rows() * tokens.len(), 0i64);
        gemm_parallel(weights.isa(), matrix, planes, &mut sums);
        each(&sums);
    }
    Ok(())
}

/// The top 32 of 40 bits, rounded: truncation would bias every result.
#[inline(always)]
fn rounded(sum: i64) -> u32 {
    const DROP: u32 = BODY_BITS - REPLY_BITS;
    (sum.wrapping_add(1 << (DROP - 1)) >> DROP) as u32
}

#[cfg(test)]
mod tests {
    use super::{append, rounded};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_token_gets_its_column(tokens in 1usize..40, rows in 1usize..100) {
            let sums: Vec<i64> = (0..rows * tokens).map(|index| (index as i64) << 8).collect();
            let mut replies = vec![vec![7]; tokens];
            append(&sums, &mut replies);
            for (token, reply) in replies.iter().enumerate() {
                let column = (0..rows).map(|row| (row * tokens + token) as u32);
                prop_assert_eq!(reply, &std::iter::once(7).chain(column).collect::<Vec<_>>());
            }
        }

        #[test]
        fn replies_round_to_nearest(sum: i64) {
            let exact = (i128::from(sum) + 128).div_euclid(256).rem_euclid(1 << 32);
            prop_assert_eq!(i128::from(rounded(sum)), exact);
        }
    }
}
