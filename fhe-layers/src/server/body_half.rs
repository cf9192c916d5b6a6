//! The online half: `u = W b mod 2^40`, one plain integer product per matrix.
//!
//! A pure function of weights and bodies: no key, no state, no `q`. Work and timing depend on shapes only.

use super::weights::ServerWeights;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::kernels::planes::{BODY_PLANES, Planes, gemm_parallel};
use crate::params::{BODY_BITS, REPLY_BITS};
use std::ops::Range;

/// Replies to `bodies` (one per token) for `round`: rows of all its matrices, one after the other; on the current rayon
/// pool.
///
/// # Errors
/// [`Error::Mismatch`] for an unknown round or a body of another length than `d_in`.
pub fn body_half(weights: &ServerWeights, round: usize, bodies: &[Body]) -> Result<Vec<Reply>> {
    let rows = weights.round(round)?.rows();
    let words: Vec<&[u64]> = bodies.iter().map(Body::words).collect();
    let mut replies: Vec<Vec<u32>> = bodies.iter().map(|_| Vec::with_capacity(rows)).collect();
    products(weights, round, &words, BODY_PLANES, |sums| {
        for (reply, token) in replies.iter_mut().zip(0..) {
            reply.extend(sums.iter().skip(token).step_by(bodies.len()).map(|&sum| rounded(sum)));
        }
    })?;
    Ok(replies.into_iter().map(Reply::from_words).collect())
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
    use super::rounded;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn replies_round_to_nearest(sum: i64) {
            let exact = (i128::from(sum) + 128).div_euclid(256).rem_euclid(1 << 32);
            prop_assert_eq!(i128::from(rounded(sum)), exact);
        }
    }
}
