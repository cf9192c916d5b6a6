//! Language models whose linear layers run elsewhere.
//!
//! A model of this crate is built from a *client part* (embeddings, norms, biases, tokenizer) and a
//! [`linear::LinearBackend`] that evaluates the linear layers: in the clear ([`linear::dense`]), or on a server
//! that never sees the activations (crate `runtime`). The user's data stays with the client; the linear weights
//! are not shipped to it.

pub mod bert;
pub mod chat_template;
pub mod config;
pub mod error;
pub mod generate;
pub mod gpt2;
pub mod layers;
pub mod limits;
pub mod linear;
pub mod llama;
pub mod model;
pub mod source;
pub mod split;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
