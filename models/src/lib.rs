//! Language models whose linear layers run elsewhere.
//!
//! A model of this crate is built from a *client part* (embeddings, norms, biases, tokenizer) and a
//! [`linear::LinearBackend`] that evaluates the linear layers: in the clear ([`linear::dense`]), or on a server
//! that never sees the activations (crate `runtime`). The user's data stays with the client; the linear weights
//! are not shipped to it.

pub mod config;
pub mod error;
pub mod linear;
pub mod split;
pub mod weights;

pub use error::{Error, Result};
