//! What the client computes between the rounds, for every configuration.

mod block;
mod decoder;
mod encoder;
mod pass;

pub use decoder::Decoder;
pub use encoder::Encoder;
