//! The output head tied to the embedding: the one linear layer that runs on the client.

use crate::local_ops::int8_blocks::Int8Blocks;
use crate::{Error, Result};
use candle_core::Tensor;

/// How a tied head is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadPrecision {
    /// f32: the reference.
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
    Int8(Int8Blocks),
}

impl Head {
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
