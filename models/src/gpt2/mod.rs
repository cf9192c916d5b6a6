//! GPT-2: decoders with learned positions, pre-layer norms and biases everywhere.

mod block;
pub mod config;
mod model;
mod plan;

pub use config::Config;
pub use model::Gpt2;
