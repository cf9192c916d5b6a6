//! The split-phase encrypted linear layer: `y = W x` by a server that never sees `x`, for a client that is never sent `W`.
//!
//! # The equation
//! A ciphertext is a mask `a` and a body `b = a s + e + m`. A plaintext matrix acts on each half separately, and
//! everything expensive (key switching, packing) happens to the mask, which depends on no activation:
//!
//! | phase | when | who | work |
//! |---|---|---|---|
//! | prepare | once per model | server | hint `H = W A`, the packing chain down to its digits |
//! | keys | once per batch of `tau` tokens | client | fresh secret `s`, one key-switch key, pads `A s` |
//! | mask half | ahead of need | server | digits times key, re-randomised |
//! | body half | online, per token | server | `u = W b mod 2^40` |
//! | decode | online | client | `y = (phi u + correction) / (phi scale)` |
//!
//! # Who holds which secret
//! The client: `s`, pads, corrections, noise, scales ([`client`]). The server: int8 weights and the tables prepared from
//! them ([`server`]), and no secret of a client. Public: parameters, shapes, digest, the masks `A` and `ka` derived
//! from it ([`Instance`]), and a batch's [`EvaluationKeys`].
//!
//! # What leaks
//! **The user's data is protected**: the server learns counts and timing, not values. **The weights are not shipped**,
//! but answers determine them: `d_in / 4` chosen queries or about `d_in` ordinary tokens recover a matrix. No circuit
//! privacy is claimed. Assumptions: RLWE with a binary secret at `N = 2048`, circular security, a random oracle for
//! the public masks; messages may depend on earlier decryption noise.
//!
//! # Example
//! ```
#![doc = include_str!("../examples/one_layer.rs")]
//! ```

pub mod arith;
pub mod ciphertext;
pub mod client;
pub mod error;
#[cfg(test)]
mod golden;
mod instance;
pub mod kernels;
pub mod layout;
pub mod noise;
mod packing;
pub mod params;
pub mod random;
pub mod ring;
mod secret;
pub mod server;
pub mod simulate;
mod switch;
#[cfg(test)]
mod testing;

pub use ciphertext::{Body, EvaluationKeys, MaskBlock, Reply};
pub use client::{Batch, Client, ClientOptions, ExactMode, PendingReply, Slot};
pub use error::{Error, ParamsError, Result};
pub use instance::{Instance, ModelDigest};
pub use layout::{Layout, MatrixSpec, RoundSpec};
pub use params::Params;
pub use random::noise::NoiseRng;
pub use server::{
    ExpandedKeys, LinearServer, MaskJob, PrepareOptions, PreparedModel, RawMatrix, RawRound, ServerWeights,
    TableBytes, TableForm, body_half,
};
