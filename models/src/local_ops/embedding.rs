//! The embedding matrix: a row for each entry of the vocabulary.

use super::head::{Head, HeadPrecision};
use super::int8_blocks::Int8Blocks;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// `[vocab, hidden]`. Clones share the memory.
#[derive(Clone, Debug)]
pub enum Embedding {
    /// f32.
    Float(Tensor),
    /// int8 in blocks: a quarter of the memory, and what client parts hold of decoders.
    Int8(Int8Blocks),
}

impl Embedding {
    /// Number of rows.
    ///
    /// # Errors
    /// If the tensor is not a matrix.
    pub fn vocab_size(&self) -> Result<usize> {
        match self {
            Self::Float(matrix) => Ok(matrix.dims2()?.0),
            Self::Int8(blocks) => Ok(blocks.rows()),
        }
    }

    /// Length of a row.
    ///
    /// # Errors
    /// If the tensor is not a matrix.
    pub fn width(&self) -> Result<usize> {
        match self {
            Self::Float(matrix) => Ok(matrix.dims2()?.1),
            Self::Int8(blocks) => Ok(blocks.width()),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.elem_count() * size_of::<f32>(),
            Self::Int8(blocks) => blocks.bytes(),
        }
    }

    /// Checks the shape.
    ///
    /// # Errors
    /// If it differs.
    pub fn check(&self, vocab: usize, width: usize) -> Result<()> {
        let got = vec![self.vocab_size()?, self.width()?];
        if got == [vocab, width] {
            return Ok(());
        }
        Err(Error::TensorShape { name: "token_embd.weight".to_owned(), expected: vec![vocab, width], got })
    }

    /// The rows of `ids`, `[tokens, hidden]` f32.
    ///
    /// # Errors
    /// If an id is not below [`vocab_size`](Self::vocab_size).
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let vocab = self.vocab_size()?;
        if let Some(&got) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::TokenOutOfRange { got, vocab });
        }
        match self {
            Self::Float(matrix) => Ok(matrix.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?),
            Self::Int8(blocks) => {
                let width = blocks.width();
                let mut rows = vec![0f32; ids.len() * width];
                for (row, &id) in rows.chunks_exact_mut(width).zip(ids) {
                    blocks.copy_row(id as usize, row);
                }
                Ok(Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)?)
            }
        }
    }

    /// Consecutive rows, `[rows, hidden]` f32.
    ///
    /// # Errors
    /// If there are not that many.
    pub fn range(&self, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Self::Float(matrix) => Ok(matrix.narrow(0, rows.start, rows.len())?.contiguous()?),
            Self::Int8(_) => self.rows(&(rows.start as u32..rows.end as u32).collect::<Vec<_>>()),
        }
    }

    /// The output head that is this matrix.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn head(&self, precision: HeadPrecision) -> Result<Head> {
        match (self, precision) {
            (Self::Float(matrix), HeadPrecision::Float) => Ok(Head::Float(matrix.clone())),
            (Self::Float(matrix), HeadPrecision::Int8) => Ok(Head::Int8(Int8Blocks::new(matrix)?)),
            (Self::Int8(blocks), HeadPrecision::Int8) => Ok(Head::Int8(blocks.clone())),
            (Self::Int8(blocks), HeadPrecision::Float) => {
                let all: Vec<u32> = (0..blocks.rows() as u32).collect();
                Ok(Head::Float(self.rows(&all)?))
            }
        }
    }
}
