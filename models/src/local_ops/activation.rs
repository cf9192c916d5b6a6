//! The nonlinear function of feed-forward layers, with what precedes it: the bias, and in the fused plan the norm's
//! factor.

use super::isa::{Isa, compiled_for_each_isa, exp};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// A nonlinear function, applied to each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x Phi(x)`, exact up to 2e-7 `|x|` (BERT's `gelu`).
    Gelu,
    /// Its approximation by a hyperbolic tangent (GPT-2's `gelu_new`).
    GeluTanh,
}

impl Activation {
    /// The function of a name in `config.json`.
    ///
    /// # Errors
    /// If it is none of those here.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            other => {
                let reason = format!("{other:?} is not supported, supported are silu, gelu and gelu_new");
                Err(Error::config("hidden_act", reason))
            }
        }
    }
}

/// `activation(factor * x + bias)`.
///
/// `x`: `[tokens, width]` f32; `factors`: one per token, or 1 where there are none; `bias`: `[width]`, or 0. Returns
/// `[tokens, width]`.
///
/// # Errors
/// If the shapes disagree.
pub fn activate(
    activation: Activation,
    x: &Tensor,
    factors: Option<&[f32]>,
    bias: Option<&[f32]>,
) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let zeros;
    let bias = match bias {
        Some(bias) => bias,
        None => {
            zeros = vec![0.0; width];
            &zeros
        }
    };
    let ones;
    let factors = match factors {
        Some(factors) => factors,
        None => {
            ones = vec![1.0; tokens];
            &ones
        }
    };
    if bias.len() != width || factors.len() != tokens {
        return Err(Error::TensorShape {
            name: "input of an activation".to_owned(),
            expected: vec![factors.len(), bias.len()],
            got: vec![tokens, width],
        });
    }
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    let isa = Isa::active()?;
    for (row, &factor) in values.chunks_exact_mut(width).zip(factors) {
        match activation {
            Activation::Silu => silu_row(isa, row, factor, bias),
            Activation::Gelu => gelu_row(isa, row, factor, bias),
            Activation::GeluTanh => gelu_tanh_row(isa, row, factor, bias),
        }
    }
    Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
}

/// `activation(gate) * up`, elementwise.
///
/// `gate`, `up`: f32 of one shape, which is returned.
///
/// # Errors
/// If the shapes differ.
pub fn gate(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        return Err(Error::TensorShape {
            name: "up projection".into(),
            expected: gate.dims().to_vec(),
            got: up.dims().to_vec(),
        });
    }
    let mut values = gate.flatten_all()?.to_vec1::<f32>()?;
    let up = up.flatten_all()?.to_vec1::<f32>()?;
    let isa = Isa::active()?;
    match activation {
        Activation::Silu => silu_gate(isa, &mut values, &up),
        Activation::Gelu => gelu_gate(isa, &mut values, &up),
        Activation::GeluTanh => gelu_tanh_gate(isa, &mut values, &up),
    }
    Ok(Tensor::from_vec(values, gate.shape(), &Device::Cpu)?)
}

/// Defines the two loops of one function.
macro_rules! loops_of {
    ($function:ident, $row:ident = $row_body:ident, $gate:ident = $gate_body:ident) => {
        compiled_for_each_isa! {
            fn $row(row: &mut [f32], factor: f32, bias: &[f32]) = $row_body;
        }
        compiled_for_each_isa! {
            fn $gate(gate: &mut [f32], up: &[f32]) = $gate_body;
        }
        #[inline(always)]
        fn $row_body(row: &mut [f32], factor: f32, bias: &[f32]) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value = $function(*value * factor + bias);
            }
        }
        #[inline(always)]
        fn $gate_body(gate: &mut [f32], up: &[f32]) {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = $function(*gate) * up;
            }
        }
    };
}

loops_of!(silu, silu_row = silu_row_body, silu_gate = silu_gate_body);
loops_of!(gelu, gelu_row = gelu_row_body, gelu_gate = gelu_gate_body);
loops_of!(gelu_tanh, gelu_tanh_row = gelu_tanh_row_body, gelu_tanh_gate = gelu_tanh_gate_body);

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // 0.5 (1 + tanh u) = 1 / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
    let doubled = 1.595_769 * x * (1.0 + 0.044_715 * x * x);
    x / (1.0 + exp(-doubled))
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

    fn expected(kind: Activation, x: &Tensor) -> Tensor {
        match kind {
            Activation::Silu => candle_nn::ops::silu(x).unwrap(),
            Activation::Gelu => x.gelu_erf().unwrap(),
            Activation::GeluTanh => x.gelu().unwrap(),
        }
    }

    const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    #[test]
    fn all_are_candles() {
        let x = Tensor::randn(0f32, 3.0, (5, 70), &Device::Cpu).unwrap();
        let up = Tensor::randn(0f32, 1.0, (5, 70), &Device::Cpu).unwrap();
        let factors = Tensor::rand(0.1f32, 2.0, (5, 1), &Device::Cpu).unwrap();
        let bias = Tensor::randn(0f32, 1.0, 70, &Device::Cpu).unwrap();
        let input = x.broadcast_mul(&factors).unwrap().broadcast_add(&bias).unwrap();
        let vector = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for kind in ALL {
            let got = activate(kind, &x, Some(&vector(&factors)), Some(&vector(&bias))).unwrap();
            let worst =
                |difference: Tensor| difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst((got - expected(kind, &input)).unwrap()) < 1e-5, "{kind:?}");
            let got = gate(kind, &x, &up).unwrap();
            assert!(worst((got - (expected(kind, &x) * &up).unwrap()).unwrap()) < 4e-5, "{kind:?}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_far_from_and_near_zero() {
        let inputs: Vec<f32> =
            [0.0, -0.0, 1e-9, -30.0, 30.0, -200.0, 200.0].into_iter().cycle().take(35).collect();
        let bias = vec![0.0; inputs.len()];
        for isa in Isa::all() {
            for row in [silu_row, gelu_row, gelu_tanh_row] {
                let mut values = inputs.clone();
                row(isa, &mut values, 1.0, &bias);
                for (x, y) in inputs.iter().zip(&values) {
                    assert!((y - x.max(0.0)).abs() < 1e-6, "{isa:?}: {x} {y}");
                }
            }
        }
    }
}
