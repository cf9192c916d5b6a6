//! Local operations of transformer blocks: what the client computes itself, in the clear.

pub mod attention;
pub mod gate;
pub mod gelu;
pub mod head;
pub mod int8_head;
pub mod kv_cache;
pub mod layer_norm;
pub mod norm;
pub mod rope;
mod simd;
