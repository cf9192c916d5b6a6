//! The server: prepared tables, mask half, body half. It holds no secret of a client.

pub mod body_half;
mod huge;
pub(crate) mod mask_half;
mod prepare;
mod saved;
mod table;
mod weights;

pub use body_half::body_half;
pub use mask_half::{ExpandedKeys, MaskJob};
pub use prepare::PrepareOptions;
pub use table::{PreparedModel, SharedBytes, TableBytes, TableForm};
pub use weights::{RawMatrix, RawRound, ServerWeights};

use crate::error::Result;

/// What answers a client's inputs round by round: the real server, to bodies, and the simulator, to activations.
pub trait LinearServer {
    /// One token's input of a round.
    type Input;
    /// One token's answer, all rows of the round.
    type Output;

    /// Answers the inputs of several tokens for one round.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] for an unknown round or an input of another length.
    fn answer(&self, round: usize, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;
}
