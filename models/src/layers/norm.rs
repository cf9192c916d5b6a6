//! Root-mean-square norms.

use super::simd::{Isa, compiled_for_each_isa, dot};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// `gain * x / sqrt(mean(x^2) + eps)` over each row.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    gain: Vec<f32>,
    eps: f32,
}

impl RmsNorm {
    /// A norm with this gain, `[width]` f32.
    ///
    /// # Errors
    /// If `gain` is not a vector of f32.
    pub fn new(gain: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { gain: gain.to_vec1()?, eps: eps as f32 })
    }

    /// Norms the rows of `x`, `[tokens, width]` f32; returns the same shape.
    ///
    /// # Errors
    /// If `x` is not such a matrix.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        if width != self.gain.len() {
            return Err(Error::TensorShape {
                name: "input of a norm".into(),
                expected: vec![tokens, self.gain.len()],
                got: vec![tokens, width],
            });
        }
        let mut values = x.flatten_all()?.to_vec1()?;
        self.apply_slice(&mut values);
        Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
    }

    /// Norms every row of `values`, which are rows of the gain's width one after the other.
    pub(crate) fn apply_slice(&self, values: &mut [f32]) {
        norm_rows(Isa::best(), values, &self.gain, self.eps);
    }
}

/// `1 / sqrt(mean(x^2) + eps)` of every row of `x`, `[tokens, width]` f32.
///
/// # Errors
/// If `x` is not such a matrix.
pub fn inverse_rms(x: &Tensor, eps: f64) -> Result<Vec<f32>> {
    let (tokens, width) = x.dims2()?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    let mut inverses = vec![0.0; tokens];
    inverse_rows(Isa::best(), &values, width, eps as f32, &mut inverses);
    Ok(inverses)
}

/// Multiplies every row of `x`, `[tokens, width]` f32, by its factor.
///
/// # Errors
/// If `x` is not such a matrix.
pub fn scale_rows(x: &Tensor, factors: &[f32]) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    if tokens != factors.len() {
        return Err(Error::TensorShape {
            name: "rows to be scaled".into(),
            expected: vec![factors.len(), width],
            got: vec![tokens, width],
        });
    }
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    for (row, factor) in values.chunks_exact_mut(width).zip(factors) {
        for value in row {
            *value *= factor;
        }
    }
    Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
}

compiled_for_each_isa! {
    fn norm_rows(values: &mut [f32], gain: &[f32], eps: f32) = norm_rows_body;
}

compiled_for_each_isa! {
    fn inverse_rows(values: &[f32], width: usize, eps: f32, inverses: &mut [f32]) = inverse_rows_body;
}

#[inline(always)]
fn norm_rows_body(values: &mut [f32], gain: &[f32], eps: f32) {
    for row in values.chunks_exact_mut(gain.len()) {
        let inverse = inverse_of(row, eps);
        for (value, gain) in row.iter_mut().zip(gain) {
            *value *= inverse * gain;
        }
    }
}

#[inline(always)]
fn inverse_rows_body(values: &[f32], width: usize, eps: f32, inverses: &mut [f32]) {
    for (inverse, row) in inverses.iter_mut().zip(values.chunks_exact(width)) {
        *inverse = inverse_of(row, eps);
    }
}

#[inline(always)]
fn inverse_of(row: &[f32], eps: f32) -> f32 {
    (dot(row, row) / row.len() as f32 + eps).sqrt().recip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_candles() {
        let x = Tensor::randn(0f32, 3.0, (5, 100), &Device::Cpu).unwrap();
        let gain = Tensor::randn(1f32, 0.2, 100, &Device::Cpu).unwrap();
        let expected = candle_nn::ops::rms_norm(&x, &gain, 1e-5).unwrap().to_vec2::<f32>().unwrap();
        let norm = RmsNorm::new(&gain, 1e-5).unwrap();
        let got = norm.apply(&x).unwrap().to_vec2::<f32>().unwrap();
        let by_parts = scale_rows(&x, &inverse_rms(&x, 1e-5).unwrap()).unwrap();
        let by_parts = by_parts.broadcast_mul(&gain).unwrap().to_vec2::<f32>().unwrap();
        for ((e, g), p) in expected.iter().flatten().zip(got.iter().flatten()).zip(by_parts.iter().flatten())
        {
            assert!((e - g).abs() < 1e-5 && (e - p).abs() < 1e-5, "{e}, {g}, {p}");
        }
        assert!(norm.apply(&x.narrow(1, 0, 99).unwrap().contiguous().unwrap()).is_err());
    }
}
