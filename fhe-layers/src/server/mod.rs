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
pub use table::{PreparedModel, SharedBytes, TableForm};
pub use weights::{RawMatrix, RawRound, ServerWeights};

use crate::ciphertext::{Body, Reply};
use crate::error::Result;

/// What answers bodies: the real server and the simulators.
pub trait LinearServer {
    /// Replies to the bodies of several tokens for one round.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] for an unknown round or a body of another length.
    fn answer(&self, round: usize, bodies: &[Body]) -> Result<Vec<Reply>>;
}
