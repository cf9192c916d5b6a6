//! Exact integers: results are bit-exact when they fit.

use crate::error::{Error, Result};
use crate::form::WireForm;
use crate::instance::Instance;
use crate::noise::bounds;

/// Standard deviations of the Gaussian part of the noise that half of `delta` covers, next to the reply's rounding, which is
/// bounded: below `2^-34` per value by the Gaussian bound (`noise::failure::log2_exact`).
const SIGMAS: f64 = 7.0;

/// The factor of exact mode for one round, and what fits under it.
#[derive(Clone, Copy, Debug)]
pub struct ExactMode {
    delta: u64,
    limit: u64,
}

impl ExactMode {
    /// As [`ExactMode::for_form`] in the full form.
    ///
    /// # Errors
    /// As [`ExactMode::for_form`].
    pub fn new(instance: &Instance, round: usize, max_row_norm: f64, max_result: u64) -> Result<Self> {
        Self::for_form(instance, WireForm::Full, round, max_row_norm, max_result)
    }

    /// For a round whose rows have norms up to `max_row_norm` and whose results stay below or at `max_result` in magnitude.
    ///
    /// `delta` is the least power of two whose half covers the reply's rounding, `q / 2^(R+1)`, and seven deviations of
    /// everything else. At `d_in` 576 it is `2^31` in the full form and at 32/22/30, so that results below `2^18` fit, and
    /// `2^33` at 30/20/28: `2^16`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an unknown round, [`Error::NotANorm`], [`Error::ExactOverflow`] unless
    /// `max_result < q / (2 delta)`.
    pub fn for_form(
        instance: &Instance,
        form: WireForm,
        round: usize,
        max_row_norm: f64,
        max_result: u64,
    ) -> Result<Self> {
        instance.layout().round(round)?;
        if !(max_row_norm.is_finite() && max_row_norm >= 0.0) {
            return Err(Error::NotANorm);
        }
        let params = instance.params();
        let parts = bounds::parts(params, form, max_row_norm);
        let reply = params.q() as f64 / 2f64.powi(form.reply_bits() as i32 + 1);
        let needed = 2.0 * (reply + SIGMAS * (parts.total() - parts.reply).sqrt());
        let delta = (needed.log2().ceil().exp2() as u64).max(1);
        // Below q / (2 delta): the least integer that is not.
        let limit = params.q().div_ceil(2 * delta);
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
