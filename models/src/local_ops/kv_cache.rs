//! Keys and values of the positions seen so far.

use crate::Result;
use candle_core::{DType, Device, Tensor};

/// Keys and values of one block: preallocated, so that a decode step copies one position and nothing else.
///
/// The cache does not know how many positions are valid; the model does, and counts them only when a pass succeeds.
#[derive(Debug)]
pub struct KvCache {
    /// `[kv_heads, capacity, head_dim]`.
    k: Tensor,
    /// `[kv_heads, capacity, head_dim]`.
    v: Tensor,
    capacity: usize,
}

/// Positions by which a cache grows at least.
const STEP: usize = 256;

impl KvCache {
    /// An empty cache.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(kv_heads: usize, head_dim: usize) -> Result<Self> {
        let empty = Tensor::zeros((kv_heads, 0, head_dim), DType::F32, &Device::Cpu)?;
        Ok(Self { k: empty.clone(), v: empty, capacity: 0 })
    }

    /// Writes `k` and `v`, `[kv_heads, tokens, head_dim]` contiguous f32, at positions `start ..`, and returns views
    /// `[kv_heads, start + tokens, head_dim]` of everything up to them.
    ///
    /// # Errors
    /// If the shapes differ from the cache's.
    pub fn write(&mut self, start: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (_, tokens, _) = k.dims3()?;
        let end = start + tokens;
        if end > self.capacity {
            self.grow(start, end)?;
        }
        self.k.slice_set(k, 1, start)?;
        self.v.slice_set(v, 1, start)?;
        Ok((self.k.narrow(1, 0, end)?, self.v.narrow(1, 0, end)?))
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        2 * self.k.elem_count() * size_of::<f32>()
    }

    /// A copy of the first `len` positions, which must have been written.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn copy_of_first(&self, len: usize) -> Result<Self> {
        let side = |side: &Tensor| Ok::<_, crate::Error>(side.narrow(1, 0, len)?.force_contiguous()?);
        Ok(Self { k: side(&self.k)?, v: side(&self.v)?, capacity: len })
    }

    /// Frees the memory.
    pub fn clear(&mut self) {
        if let (Ok(k), Ok(v)) = (self.k.narrow(1, 0, 0), self.v.narrow(1, 0, 0)) {
            // Copies of nothing, so that the storage of the full cache is dropped.
            if let (Ok(k), Ok(v)) = (k.copy(), v.copy()) {
                (self.k, self.v, self.capacity) = (k, v, 0);
            }
        }
    }

    fn grow(&mut self, used: usize, needed: usize) -> Result<()> {
        let (kv_heads, _, head_dim) = self.k.dims3()?;
        let capacity = needed.next_multiple_of(STEP).max(self.capacity * 3 / 2);
        for side in [&mut self.k, &mut self.v] {
            let grown = Tensor::zeros((kv_heads, capacity, head_dim), DType::F32, &Device::Cpu)?;
            if used > 0 {
                grown.slice_set(&side.narrow(1, 0, used)?.contiguous()?, 1, 0)?;
            }
            *side = grown;
        }
        self.capacity = capacity;
        Ok(())
    }
}
