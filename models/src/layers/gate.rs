//! The gate of a feed-forward layer.

use super::simd::{Isa, compiled_for_each_isa, exp};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// `silu(gate) * up`, elementwise, with `silu(x) = x / (1 + e^-x)`.
///
/// `gate`, `up`: f32 of one shape, which is returned.
///
/// # Errors
/// If the shapes differ.
pub fn silu_gate(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        return Err(Error::TensorShape {
            name: "up projection".into(),
            expected: gate.dims().to_vec(),
            got: up.dims().to_vec(),
        });
    }
    let mut values = gate.flatten_all()?.to_vec1::<f32>()?;
    let up = up.flatten_all()?.to_vec1::<f32>()?;
    gate_values(Isa::best(), &mut values, &up);
    Ok(Tensor::from_vec(values, gate.shape(), &Device::Cpu)?)
}

compiled_for_each_isa! {
    fn gate_values(gate: &mut [f32], up: &[f32]) = gate_values_body;
}

#[inline(always)]
fn gate_values_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate *= up / (1.0 + exp(-*gate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_candles() {
        let gate = Tensor::randn(0f32, 10.0, (3, 50), &Device::Cpu).unwrap();
        let up = Tensor::randn(0f32, 1.0, (3, 50), &Device::Cpu).unwrap();
        let expected = (candle_nn::ops::silu(&gate).unwrap() * &up).unwrap().to_vec2::<f32>().unwrap();
        let got = silu_gate(&gate, &up).unwrap().to_vec2::<f32>().unwrap();
        for (e, g) in expected.iter().flatten().zip(got.iter().flatten()) {
            assert!((e - g).abs() < 1e-5 * e.abs().max(1.0), "{g}, not {e}");
        }
    }
}
