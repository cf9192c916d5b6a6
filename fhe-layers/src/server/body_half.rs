//! The online half: `u = W b mod 2^40`, one plain integer product per matrix.
//!
//! A pure function of weights and bodies: no key, no state, no `q`. Work and timing depend on shapes only.

use super::weights::ServerWeights;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::kernels::planes::{BODY_PLANES, Planes, gemm_parallel};
use crate::params::{BODY_BITS, REPLY_BITS};

/// Replies to `bodies` (one per token) for `round`: rows of all its matrices, one after the other.
///
/// # Errors
/// [`Error::Mismatch`] for an unknown round, no body, or a body of another length than `d_in`.
pub fn body_half(weights: &ServerWeights, round: usize, bodies: &[Body]) -> Result<Vec<Reply>> {
    let rounds = weights.rounds();
    let spec = rounds.get(round).ok_or(Error::Mismatch {
        what: "round (below)",
        expected: rounds.len() as u64,
        got: round as u64,
    })?;
    if bodies.is_empty() {
        return Ok(Vec::new());
    }
    for body in bodies {
        Error::check("words of a body", spec.d_in, body.words().len())?;
    }
    let rows: usize = spec.matrices.iter().map(|(_, matrix)| matrix.rows()).sum();
    let mut replies: Vec<Vec<u32>> = bodies.iter().map(|_| Vec::with_capacity(rows)).collect();
    let mut planes: Option<(std::ops::Range<usize>, Planes)> = None;
    let mut sums = Vec::new();
    for (columns, matrix) in &spec.matrices {
        if planes.as_ref().is_none_or(|(range, _)| range != columns) {
            let words: Vec<&[u64]> = bodies.iter().map(|body| &body.words()[columns.clone()]).collect();
            planes = Some((columns.clone(), Planes::from_tokens(&words, BODY_PLANES)));
        }
        let Some((_, planes)) = &planes else { continue };
        sums.clear();
        sums.resize(matrix.rows() * bodies.len(), 0i64);
        gemm_parallel(weights.isa(), matrix, planes, &mut sums);
        for row in sums.chunks_exact(bodies.len()) {
            for (reply, &sum) in replies.iter_mut().zip(row) {
                reply.push(rounded(sum));
            }
        }
    }
    Ok(replies.into_iter().map(Reply::from_words).collect())
}

/// The top 32 of 40 bits, rounded: truncation would bias every result.
#[inline(always)]
fn rounded(sum: i64) -> u32 {
    const DROP: u32 = BODY_BITS - REPLY_BITS;
    (sum.wrapping_add(1 << (DROP - 1)) >> DROP) as u32
}
