//! The server: prepared tables, sessions, mask half, kept words, body half. It holds no secret of a client.

pub mod body_half;
pub(crate) mod digits;
pub(crate) mod mask_half;
mod prepare;
mod saved;
pub(crate) mod session;
mod slots;
mod table;
mod weights;

pub use body_half::{WordQuery, body_half, word_half};
pub use mask_half::{ExpandedKeys, MaskJob, WordsJob};
pub use prepare::PrepareOptions;
pub use session::ServerSession;
pub use slots::{BatchIds, BatchWords, Claim, LeanBatch, Opened, SlotLedger, SlotWords};
pub use table::{PreparedModel, SharedBytes, TableBytes, TableForm};
pub use weights::{RawMatrix, RawRound, ServerWeights};

use crate::error::Result;

/// What answers a client's inputs round by round in the full form. It has one implementation and no generic user, and goes
/// with that form; engines implement [`crate::LayerEngine`].
pub trait LinearServer {
    /// One token's input of a round.
    type Input;
    /// One token's answer, all rows of the round.
    type Output;

    /// Answers the inputs of several tokens for one round.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] for an unknown round, [`crate::Error::Mismatch`] for an input of another length.
    fn answer(&self, round: usize, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;
}
