//! The layer without ciphertexts, so that models can be evaluated fast: the client's fixed point and the server's
//! integer products, with no noise or with noise of the documented variance in place of keys, masks and pads.

use crate::client::scale::Fixed;
use crate::error::{Error, Result};
use crate::form::WireForm;
use crate::instance::Instance;
use crate::noise::bounds;
use crate::random::noise::NoiseRng;
use crate::server::ServerWeights;
use crate::server::body_half::products;
use std::f64::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a fixed-point integer and of a result: both are below `2^49` in magnitude.
const PLANES: usize = 7;

/// Bits that sign extension moves a 56-bit result by.
const SIGN_SHIFT: u32 = u64::BITS - 8 * PLANES as u32;

/// What is added to the exact result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulateMode {
    /// Nothing: `W X` with `X` in the client's fixed point.
    Exact,
    /// Gaussian noise of the variance that [`bounds::parts`] gives for the wire form, row by row, at the client's scale.
    Noisy,
}

/// A client and a server in one, in the clear. It protects nothing.
pub struct Simulated {
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    mode: SimulateMode,
    /// Deviation of the noise of every row, `[rounds][rows]`.
    deviations: Vec<Vec<f64>>,
    /// Random bytes, not secret: what they become is shown to the user.
    noise: Mutex<blake3::OutputReader>,
}

impl Simulated {
    /// A simulator of `weights` on `instance`, with the noise of the full form.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn new(instance: Arc<Instance>, weights: Arc<ServerWeights>, mode: SimulateMode) -> Result<Self> {
        Self::with_form(instance, weights, mode, WireForm::Full)
    }

    /// A simulator of `weights` on `instance`, with the noise of `form`.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn with_form(
        instance: Arc<Instance>,
        weights: Arc<ServerWeights>,
        mode: SimulateMode,
        form: WireForm,
    ) -> Result<Self> {
        let mut seed = [0; 32];
        NoiseRng::from_os()?.fill_bytes(&mut seed);
        let noise = Mutex::new(blake3::Hasher::new_keyed(&seed).finalize_xof());
        let deviation = |row: &[i8]| {
            let squares: u64 = row.iter().map(|&w| u64::from(w.unsigned_abs()).pow(2)).sum();
            bounds::parts(instance.params(), form, (squares as f64).sqrt()).total().sqrt()
        };
        let rounds = weights.rounds().iter().map(|round| {
            let rows =
                round.matrices.iter().flat_map(|(_, matrix)| (0..matrix.rows()).map(|r| matrix.row(r)));
            rows.map(deviation).collect()
        });
        let deviations = rounds.collect();
        Ok(Self { instance, weights, mode, deviations, noise })
    }

    /// `W x` for one token, rows of the round's matrices one after the other, before row scales. NaN throughout when a
    /// value is not finite, as the client decodes it.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an unknown round, [`Error::Mismatch`] for a wrong length.
    pub fn round(&mut self, round: usize, x: &[f32], max_row_norm: f64, out: &mut [f32]) -> Result<()> {
        let spec = self.instance.layout().round(round)?;
        Error::check("activations", spec.d_in, x.len())?;
        Error::check("outputs", spec.rows(), out.len())?;
        let fixed = Fixed::new(self.instance.params(), max_row_norm, x);
        let words: Vec<u64> = x.iter().map(|&value| fixed.encode(value) as u64).collect();
        let factor = if fixed.is_finite() { 1.0 / fixed.scale() } else { f64::NAN };
        let noise = self.noise_of(round);
        let mut rows = out.iter_mut().zip(&noise);
        products(&self.weights, round, &[&words], PLANES, |sums| {
            for (&sum, (out, noise)) in sums.iter().zip(&mut rows) {
                let exact = (sum << SIGN_SHIFT) >> SIGN_SHIFT;
                *out = ((exact as f64 + noise) * factor) as f32;
            }
        })
    }

    /// Noise of every row of `round`, on the scale of the modulus.
    fn noise_of(&self, round: usize) -> Vec<f64> {
        let deviations = &self.deviations[round];
        let mut out = vec![0.0; deviations.len()];
        if self.mode == SimulateMode::Exact {
            return out;
        }
        let mut bytes = vec![0; 16 * out.len().div_ceil(2)];
        self.noise.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        let pairs = out.chunks_mut(2).zip(deviations.chunks(2)).zip(bytes.chunks_exact(16));
        for ((out, deviations), bytes) in pairs {
            for ((out, deviation), normal) in out.iter_mut().zip(deviations).zip(normals(bytes)) {
                *out = deviation * normal;
            }
        }
        out
    }
}

/// Two normal deviates from sixteen random bytes (Box and Muller).
fn normals(bytes: &[u8]) -> [f64; 2] {
    let unit = |bytes: &[u8]| {
        let word = bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        ((word >> 11) as f64 + 0.5) / 2f64.powi(53)
    };
    let radius = (-2.0 * unit(&bytes[..8]).ln()).sqrt();
    let (sin, cos) = (TAU * unit(&bytes[8..])).sin_cos();
    [radius * cos, radius * sin]
}
