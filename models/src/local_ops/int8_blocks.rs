//! A matrix of int8 blocks: embeddings are looked up in it, and a tied head multiplies by it.
//!
//! A tied head is read whole for every token, and its time is that of reading it. Weights are in blocks of 32 with one
//! scale each, as in GGUF's Q8_0, of which nothing is lost; the products are formed in f32, so only the weights are
//! rounded.

use super::isa::{Isa, LANES, compiled_for_each_isa};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use half::f16;
use rayon::prelude::*;
use std::sync::Arc;

/// Weights that share a scale.
pub const BLOCK: usize = 32;
/// Rows that one task takes: some hundred KB, so that tasks are few and still balance.
const ROWS_PER_TASK: usize = 512;

/// `[rows, width]` in int8 blocks; rows are padded to whole blocks with zeros. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Int8Blocks {
    weights: Arc<Vec<i8>>,
    /// f16 values; held as f32, which the products need.
    scales: Arc<[f32]>,
    rows: usize,
    width: usize,
    isa: Isa,
}

/// Rows in int8 blocks as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBlocks {
    /// `[rows, width padded to whole blocks]`.
    pub weights: Vec<i8>,
    /// `[rows, blocks of a row]`.
    pub scales: Vec<f16>,
}

/// Quantizes `floats`, rows of `width` one after the other.
///
/// # Panics
/// If `floats` is not a whole number of rows.
pub fn quantize_blocks(floats: &[f32], width: usize) -> StoredBlocks {
    assert!(width > 0 && floats.len().is_multiple_of(width), "whole rows");
    let rows = floats.len() / width;
    let padded = width.next_multiple_of(BLOCK);
    let mut weights = vec![0i8; rows * padded];
    let mut scales = vec![f16::ZERO; rows * padded / BLOCK];
    weights
        .par_chunks_exact_mut(padded)
        .zip(scales.par_chunks_exact_mut(padded / BLOCK))
        .zip(floats.par_chunks_exact(width))
        .for_each(|((weights, scales), row)| {
            for ((out, scale), block) in weights.chunks_exact_mut(BLOCK).zip(scales).zip(row.chunks(BLOCK)) {
                let largest = block.iter().fold(0f32, |largest, w| largest.max(w.abs()));
                *scale = scale_for(largest);
                if largest > 0.0 {
                    for (q, w) in out.iter_mut().zip(block) {
                        *q = (w / scale.to_f32()).round().clamp(-127.0, 127.0) as i8;
                    }
                }
            }
        });
    StoredBlocks { weights, scales }
}

/// The f16 nearest to `largest / 127`, or the next one where the nearest would cut the largest weight off: the steps of
/// subnormal numbers are wide.
fn scale_for(largest: f32) -> f16 {
    let nearest = f16::from_f32(largest / 127.0);
    if largest > 127.5 * nearest.to_f32() { f16::from_bits(nearest.to_bits() + 1) } else { nearest }
}

impl Int8Blocks {
    /// Quantizes `[rows, width]` f32.
    ///
    /// # Errors
    /// If `matrix` is not a matrix.
    pub fn new(matrix: &Tensor) -> Result<Self> {
        let (rows, width) = matrix.dims2()?;
        let floats = matrix.flatten_all()?.to_vec1::<f32>()?;
        Self::from_stored(quantize_blocks(&floats, width), rows, width)
    }

    /// A matrix of blocks read from a file.
    ///
    /// # Errors
    /// If there are too many or too few of them, or a scale is negative or not finite.
    pub fn from_stored(stored: StoredBlocks, rows: usize, width: usize) -> Result<Self> {
        let blocks = rows * width.div_ceil(BLOCK);
        if (stored.weights.len(), stored.scales.len()) != (blocks * BLOCK, blocks) {
            return Err(Error::TensorShape {
                name: "int8 blocks".to_owned(),
                expected: vec![blocks * BLOCK, blocks],
                got: vec![stored.weights.len(), stored.scales.len()],
            });
        }
        let scales: Arc<[f32]> = stored.scales.iter().map(|scale| scale.to_f32()).collect();
        if let Some(bad) = scales.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
            return Err(Error::out_of_range("scale of an int8 block", "a number from 0", bad));
        }
        Ok(Self { weights: Arc::new(stored.weights), scales, rows, width, isa: Isa::active()? })
    }

    /// The blocks as they are stored.
    pub fn to_stored(&self) -> StoredBlocks {
        let scales = self.scales.iter().map(|&scale| f16::from_f32(scale)).collect();
        StoredBlocks { weights: self.weights.to_vec(), scales }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.weights.len() + size_of::<f32>() * self.scales.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes row `row` as f32 to `out`.
    ///
    /// # Panics
    /// If there is no such row or `out` has another width.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.width, "row {row} of {}", self.rows);
        let blocks = self.width.div_ceil(BLOCK);
        let weights = &self.weights[row * blocks * BLOCK..(row + 1) * blocks * BLOCK];
        let scales = &self.scales[row * blocks..(row + 1) * blocks];
        for ((out, weights), scale) in out.chunks_mut(BLOCK).zip(weights.chunks_exact(BLOCK)).zip(scales) {
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out = f32::from(weight) * scale;
            }
        }
    }

    /// Inputs per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Products `[tokens, rows]` with `x`, `[tokens, width]` f32.
    ///
    /// # Errors
    /// If `x` is not a matrix.
    ///
    /// # Panics
    /// If `x` has another width.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        assert_eq!(width, self.width, "width of the head's input");
        let padded = width.next_multiple_of(BLOCK);
        let mut inputs = vec![0f32; tokens * padded];
        let x = x.flatten_all()?.to_vec1::<f32>()?;
        for (input, x) in inputs.chunks_exact_mut(padded).zip(x.chunks_exact(width)) {
            input[..width].copy_from_slice(x);
        }
        let mut out = vec![0f32; tokens * self.rows];
        for (out, input) in out.chunks_exact_mut(self.rows).zip(inputs.chunks_exact(padded)) {
            out.par_chunks_mut(ROWS_PER_TASK)
                .zip(self.weights.par_chunks(ROWS_PER_TASK * padded))
                .zip(self.scales.par_chunks(ROWS_PER_TASK * padded / BLOCK))
                .for_each(|((out, weights), scales)| multiply(self.isa, out, weights, scales, input));
        }
        Ok(Tensor::from_vec(out, (tokens, self.rows), &Device::Cpu)?)
    }
}

compiled_for_each_isa! {
    fn multiply(out: &mut [f32], weights: &[i8], scales: &[f32], x: &[f32]) = multiply_rows;
}

/// `out[r] = sum_b scales[r][b] * sum_i weights[r][b][i] * x[b][i]`.
#[inline(always)]
fn multiply_rows(out: &mut [f32], weights: &[i8], scales: &[f32], x: &[f32]) {
    let blocks = x.len() / BLOCK;
    for ((out, row), scales) in
        out.iter_mut().zip(weights.chunks_exact(x.len())).zip(scales.chunks_exact(blocks))
    {
        let mut sums = [0f32; LANES];
        for ((block, &scale), x) in row.chunks_exact(BLOCK).zip(scales).zip(x.chunks_exact(BLOCK)) {
            for lane in 0..LANES {
                let low = f32::from(block[lane]) * x[lane];
                let high = f32::from(block[lane + LANES]) * x[lane + LANES];
                sums[lane] += (low + high) * scale;
            }
        }
        *out = sums.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, width: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn products_are_those_of_the_rounded_weights() {
        for (rows, width) in [(1, 1), (3, 32), (700, 45), (1025, 96)] {
            let matrix = random(rows, width);
            let head = Int8Blocks::new(&matrix).unwrap();
            let x = random(2, width);
            let got = head.logits(&x).unwrap().to_vec2::<f32>().unwrap();
            let exact = x.matmul(&matrix.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
            for (got, exact) in got.iter().flatten().zip(exact.iter().flatten()) {
                // A weight is off by at most half of 1/127 of its block's largest (here below 5).
                let bound = 5.0 / 254.0 * (width as f32).sqrt() * 5.0;
                assert!((got - exact).abs() < bound, "{got} against {exact}");
            }
        }
    }

    #[test]
    fn weights_that_are_int8_already_lose_nothing() {
        let values: Vec<f32> = (0..64).map(|i| (i * 37 % 255) as f32 - 127.0).collect();
        let mut values = values;
        (values[0], values[32]) = (127.0, -127.0);
        let matrix = Tensor::from_slice(&values, (1, 64), &Device::Cpu).unwrap();
        let x = random(1, 64);
        let got = Int8Blocks::new(&matrix).unwrap().logits(&x).unwrap();
        let exact = x.matmul(&matrix.t().unwrap()).unwrap();
        let (got, exact) = (got.to_vec2::<f32>().unwrap()[0][0], exact.to_vec2::<f32>().unwrap()[0][0]);
        assert!((got - exact).abs() < 1e-2, "{got} against {exact}");
    }

    #[test]
    fn stored_blocks_are_read_back_and_rows_are_the_rounded_ones() {
        for (rows, width) in [(3, 32), (5, 45)] {
            let matrix = random(rows, width);
            let blocks = Int8Blocks::new(&matrix).unwrap();
            let stored = blocks.to_stored();
            let back = Int8Blocks::from_stored(stored.clone(), rows, width).unwrap();
            assert_eq!(back.to_stored(), stored);
            let mut row = vec![0.0; width];
            back.copy_row(rows - 1, &mut row);
            let exact = matrix.get(rows - 1).unwrap().to_vec1::<f32>().unwrap();
            for (got, exact) in row.iter().zip(&exact) {
                assert!((got - exact).abs() < 5.0 / 254.0 * 1.01, "{got} against {exact}");
            }
            // Quantizing what was quantized changes nothing.
            let again = quantize_blocks(&row, width);
            let blocks_of_row = width.div_ceil(BLOCK);
            assert_eq!(again.weights, stored.weights[(rows - 1) * blocks_of_row * BLOCK..]);
            assert!(Int8Blocks::from_stored(stored, rows + 1, width).is_err());
        }
    }

    #[test]
    fn tiny_weights_are_not_cut_off() {
        for largest in [1e-7f32, 3e-6, 1e-4, 0.5] {
            let mut row = vec![0.0];
            Int8Blocks::new(&Tensor::from_slice(&[largest], (1, 1), &Device::Cpu).unwrap())
                .unwrap()
                .copy_row(0, &mut row);
            assert!((row[0] - largest).abs() <= (largest / 127.0).max(6e-8), "{largest} became {}", row[0]);
        }
    }

    #[test]
    fn all_instruction_sets_agree() {
        let mut head = Int8Blocks::new(&random(600, 100)).unwrap();
        let x = random(1, 100);
        let best = head.logits(&x).unwrap().to_vec2::<f32>().unwrap();
        for isa in Isa::all() {
            head.isa = isa;
            let got = head.logits(&x).unwrap().to_vec2::<f32>().unwrap();
            for (a, b) in best[0].iter().zip(&got[0]) {
                assert!((a - b).abs() < 1e-3, "{isa:?}: {a} against {b}");
            }
        }
    }
}
