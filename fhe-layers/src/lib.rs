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
//! | shared masks | once per session | server | `a' = a + pk_a u + e_a`, downloaded and cached by the client |
//! | mask half | ahead of need | server | `b'`: digits times key, hidden by `pk_b u` |
//! | body half | online, per token | server | `round(W v + b')`, one short word per row |
//! | decode | online | client | `y = (reply - a' s) / scale` |
//!
//! Three wire forms share this: **lean** keeps `b'` at the server, **stateless** sends it ahead, **full** (the first form)
//! has no sessions. See [`form`].
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
mod bits;
pub mod ciphertext;
pub mod client;
pub mod cpu;
pub mod engine;
pub mod error;
pub mod form;
#[cfg(test)]
mod golden;
mod guard;
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
mod words;

pub use ciphertext::{Body, EvaluationKeys, MaskBlock, Reply};
pub use client::{
    Batch, Client, ClientOptions, ClientSession, ExactMode, PendingReply, SessionDownload, Slot,
};
pub use engine::LayerEngine;
pub use error::{Error, ParamsError, Result};
pub use form::{Widths, WireForm};
pub use guard::{ForkGuard, Freshness};
pub use instance::{Instance, ModelDigest};
pub use layout::{Layout, MatrixSpec, RoundSpec};
pub use params::{Params, Set};
pub use random::noise::NoiseRng;
pub use server::{
    BatchIds, BatchWords, Claim, ExpandedKeys, LeanBatch, LinearServer, MaskJob, Opened, PrepareOptions,
    PreparedModel, RawMatrix, RawRound, ServerSession, ServerWeights, SlotLedger, SlotWords, TableBytes,
    TableForm, WordQuery, WordsJob, body_half, word_half,
};
pub use words::{MaskWords, SessionSeed, SharedMaskHasher, WordBody, WordReply};
