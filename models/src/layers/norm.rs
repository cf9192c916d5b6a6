//! Root-mean-square norms.

use crate::Result;
use candle_core::{D, Tensor};

/// `1 / sqrt(mean(x^2) + eps)` of every row.
///
/// `x`: `[tokens, width]` f32; returns `[tokens, 1]`.
///
/// # Errors
/// If `x` is not a matrix.
pub fn inverse_rms(x: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    Ok((mean + eps)?.sqrt()?.recip()?)
}
