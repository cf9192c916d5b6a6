//! The output head tied to the embedding: the one linear layer that runs on the client.

use crate::layers::int8_head::Int8Head;
use crate::{Error, Result};
use candle_core::Tensor;

/// How a tied head is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadPrecision {
    /// The embedding itself, f32: the reference.
    Float,
    /// int8 with a scale for every 32 weights, as GGUF's Q8_0, and f32 activations: a quarter of the bytes to read per
    /// token. Loses nothing where the embedding was Q8_0 in the file.
    #[default]
    Int8,
}

/// `logits = E x`.
#[derive(Clone, Debug)]
pub enum Head {
    /// `[vocab, hidden]` f32.
    Float(Tensor),
    /// Blocks of int8.
    Int8(Int8Head),
}

impl Head {
    /// A head of the embedding matrix `[vocab, hidden]` f32.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(embedding: &Tensor, precision: HeadPrecision) -> Result<Self> {
        Ok(match precision {
            HeadPrecision::Float => Self::Float(embedding.clone()),
            HeadPrecision::Int8 => Self::Int8(Int8Head::new(embedding)?),
        })
    }

    /// Logits `[tokens, vocab]` of normed hidden states `[tokens, hidden]`, f32.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Float(weight) => Ok(x.matmul(&weight.t()?)?),
            Self::Int8(head) => {
                let (_, width) = x.dims2()?;
                if width != head.width() {
                    return Err(Error::TensorShape {
                        name: "input of the head".into(),
                        expected: vec![head.width()],
                        got: vec![width],
                    });
                }
                head.logits(x)
            }
        }
    }
}
