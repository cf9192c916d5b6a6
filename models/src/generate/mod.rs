//! From logits to text: sampling, stopping, streaming.

pub mod sampler;
pub mod stop;
