//! Local operations of transformer blocks: what the client computes itself, in the clear.

pub mod activation;
pub mod attention;
pub mod embedding;
pub mod head;
pub mod int8_blocks;
mod isa;
pub mod kv_cache;
pub mod norm;
pub mod rope;
