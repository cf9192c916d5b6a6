//! A matrix of int8 blocks times f32 vectors.
//!
//! A tied head is read whole for every token, and its time is that of reading it. Weights stand in blocks of
//! 32 with one scale each; the products are formed in f32, so only the weights are rounded.

use super::simd::{Isa, LANES, compiled_for_each_isa};
use crate::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Weights that share a scale, as in GGUF's Q8_0.
const BLOCK: usize = 32;
/// Rows that one task takes: some hundred KB, so that tasks are few and still balance.
const ROWS_PER_TASK: usize = 512;

/// `[rows, width]` in int8 blocks; rows are padded to whole blocks with zeros.
#[derive(Clone, Debug)]
pub struct Int8Head {
    weights: Arc<[i8]>,
    scales: Arc<[f32]>,
    rows: usize,
    width: usize,
    isa: Isa,
}

impl Int8Head {
    /// Quantizes `[rows, width]` f32.
    ///
    /// # Errors
    /// If `matrix` is not a matrix.
    pub fn new(matrix: &Tensor) -> Result<Self> {
        let (rows, width) = matrix.dims2()?;
        let floats = matrix.flatten_all()?.to_vec1::<f32>()?;
        let padded = width.next_multiple_of(BLOCK);
        let mut weights = vec![0i8; rows * padded];
        let mut scales = vec![0f32; rows * padded / BLOCK];
        weights
            .par_chunks_exact_mut(padded)
            .zip(scales.par_chunks_exact_mut(padded / BLOCK))
            .zip(floats.par_chunks_exact(width))
            .for_each(|((weights, scales), row)| {
                for ((out, scale), block) in
                    weights.chunks_exact_mut(BLOCK).zip(scales).zip(row.chunks(BLOCK))
                {
                    let largest = block.iter().fold(0f32, |largest, w| largest.max(w.abs()));
                    *scale = largest / 127.0;
                    if largest > 0.0 {
                        for (q, w) in out.iter_mut().zip(block) {
                            *q = (w / *scale).round() as i8;
                        }
                    }
                }
            });
        Ok(Self { weights: weights.into(), scales: scales.into(), rows, width, isa: Isa::best() })
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
            let head = Int8Head::new(&matrix).unwrap();
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
        let got = Int8Head::new(&matrix).unwrap().logits(&x).unwrap();
        let exact = x.matmul(&matrix.t().unwrap()).unwrap();
        let (got, exact) = (got.to_vec2::<f32>().unwrap()[0][0], exact.to_vec2::<f32>().unwrap()[0][0]);
        assert!((got - exact).abs() < 1e-2, "{got} against {exact}");
    }

    #[test]
    fn all_instruction_sets_agree() {
        let mut head = Int8Head::new(&random(600, 100)).unwrap();
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
