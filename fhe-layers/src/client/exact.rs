//! Exact integers: results are bit-exact when they fit.

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::noise::bounds;

/// `delta` in standard deviations of the total noise, at least. Decoding fails when noise reaches `delta / 2`, seven
/// deviations: below `2^-34` per value by the Gaussian bound. At tau 64 the next power of two leaves 13: `2^-120`
/// (`noise::failure::log2_exact`).
const DELTA_SIGMAS: f64 = 14.0;

/// The factor of exact mode for one round, and what fits under it.
#[derive(Clone, Copy, Debug)]
pub struct ExactMode {
    delta: u64,
    limit: u64,
}

impl ExactMode {
    /// For a round whose rows have at most norm `max_row_norm` and whose results stay below `max_result` in magnitude.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for an unknown round, [`Error::ExactOverflow`] unless `max_result < q / (2 phi delta)`.
    pub fn new(instance: &Instance, round: usize, max_row_norm: f64, max_result: u64) -> Result<Self> {
        instance.layout().round(round)?;
        let params = instance.params();
        let sigma = bounds::total_variance(params, max_row_norm).sqrt();
        let delta = ((DELTA_SIGMAS * sigma).log2().ceil().exp2() as u64).max(1);
        // Below q / (2 phi delta): the least integer that is not.
        let limit = params.q().div_ceil(2 * params.phi() as u64 * delta);
        if max_result >= limit {
            return Err(Error::ExactOverflow { got: max_result, limit });
        }
        Ok(Self { delta, limit })
    }

    /// The factor.
    pub fn delta(&self) -> u64 {
        self.delta
    }

    /// Results must stay below this in magnitude.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}
