//! The seam between the protocol and the hardware: what a server computes, as a trait.
//!
//! Everything heavy on the server is one of three calls: [`LayerEngine::prepare`], once per model; [`LayerEngine::mask_half`],
//! once per batch; [`LayerEngine::body_half`], per token. [`crate::cpu::CpuEngine`] is the first implementation. Another one, on
//! a GPU for example, implements the trait and runs `conformance` (feature `conformance`): the same integers as the
//! reference on the golden vectors, and the same as the portable CPU code on the real ring.
//!
//! An engine sees no secret of a client, and its work must depend on shapes only.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use crate::error::Result;
use crate::form::Widths;
use crate::instance::Instance;
use crate::server::{PrepareOptions, RawRound, ServerSession, WordQuery, WordsJob};
use crate::words::{MaskWords, WordReply};
use std::ops::Range;
use std::sync::Arc;

/// Receives `b'` of `(job, block)`, in any order, from any thread.
pub type MaskSink<'a> = dyn Fn(usize, usize, MaskWords) + Sync + 'a;

/// Computes the server's side of the session forms.
pub trait LayerEngine: Send + Sync {
    /// Prepared tables of one model.
    type Tables: Send + Sync;
    /// Weights of one model: all that a replica of the body half needs.
    type Weights: Send + Sync;

    /// Packs `rounds`, which must have the shapes of `instance`.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] for another shape, [`crate::Error::WeightOutOfRange`] for -128.
    fn load(&self, instance: &Instance, rounds: &[RawRound<'_>]) -> Result<Self::Weights>;

    /// Once per model: the hint times `phi^-1`, and the packing chain down to digits, final masks and folds.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] when the progress callback says so, [`crate::Error::Io`] when there is no memory.
    fn prepare(
        &self,
        instance: &Arc<Instance>,
        weights: &Arc<Self::Weights>,
        options: &PrepareOptions<'_>,
    ) -> Result<Self::Tables>;

    /// Once per session: `a' = a + pk_a u + e_a` of `blocks`, packed, in order.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] for blocks outside the layout.
    fn shared_masks(
        &self,
        tables: &Self::Tables,
        session: &ServerSession,
        blocks: Range<usize>,
    ) -> Result<Vec<Vec<u8>>>;

    /// Once per batch: `b' = b + pk_b u - fold` of `blocks` for up to [`crate::kernels::mask_mac::MAX_BATCHES`] jobs.
    /// `keep_on` is asked before each block.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] for no or too many jobs or blocks outside the layout; [`crate::Error::Cancelled`].
    fn mask_half(
        &self,
        tables: &Self::Tables,
        jobs: &[WordsJob<'_>],
        blocks: Range<usize>,
        keep_on: &(dyn Fn() -> bool + Sync),
        sink: &MaskSink<'_>,
    ) -> Result<()>;

    /// Per token: `round((W v + b') mod 2^32, to the top R bits)`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] for an unknown round, [`crate::Error::Mismatch`] for a body or kept words of another
    /// length.
    fn body_half(
        &self,
        weights: &Self::Weights,
        round: usize,
        queries: &[WordQuery<'_>],
        widths: Widths,
    ) -> Result<Vec<WordReply>>;
}
