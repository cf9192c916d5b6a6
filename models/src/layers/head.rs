//! The output head tied to the embedding: the one linear layer that runs on the client.

use crate::Result;
use candle_core::Tensor;

/// How a tied head is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadPrecision {
    /// The embedding itself, f32: the reference.
    #[default]
    Float,
}

/// `logits = E x`.
#[derive(Clone, Debug)]
pub enum Head {
    /// `[vocab, hidden]` f32.
    Float(Tensor),
}

impl Head {
    /// A head of the embedding matrix `[vocab, hidden]` f32.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(embedding: &Tensor, precision: HeadPrecision) -> Result<Self> {
        match precision {
            HeadPrecision::Float => Ok(Self::Float(embedding.clone())),
        }
    }

    /// Logits `[tokens, vocab]` of normed hidden states `[tokens, hidden]`, f32.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Float(weight) => Ok(x.matmul(&weight.t()?)?),
        }
    }
}
