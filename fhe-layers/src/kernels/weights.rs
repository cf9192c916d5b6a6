//! Int8 matrices as the product kernels read them.

use super::lines::{AlignedBytes, LINE_BYTES};

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
    data: AlignedBytes,
}

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
        Self { rows, cols, stride, data }
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
        bytemuck::cast_slice(&self.data[r * self.stride..(r + 1) * self.stride])
    }

    /// Memory held by the packed matrix, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// All rows with their padding, `[rows, stride]`.
    pub(crate) fn padded(&self) -> &[i8] {
        bytemuck::cast_slice(&self.data)
    }
}
