//! Norms, alone and folded into the linear layer after them.
//!
//! A layer norm followed by a linear layer is `W (G (h - mean h) / s + beta) + b` with `s = std(h)`, which equals
//! `(V h) / s + c` where `V = W G - rowmean(W G)` (the row mean takes the centring in) and `c = W beta + b`: linear in
//! `h` up to one scalar that the client knows. A root-mean-square norm is the same without centring and `beta`.

use super::isa::{Isa, compiled_for_each_isa, dot};
use crate::formats::WeightSource;
use crate::{Error, Result};
use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// `sqrt(mean(x^2) + eps)`.
    Rms,
    /// `sqrt(var(x) + eps)`, after subtracting the mean.
    Layer,
}

/// `gain * x / sqrt(mean(x^2) + eps)` or `gain * (x - mean) / sqrt(var + eps) + bias`, over each row.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: NormKind,
    gain: Vec<f32>,
    bias: Option<Vec<f32>>,
    eps: f32,
    isa: Isa,
}

impl Norm {
    /// A norm with this gain, `[width]` f32, and no bias.
    ///
    /// # Errors
    /// If `gain` is not a vector of f32.
    pub fn new(kind: NormKind, gain: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { kind, gain: gain.to_vec1()?, bias: None, eps: eps as f32, isa: Isa::active()? })
    }

    /// Reads `{name}.weight` and, if there is one, `{name}.bias`, `[width]`.
    ///
    /// # Errors
    /// If one is missing or misshapen.
    pub fn load(
        source: &dyn WeightSource,
        name: &str,
        width: usize,
        kind: NormKind,
        eps: f64,
        has_bias: bool,
    ) -> Result<Self> {
        let vector = |part: &str| source.get_shaped(&format!("{name}.{part}"), &[width]);
        let bias = if has_bias { Some(vector("bias")?.to_vec1()?) } else { None };
        Ok(Self { bias, ..Self::new(kind, &vector("weight")?, eps)? })
    }

    /// A norm without gain and bias.
    ///
    /// # Errors
    /// If `SOTTO_ISA` names instructions that this machine lacks.
    pub fn bare(kind: NormKind, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { kind, gain: vec![1.0; width], bias: None, eps: eps as f32, isa: Isa::active()? })
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
        match self.kind {
            NormKind::Rms => rms_rows(self.isa, values, &self.gain, self.eps),
            NormKind::Layer => {
                for row in values.chunks_exact_mut(self.gain.len()) {
                    let (mean, inverse) = moments(row, self.eps);
                    for (value, gain) in row.iter_mut().zip(&self.gain) {
                        *value = (*value - mean) * inverse * gain;
                    }
                }
            }
        }
        if let Some(bias) = &self.bias {
            for row in values.chunks_exact_mut(bias.len()) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        }
    }
}

impl NormKind {
    /// What the norm multiplies each row of `x`, `[tokens, width]` f32, by; one number per token.
    ///
    /// # Errors
    /// If `x` is not such a matrix.
    pub fn factors(self, x: &Tensor, eps: f64) -> Result<Vec<f32>> {
        let (tokens, width) = x.dims2()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        match self {
            Self::Rms => {
                let mut factors = vec![0.0; tokens];
                inverse_rows(Isa::active()?, &values, width, eps as f32, &mut factors);
                Ok(factors)
            }
            Self::Layer => Ok(values.chunks_exact(width).map(|row| moments(row, eps as f32).1).collect()),
        }
    }

    /// `V`, the linear layer with the norm's gain and centring in it: `weight` `[rows, width]`, `gain` `[width]`, f32.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn fold_weight(self, weight: &Tensor, gain: &Tensor) -> Result<Tensor> {
        let gained = weight.broadcast_mul(gain)?;
        match self {
            Self::Rms => Ok(gained),
            Self::Layer => Ok(gained.broadcast_sub(&gained.mean_keepdim(D::Minus1)?)?),
        }
    }
}

/// `W beta`, what a norm's bias adds after the linear layer: `weight` `[rows, width]`, `beta` `[width]`, f32.
///
/// # Errors
/// If the shapes disagree.
pub fn fold_bias(weight: &Tensor, beta: &Tensor) -> Result<Tensor> {
    Ok(weight.matmul(&beta.unsqueeze(1)?)?.squeeze(1)?)
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
    fn rms_rows(values: &mut [f32], gain: &[f32], eps: f32) = rms_rows_body;
}

compiled_for_each_isa! {
    fn inverse_rows(values: &[f32], width: usize, eps: f32, inverses: &mut [f32]) = inverse_rows_body;
}

#[inline(always)]
fn rms_rows_body(values: &mut [f32], gain: &[f32], eps: f32) {
    for row in values.chunks_exact_mut(gain.len()) {
        let inverse = inverse_of(row, eps);
        for (value, gain) in row.iter_mut().zip(gain) {
            *value *= inverse * gain;
        }
    }
}

#[inline(always)]
fn inverse_rows_body(values: &[f32], width: usize, eps: f32, inverses: &mut [f32]) {
    for (row, inverse) in values.chunks_exact(width).zip(inverses) {
        *inverse = inverse_of(row, eps);
    }
}

#[inline(always)]
fn inverse_of(row: &[f32], eps: f32) -> f32 {
    (dot(row, row) / row.len() as f32 + eps).sqrt().recip()
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
    use crate::formats::MemorySource;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0.3f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_rms_norm_is_candles() {
        let (x, gain) = (random(&[5, 100]), random(&[100]));
        let expected = candle_nn::ops::rms_norm(&x, &gain, 1e-5).unwrap();
        let norm = Norm::new(NormKind::Rms, &gain, 1e-5).unwrap();
        assert!(worst(&norm.apply(&x).unwrap(), &expected) < 1e-5);
        assert!(norm.apply(&x.narrow(1, 0, 99).unwrap().contiguous().unwrap()).is_err());
    }

    #[test]
    fn folded_norm_and_linear_equal_both_in_turn() {
        let (x, weight) = (random(&[5, 16]), random(&[7, 16]));
        let (gain, beta) = (random(&[16]), random(&[16]));
        let source = MemorySource::new([("n.weight".into(), gain.clone()), ("n.bias".into(), beta.clone())]);
        for (kind, has_bias) in [(NormKind::Layer, true), (NormKind::Layer, false), (NormKind::Rms, false)] {
            let norm = Norm::load(&source, "n", 16, kind, 1e-5, has_bias).unwrap();
            let expected = norm.apply(&x).unwrap().matmul(&weight.t().unwrap()).unwrap();
            let folded = x.matmul(&kind.fold_weight(&weight, &gain).unwrap().t().unwrap()).unwrap();
            let folded = scale_rows(&folded, &kind.factors(&x, 1e-5).unwrap()).unwrap();
            let folded = match has_bias {
                true => folded.broadcast_add(&fold_bias(&weight, &beta).unwrap()).unwrap(),
                false => folded,
            };
            assert!(worst(&expected, &folded) < 1e-4, "{kind:?}");
        }
    }
}
