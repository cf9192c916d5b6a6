//! Rotary position embedding, in the half-split convention (pairs `i`, `i + head_dim/2`).
//!
//! Some files store the rows of q and k for interleaved pairs (`2i`, `2i + 1`); [`crate::families::names`] reorders them
//! on load, so that one convention serves all sources.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Frequencies of the rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are stretched for contexts longer than trained on.
    pub scaling: RopeScaling,
    /// Multiplies cosines and sines; 1 except where a scaling sharpens the attention, too.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub magnitude: f64,
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
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
    /// Frequencies of base `theta`, not stretched.
    pub fn plain(theta: f64) -> Self {
        Self { theta, scaling: RopeScaling::None, magnitude: 1.0 }
    }

    /// The `head_dim / 2` angular frequencies, radians per position.
    ///
    /// # Errors
    /// If `head_dim` is odd or a parameter is not positive and finite.
    pub fn frequencies(&self, head_dim: usize) -> Result<Vec<f64>> {
        let half = head_dim / 2;
        if half == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::out_of_range("rotated part of a head", "even and not 0", head_dim));
        }
        let positive = |field: &'static str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(value)
            } else {
                Err(Error::out_of_range(field, "a positive number", value))
            }
        };
        let theta = positive("rope theta", self.theta)?;
        positive("rope magnitude", self.magnitude)?;
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
    magnitude: f64,
    /// `[positions, head_dim/2]`.
    cos: Vec<f32>,
    /// `[positions, head_dim/2]`.
    sin: Vec<f32>,
}

impl Rope {
    /// Tables for heads of `head_dim`.
    ///
    /// # Errors
    /// As [`RopeConfig::frequencies`].
    pub fn new(config: &RopeConfig, head_dim: usize) -> Result<Self> {
        let frequencies = config.frequencies(head_dim)?;
        Ok(Self { frequencies, magnitude: config.magnitude, cos: Vec::new(), sin: Vec::new() })
    }

    /// Makes sure that positions below `end` have their cosines and sines.
    pub fn reserve(&mut self, end: usize) {
        let half = self.frequencies.len();
        let known = self.cos.len() / half;
        if known < end {
            for position in known..end.next_power_of_two().max(256) {
                for frequency in &self.frequencies {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    self.cos.push((cos * self.magnitude) as f32);
                    self.sin.push((sin * self.magnitude) as f32);
                }
            }
        }
    }

    /// Rotates the heads of tokens at positions `start ..` in place: of each head the first values, as many as the
    /// tables are for.
    ///
    /// `values`: `[tokens, heads, head_dim]`, with `heads * head_dim = width`.
    ///
    /// # Panics
    /// If a position was not reserved.
    pub(crate) fn rotate(&self, values: &mut [f32], width: usize, head_dim: usize, start: usize) {
        let half = self.frequencies.len();
        for (position, token) in values.chunks_exact_mut(width).enumerate() {
            let at = (start + position) * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            for head in token.chunks_exact_mut(head_dim) {
                let (first, second) = head[..2 * half].split_at_mut(half);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { scaling, ..RopeConfig::plain(10_000.0) }
    }

    #[test]
    fn the_rotation_is_candles() {
        let mut rope = Rope::new(&config(RopeScaling::None), 8).unwrap();
        rope.reserve(300);
        let x = Tensor::randn(0f32, 1.0, (1, 3, 2, 8), &Device::Cpu).unwrap();
        let table = |values: &[f32]| Tensor::from_slice(&values[290 * 4..293 * 4], (3, 4), &Device::Cpu);
        let (cos, sin) = (table(&rope.cos).unwrap(), table(&rope.sin).unwrap());
        let expected = candle_nn::rotary_emb::rope_thd(&x, &cos, &sin).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut got = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        rope.rotate(&mut got, 16, 8, 290);
        assert!(expected.iter().zip(&got).all(|(e, g)| (e - g).abs() < 1e-6));
    }

    #[test]
    fn only_the_first_values_of_a_head_are_rotated() {
        let mut rope = Rope::new(&config(RopeScaling::None), 4).unwrap();
        rope.reserve(3);
        let mut whole = vec![1.0, 2.0, 3.0, 4.0];
        let mut partial = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rope.rotate(&mut whole, 4, 4, 2);
        rope.rotate(&mut partial, 6, 6, 2);
        assert_eq!(partial[..4], whole);
        assert_eq!(partial[4..], [5.0, 6.0]);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        };
        let plain = RopeConfig::plain(500_000.0).frequencies(128).unwrap();
        let scaled = RopeConfig { scaling, ..RopeConfig::plain(500_000.0) }.frequencies(128).unwrap();
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[63] * 8.0 - plain[63]).abs() < 1e-12);
        let ratios: Vec<f64> = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect();
        assert!(ratios.is_sorted(), "{ratios:?}");
    }

    #[test]
    fn unusable_parameters_are_refused() {
        for (bad, head_dim) in [
            (config(RopeScaling::Linear { factor: 0.0 }), 8),
            (config(RopeScaling::Factors { divisors: vec![1.0; 3] }), 8),
            (RopeConfig::plain(f64::NAN), 8),
            (config(RopeScaling::None), 7),
        ] {
            assert!(bad.frequencies(head_dim).is_err());
        }
    }
}
