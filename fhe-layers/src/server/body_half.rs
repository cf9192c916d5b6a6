//! The online half: one plain integer product per matrix, and in the lean form one addition per row.
//!
//! A pure function of weights, bodies and kept words: no key, no state, no `q`. Work and timing depend on shapes only.

use super::slots::SlotWords;
use super::weights::ServerWeights;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::form::{WORD_BITS, Widths};
use crate::kernels::planes::{BODY_PLANES, PARALLEL_TOKENS, Planes, WORD_PLANES, Word, gemm_parallel};
use crate::params::{BODY_BITS, REPLY_BITS};
use crate::words::{WordBody, WordReply};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are taken apart together: at 64 tokens 16 KB, which the first-level cache holds while the tokens pass.
const TILE_ROWS: usize = 32;

/// Replies to `bodies` (one per token) for `round` in the full form: rows of all its matrices, one after the other; on the current rayon
/// pool.
///
/// # Errors
/// [`Error::OutOfRange`] for an unknown round, [`Error::Mismatch`] for a body of another length than `d_in`.
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

/// One token of a session form: its body, and what the server kept for its slot.
pub struct WordQuery<'a> {
    /// What arrived.
    pub body: &'a WordBody,
    /// `b'` of the slot for this round ([`super::LeanBatch::claim`]); `None` in the stateless form.
    pub words: Option<SlotWords>,
}

/// Replies to `queries` (one per token) for `round` in a session form: `round((W v + b') mod 2^32, to the top R bits)` for the
/// rows of all its matrices, one after the other; on the current rayon pool.
///
/// # Errors
/// [`Error::OutOfRange`] for an unknown round, [`Error::Mismatch`] for a body or kept words of another length.
pub fn word_half(
    weights: &ServerWeights,
    round: usize,
    queries: &[WordQuery<'_>],
    widths: Widths,
) -> Result<Vec<WordReply>> {
    let rows = weights.round(round)?.rows();
    for words in queries.iter().filter_map(|query| query.words.as_ref()) {
        Error::check("kept words of a slot", rows, words.rows())?;
    }
    let bodies: Vec<&[u32]> = queries.iter().map(|query| query.body.words()).collect();
    let mut replies: Vec<Vec<u32>> = queries.iter().map(|_| Vec::with_capacity(rows)).collect();
    products(weights, round, &bodies, WORD_PLANES, |sums| append_words(sums, queries, widths, &mut replies))?;
    Ok(replies.into_iter().map(|words| WordReply::new(words, widths)).collect())
}

/// Appends `sums`, `[rows, tokens]`, plus the tokens' kept words, rounded, to the `tokens` replies; many of them on the
/// current rayon pool.
fn append_words(sums: &[i64], queries: &[WordQuery<'_>], widths: Widths, replies: &mut [Vec<u32>]) {
    let tokens = replies.len();
    let each = |first: usize, replies: &mut [Vec<u32>]| {
        for rows in sums.chunks(TILE_ROWS * tokens) {
            for (token, reply) in (first..).zip(&mut *replies) {
                let column = rows.chunks_exact(tokens).map(|row| row[token]);
                match &queries[token].words {
                    Some(words) => {
                        let kept = words.words(reply.len());
                        reply.extend(column.zip(kept).map(|(sum, kept)| reply_word(sum, kept, widths)));
                    }
                    None => reply.extend(column.map(|sum| reply_word(sum, 0, widths))),
                }
            }
        }
    };
    if tokens < PARALLEL_TOKENS {
        return each(0, replies);
    }
    let part = tokens.div_ceil(rayon::current_num_threads());
    replies.par_chunks_mut(part).enumerate().for_each(|(index, replies)| each(index * part, replies));
}

/// The top `R` bits of `sum + kept` modulo `2^32`, rounded, left-aligned.
#[inline(always)]
fn reply_word(sum: i64, kept: u32, widths: Widths) -> u32 {
    let drop = WORD_BITS - widths.reply();
    (sum as u32).wrapping_add(kept).wrapping_add(1 << (drop - 1)) & (u32::MAX << drop)
}

/// `W v` for every matrix of `round`: `each` gets its sums, `[rows, tokens]`, exact modulo `2^(8 planes)`.
///
/// # Errors
/// As [`body_half`].
pub(crate) fn products<T: Word>(
    weights: &ServerWeights,
    round: usize,
    tokens: &[&[T]],
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
            let words: Vec<&[T]> = tokens.iter().map(|words| &words[columns.clone()]).collect();
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
    use super::{append, reply_word, rounded};
    use crate::form::Widths;
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
        fn word_replies_round_to_nearest(sum: i64, kept: u32, reply in 14u32..=22) {
            let widths = Widths::new(30, reply, 28).unwrap();
            let drop = 32 - reply;
            let total = i128::from(sum) + i128::from(kept);
            let exact = (total + (1 << (drop - 1))).div_euclid(1 << drop).rem_euclid(1 << reply);
            prop_assert_eq!(i128::from(reply_word(sum, kept, widths)), exact << drop);
        }

        #[test]
        fn replies_round_to_nearest(sum: i64) {
            let exact = (i128::from(sum) + 128).div_euclid(256).rem_euclid(1 << 32);
            prop_assert_eq!(i128::from(rounded(sum)), exact);
        }
    }
}
