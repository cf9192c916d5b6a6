//! Llama, Qwen2 and Qwen3: decoders with RMS norms, rotary positions, grouped queries and gated feed-forward layers.

mod block;
pub mod config;
mod hugging_face;
mod model;
mod plan;

pub use config::Config;
pub use model::Llama;
