//! Clear f32 time of each operation of one decode step (candle), all layers of the model summed.
//!
//! Every layer has its own weights, so that a matrix is not served from the cache because the one before it was the
//! same.

use std::time::Duration;

use candle_core::{D, Device, Result, Tensor};

use crate::{
    shapes::{Matrix, ModelShape},
    stats::median_ms,
};

const MIN_TIME: Duration = Duration::from_millis(300);

/// Milliseconds of all `matrix.count` products of one token.
///
/// # Errors
/// If candle fails (out of memory).
pub fn linear_ms(matrix: &Matrix) -> Result<f64> {
    let device = Device::Cpu;
    let weights: Vec<Tensor> = (0..matrix.count)
        .map(|_| Tensor::rand(-1f32, 1f32, (matrix.d_in, matrix.d_out), &device))
        .collect::<Result<_>>()?;
    let x = Tensor::rand(-1f32, 1f32, (1, matrix.d_in), &device)?;
    timed(|| {
        for w in &weights {
            x.matmul(w)?;
        }
        Ok(())
    })
}

/// Milliseconds of looking one token up.
///
/// # Errors
/// If candle fails.
pub fn embedding_ms(shape: &ModelShape) -> Result<f64> {
    let device = Device::Cpu;
    let table = Tensor::rand(-1f32, 1f32, (shape.vocabulary, shape.hidden), &device)?;
    let id = Tensor::new(&[u32::try_from(shape.vocabulary / 2).unwrap_or(0)], &device)?;
    timed(|| table.index_select(&id, 0).map(drop))
}

/// Milliseconds of all RMS norms of one token.
///
/// # Errors
/// If candle fails.
pub fn norm_ms(shape: &ModelShape) -> Result<f64> {
    let device = Device::Cpu;
    let x = Tensor::rand(-1f32, 1f32, (1, shape.hidden), &device)?;
    let gain = Tensor::rand(-1f32, 1f32, shape.hidden, &device)?;
    timed(|| {
        for _ in 0..shape.norms() {
            let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
            x.broadcast_div(&(mean + 1e-5)?.sqrt()?)?.broadcast_mul(&gain)?;
        }
        Ok(())
    })
}

/// Milliseconds of all activations (SiLU and the gate's product, or GELU) of one token.
///
/// # Errors
/// If candle fails.
pub fn activation_ms(shape: &ModelShape, gelu: bool) -> Result<f64> {
    let device = Device::Cpu;
    let x = Tensor::rand(-1f32, 1f32, (1, shape.feed_forward), &device)?;
    timed(|| {
        for _ in 0..shape.blocks {
            if gelu {
                x.gelu_erf()?;
            } else {
                x.silu()?.mul(&x)?;
            }
        }
        Ok(())
    })
}

/// Milliseconds of (scores, softmax, values) of one token at `context` positions, all blocks.
///
/// # Errors
/// If candle fails.
pub fn attention_ms(shape: &ModelShape, context: usize) -> Result<(f64, f64, f64)> {
    let device = Device::Cpu;
    let (h, d) = (shape.heads, shape.head_dim);
    let query = Tensor::rand(-1f32, 1f32, (h, 1, d), &device)?;
    let keys = Tensor::rand(-1f32, 1f32, (h, d, context), &device)?;
    let values = Tensor::rand(-1f32, 1f32, (h, context, d), &device)?;
    let scores = query.matmul(&keys)?;
    let score_ms = timed(|| query.matmul(&keys).map(drop))?;
    let softmax = || -> Result<Tensor> {
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
    };
    let weights = softmax()?;
    let softmax_ms = timed(|| softmax().map(drop))?;
    let value_ms = timed(|| weights.matmul(&values).map(drop))?;
    let blocks = shape.blocks as f64;
    Ok((score_ms * blocks, softmax_ms * blocks, value_ms * blocks))
}

fn timed(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut failure = None;
    let ms = median_ms(5, MIN_TIME, || {
        if let Err(error) = f() {
            failure.get_or_insert(error);
        }
    });
    failure.map_or(Ok(ms), Err)
}
