//! Layer norms, alone and folded into the linear layer behind them.
//!
//! `W (G (h - mean h) / s + beta) + b` with `s = std(h)` is `(V h) / s + c` where `V = W G - rowmean(W G)` (the row
//! mean takes the centring in) and `c = W beta + b`: linear in `h` up to one scalar that the client knows.

use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::{D, Device, Tensor};

/// `gain * (x - mean) / sqrt(var + eps) + bias`, over each row.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    gain: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// Reads `{name}.weight` and `{name}.bias`, `[width]`.
    ///
    /// # Errors
    /// If one is missing or misshapen.
    pub fn load(source: &dyn WeightSource, name: &str, width: usize, eps: f64) -> Result<Self> {
        let vector = |part: &str| -> Result<Vec<f32>> {
            Ok(source.get_shaped(&format!("{name}.{part}"), &[width])?.to_vec1()?)
        };
        Ok(Self { gain: vector("weight")?, bias: vector("bias")?, eps: eps as f32 })
    }

    /// Norms the rows of `x`, `[tokens, width]` f32; returns the same shape.
    ///
    /// # Errors
    /// If `x` is not such a matrix.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        if width != self.gain.len() {
            return Err(Error::TensorShape {
                name: "input of a layer norm".to_owned(),
                expected: vec![tokens, self.gain.len()],
                got: vec![tokens, width],
            });
        }
        let mut values = x.flatten_all()?.to_vec1::<f32>()?;
        for row in values.chunks_exact_mut(width) {
            let (mean, inverse) = moments(row, self.eps);
            for ((value, gain), bias) in row.iter_mut().zip(&self.gain).zip(&self.bias) {
                *value = (*value - mean) * inverse * gain + bias;
            }
        }
        Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
    }
}

/// `1 / sqrt(var + eps)` of every row of `x`, `[tokens, width]` f32; returns `[tokens, 1]`.
///
/// # Errors
/// If `x` is not a matrix.
pub fn inverse_std(x: &Tensor, eps: f64) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    let inverse: Vec<f32> = values.chunks_exact(width).map(|row| moments(row, eps as f32).1).collect();
    Ok(Tensor::from_vec(inverse, (tokens, 1), &Device::Cpu)?)
}

/// `W G - rowmean(W G)`: `weight` `[rows, width]`, `gain` `[width]`, f32.
///
/// # Errors
/// If the widths differ.
pub fn fold_weight(weight: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let gained = weight.broadcast_mul(gain)?;
    Ok(gained.broadcast_sub(&gained.mean_keepdim(D::Minus1)?)?)
}

/// `W beta + b`: `weight` `[rows, width]`, `beta` `[width]`, `bias` `[rows]`, f32.
///
/// # Errors
/// If the shapes disagree.
pub fn fold_bias(weight: &Tensor, beta: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok((weight.matmul(&beta.unsqueeze(1)?)?.squeeze(1)? + bias)?)
}

/// Mean and `1 / sqrt(var + eps)`, in two passes.
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = row.iter().sum::<f32>() / width;
    let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / width;
    (mean, (variance + eps).sqrt().recip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::MemorySource;

    #[test]
    fn folded_norm_and_linear_equal_both_in_turn() {
        let random = |shape: &[usize]| Tensor::randn(0.3f32, 1.0, shape, &Device::Cpu).unwrap();
        let (x, weight, bias) = (random(&[5, 16]), random(&[7, 16]), random(&[7]));
        let (gain, beta) = (random(&[16]), random(&[16]));
        let source = MemorySource::new([("n.weight".into(), gain.clone()), ("n.bias".into(), beta.clone())]);
        let norm = LayerNorm::load(&source, "n", 16, 1e-5).unwrap();
        let expected =
            norm.apply(&x).unwrap().matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        let folded = x
            .matmul(&fold_weight(&weight, &gain).unwrap().t().unwrap())
            .unwrap()
            .broadcast_mul(&inverse_std(&x, 1e-5).unwrap())
            .unwrap()
            .broadcast_add(&fold_bias(&weight, &beta, &bias).unwrap())
            .unwrap();
        let difference = (expected - folded).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>();
        assert!(difference.unwrap() < 1e-4);
    }
}
