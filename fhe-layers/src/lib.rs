//! The split-phase encrypted linear layer.

pub mod arith;
pub mod kernels;
