//! Int8 matrices as the product kernels read them.

use std::ops::Range;
use std::sync::Arc;

use super::huge::HugeBytes;
use super::lines::{AlignedBytes, LINE_BYTES};
use crate::error::Result;

/// The largest number of columns: what keeps every 32-bit sum of u8 x i8 products in range.
pub const MAX_COLUMNS: usize = 32_768;

// The largest magnitude of a u8 x i8 product is 255 * 128, so a sum of MAX_COLUMNS of them fits an i32.
const _: () = assert!(255 * 128 * MAX_COLUMNS as i64 <= i32::MAX as i64);

/// `[rows, cols]` i8 row-major; every row is padded with zeros to a multiple of 64 and starts on a cache line.
#[derive(Clone)]
pub struct PackedWeights {
    rows: usize,
    cols: usize,
    stride: usize,
    data: Memory,
}

/// Where the rows lie.
#[derive(Clone)]
enum Memory {
    Own(AlignedBytes),
    /// With those of other matrices.
    Gathered(Arc<HugeBytes>, Range<usize>),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Gathered(bytes, range) => &bytes[range.clone()],
        }
    }
}

/// Bytes that [`PackedWeights::gather`] copies at once, before it frees the originals.
const GATHERED_BYTES: usize = 64 << 20;

impl PackedWeights {
    /// Packs `weights`, `[rows, cols]` row-major.
    ///
    /// # Panics
    /// If `weights.len() != rows * cols`, or `cols` is not in `1..=MAX_COLUMNS`.
    pub fn new(rows: usize, cols: usize, weights: &[i8]) -> Self {
        assert!((1..=MAX_COLUMNS).contains(&cols), "columns: expected 1..={MAX_COLUMNS}, got {cols}");
        assert_eq!(Some(weights.len()), rows.checked_mul(cols), "weights: expected {rows} x {cols} elements");
        let stride = cols.next_multiple_of(LINE_BYTES);
        let mut data = AlignedBytes::zeroed(rows * stride);
        for (packed, row) in data.chunks_exact_mut(stride).zip(weights.chunks_exact(cols)) {
            packed[..cols].copy_from_slice(bytemuck::cast_slice(row));
        }
        Self { rows, cols, stride, data: Memory::Own(data) }
    }

    /// Moves the rows of `matrices` into common memory with huge pages, in this order: a model's matrices are read one after
    /// the other for every token, and each alone is too small for a huge page. At most 64 MB (or one matrix) are held twice
    /// meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system refuses the memory; matrices not yet moved stay as they were.
    pub fn gather<'a>(matrices: impl IntoIterator<Item = &'a mut Self>) -> Result<()> {
        let mut group: Vec<&mut Self> = Vec::new();
        let mut bytes = 0;
        for matrix in matrices {
            bytes += matrix.bytes();
            group.push(matrix);
            if bytes >= GATHERED_BYTES {
                Self::gather_group(&mut group)?;
                bytes = 0;
            }
        }
        Self::gather_group(&mut group)
    }

    fn gather_group(group: &mut Vec<&mut Self>) -> Result<()> {
        let mut memory = HugeBytes::zeroed(group.iter().map(|matrix| matrix.bytes()).sum())?;
        let mut at = 0;
        let ranges: Vec<_> = group
            .iter()
            .map(|matrix| {
                let range = at..at + matrix.bytes();
                memory[range.clone()].copy_from_slice(matrix.data.bytes());
                at = range.end;
                range
            })
            .collect();
        let memory = Arc::new(memory);
        for (matrix, range) in group.drain(..).zip(ranges) {
            matrix.data = Memory::Gathered(Arc::clone(&memory), range);
        }
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes from one row to the next: `cols` rounded up to a multiple of 64.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `r` without its padding, `[cols]`.
    ///
    /// # Panics
    /// If `r >= rows`.
    pub fn row(&self, r: usize) -> &[i8] {
        &self.padded_row(r)[..self.cols]
    }

    /// Row `r` with its zero padding, `[stride]`.
    ///
    /// # Panics
    /// If `r >= rows`.
    pub fn padded_row(&self, r: usize) -> &[i8] {
        bytemuck::cast_slice(&self.data.bytes()[r * self.stride..(r + 1) * self.stride])
    }

    /// Memory held by the packed matrix, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// All rows with their padding, `[rows, stride]`.
    pub(crate) fn padded(&self) -> &[i8] {
        bytemuck::cast_slice(self.data.bytes())
    }
}
