//! Rotary position embedding, in the half-split convention (pairs `i`, `i + head_dim/2`).
//!
//! GGUF stores Llama's q and k rows for interleaved pairs; [`crate::weights::names::llama`] undoes that on load, so
//! that one convention serves all sources.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Frequencies of the rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are stretched for contexts longer than trained on.
    pub scaling: RopeScaling,
}

/// Stretching of RoPE frequencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Context length of the training.
        original_context: usize,
    },
    /// A divisor per frequency, as GGUF stores it (`rope_freqs.weight`).
    Factors {
        /// `head_dim / 2` divisors.
        divisors: Vec<f64>,
    },
}

impl RopeConfig {
    /// The `head_dim / 2` angular frequencies, radians per position.
    ///
    /// # Errors
    /// If `head_dim` is odd or a parameter is not positive and finite.
    pub fn frequencies(&self, head_dim: usize) -> Result<Vec<f64>> {
        let half = head_dim / 2;
        if half == 0 || head_dim % 2 != 0 {
            return Err(Error::config("head_dim", format!("expected an even number, got {head_dim}")));
        }
        let positive = |field: &'static str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(value)
            } else {
                Err(Error::config(field, format!("expected a positive number, got {value}")))
            }
        };
        let theta = positive("rope theta", self.theta)?;
        let base = (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64));
        Ok(match &self.scaling {
            RopeScaling::None => base.collect(),
            RopeScaling::Linear { factor } => {
                let factor = positive("rope scaling factor", *factor)?;
                base.map(|frequency| frequency / factor).collect()
            }
            RopeScaling::Factors { divisors } => {
                if divisors.len() != half {
                    return Err(Error::config(
                        "rope divisors",
                        format!("expected {half}, got {}", divisors.len()),
                    ));
                }
                base.zip(divisors)
                    .map(|(frequency, divisor)| Ok(frequency / positive("rope divisor", *divisor)?))
                    .collect::<Result<_>>()?
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let factor = positive("rope scaling factor", *factor)?;
                let low = positive("rope low_freq_factor", *low_freq_factor)?;
                let span = positive("rope high_freq_factor - low_freq_factor", high_freq_factor - low)?;
                let context = positive("rope original context", *original_context as f64)?;
                base.map(|frequency| {
                    // How many turns fit in the trained context, on a ramp from `low` (0) to `high` (1).
                    let turns = context * frequency / std::f64::consts::TAU;
                    let ramp = ((turns - low) / span).clamp(0.0, 1.0);
                    frequency * (ramp + (1.0 - ramp) / factor)
                })
                .collect()
            }
        })
    }
}

/// Cosines and sines of the positions seen so far, grown on demand.
#[derive(Clone, Debug)]
pub struct Rope {
    frequencies: Vec<f64>,
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for heads of `head_dim`.
    ///
    /// # Errors
    /// As [`RopeConfig::frequencies`].
    pub fn new(config: &RopeConfig, head_dim: usize) -> Result<Self> {
        let frequencies = config.frequencies(head_dim)?;
        let empty = Tensor::zeros((0, head_dim / 2), candle_core::DType::F32, &Device::Cpu)?;
        Ok(Self { frequencies, cos: empty.clone(), sin: empty })
    }

    /// `(cos, sin)` of positions `start .. start + tokens`, each `[tokens, head_dim/2]` f32.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn at(&mut self, start: usize, tokens: usize) -> Result<(Tensor, Tensor)> {
        let needed = start + tokens;
        if self.cos.dim(0)? < needed {
            self.grow(needed.next_power_of_two().max(256))?;
        }
        Ok((self.cos.narrow(0, start, tokens)?, self.sin.narrow(0, start, tokens)?))
    }

    fn grow(&mut self, positions: usize) -> Result<()> {
        let half = self.frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for position in 0..positions {
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        self.cos = Tensor::from_vec(cos, (positions, half), &Device::Cpu)?;
        self.sin = Tensor::from_vec(sin, (positions, half), &Device::Cpu)?;
        Ok(())
    }
}
