//! The layer without ciphertexts: `W x` with no noise, or with noise of the documented variance, so that models can be
//! evaluated fast. Agrees with the real path within its bound; see `tests/simulate_matches.rs`.

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::noise::bounds;
use crate::random::noise::NoiseRng;
use crate::server::ServerWeights;
use rayon::prelude::*;
use std::sync::Arc;

/// What is added to the exact result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulateMode {
    /// Nothing.
    Exact,
    /// Gaussian noise of variance [`bounds::total_variance`] at the client's scale.
    Noisy,
}

/// A client and a server in one, in the clear.
pub struct Simulated {
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    mode: SimulateMode,
    rng: NoiseRng,
}

impl Simulated {
    /// A simulator of `weights` on `instance`.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn new(instance: Arc<Instance>, weights: Arc<ServerWeights>, mode: SimulateMode) -> Result<Self> {
        Ok(Self { instance, weights, mode, rng: NoiseRng::from_os()? })
    }

    /// `W x` for one token, rows of the round's matrices one after the other, before row scales.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for an unknown round or a wrong length.
    pub fn round(&mut self, round: usize, x: &[f32], max_row_norm: f64, out: &mut [f32]) -> Result<()> {
        let spec = self.instance.layout().round(round)?;
        Error::check("activations", spec.d_in, x.len())?;
        Error::check("outputs", spec.rows(), out.len())?;
        let mut rest = &mut *out;
        for (columns, matrix) in &self.weights.rounds()[round].matrices {
            let (rows, after) = rest.split_at_mut(matrix.rows());
            let x = &x[columns.clone()];
            rows.par_iter_mut().enumerate().with_min_len(64).for_each(|(row, out)| {
                let products = matrix.row(row).iter().zip(x).map(|(&w, &v)| f64::from(w) * f64::from(v));
                *out = products.sum::<f64>() as f32;
            });
            rest = after;
        }
        if self.mode == SimulateMode::Noisy {
            self.add_noise(x, max_row_norm, out);
        }
        Ok(())
    }

    fn add_noise(&mut self, x: &[f32], max_row_norm: f64, out: &mut [f32]) {
        let params = self.instance.params();
        let scale = crate::client::encrypt::Fixed::new(params, max_row_norm, x).scale();
        let sigma = bounds::total_variance(params, max_row_norm).sqrt() / scale;
        let mut bytes = vec![0u8; out.len() * 16];
        self.rng.fill_bytes(&mut bytes);
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(16)) {
            let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes")) >> 11;
            let unit = |b: &[u8]| (word(b) as f64 + 0.5) / 2f64.powi(53);
            let radius = (-2.0 * unit(&bytes[..8]).ln()).sqrt();
            *out += (sigma * radius * (std::f64::consts::TAU * unit(&bytes[8..])).cos()) as f32;
        }
    }
}
