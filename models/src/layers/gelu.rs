//! The activation of BERT's and GPT-2's feed-forward layers, with what precedes it: the bias, and in the fused plan
//! the norm's factor.

use super::simd::{Isa, compiled_for_each_isa, exp};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Which of the two functions that go by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x Phi(x)`, exact up to 2e-7 `|x|` (BERT's `gelu`).
    Erf,
    /// Its approximation by a hyperbolic tangent (GPT-2's `gelu_new`).
    Tanh,
}

/// `gelu(factor * x + bias)`.
///
/// `x`: `[tokens, width]` f32; `factor`: one per token, `[tokens, 1]`, or 1 where there is none; `bias`: `[width]`.
/// Returns `[tokens, width]`.
///
/// # Errors
/// If the shapes disagree.
pub fn biased_gelu(kind: Gelu, x: &Tensor, factor: Option<&Tensor>, bias: &Tensor) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let bias = bias.to_vec1::<f32>()?;
    let factors = match factor {
        Some(factor) => factor.flatten_all()?.to_vec1::<f32>()?,
        None => vec![1.0; tokens],
    };
    if bias.len() != width || factors.len() != tokens {
        return Err(Error::TensorShape {
            name: "input of a GELU".to_owned(),
            expected: vec![factors.len(), bias.len()],
            got: vec![tokens, width],
        });
    }
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    let isa = Isa::best();
    for (row, factor) in values.chunks_exact_mut(width).zip(factors) {
        match kind {
            Gelu::Erf => erf_row(isa, row, factor, &bias),
            Gelu::Tanh => tanh_row(isa, row, factor, &bias),
        }
    }
    Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
}

compiled_for_each_isa! {
    fn erf_row(row: &mut [f32], factor: f32, bias: &[f32]) = erf_row_body;
}

compiled_for_each_isa! {
    fn tanh_row(row: &mut [f32], factor: f32, bias: &[f32]) = tanh_row_body;
}

#[inline(always)]
fn erf_row_body(row: &mut [f32], factor: f32, bias: &[f32]) {
    for (value, bias) in row.iter_mut().zip(bias) {
        let x = *value * factor + bias;
        *value = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

#[inline(always)]
fn tanh_row_body(row: &mut [f32], factor: f32, bias: &[f32]) {
    for (value, bias) in row.iter_mut().zip(bias) {
        let x = *value * factor + bias;
        // 0.5 (1 + tanh u) = 1 / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
        let doubled = 1.595_769 * x * (1.0 + 0.044_715 * x * x);
        *value = x / (1.0 + exp(-doubled));
    }
}

/// Abramowitz and Stegun 7.1.26: the absolute error is at most 1.5e-7, about that of f32 itself.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series =
        ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - series * exp(-size * size)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_candles() {
        let x = Tensor::randn(0f32, 3.0, (5, 70), &Device::Cpu).unwrap();
        let factor = Tensor::rand(0.1f32, 2.0, (5, 1), &Device::Cpu).unwrap();
        let bias = Tensor::randn(0f32, 1.0, 70, &Device::Cpu).unwrap();
        let input = x.broadcast_mul(&factor).unwrap().broadcast_add(&bias).unwrap();
        let expected = [(Gelu::Erf, input.gelu_erf().unwrap()), (Gelu::Tanh, input.gelu().unwrap())];
        for (kind, expected) in expected {
            let got = biased_gelu(kind, &x, Some(&factor), &bias).unwrap();
            let difference = (got - expected).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-5, "{kind:?}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_far_from_and_near_zero() {
        let inputs: Vec<f32> =
            [0.0, -0.0, 1e-9, -30.0, 30.0, -200.0, 200.0].into_iter().cycle().take(35).collect();
        let bias = vec![0.0; inputs.len()];
        for isa in Isa::all() {
            for row in [erf_row, tanh_row] {
                let mut values = inputs.clone();
                row(isa, &mut values, 1.0, &bias);
                for (x, y) in inputs.iter().zip(&values) {
                    assert!((y - x.max(0.0)).abs() < 1e-6, "{isa:?}: {x} {y}");
                }
            }
        }
    }
}
