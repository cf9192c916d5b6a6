//! How likely a result is wrong rather than inexact.

use super::bounds;
use crate::form::WireForm;
use crate::params::Params;

/// `log2 P[|noise| > margin]` for Gaussian noise of deviation `sigma`, by the bound
/// `P <= 2 exp(-margin^2 / (2 sigma^2))`.
pub fn log2_tail(margin: f64, sigma: f64) -> f64 {
    1.0 - margin * margin / (2.0 * sigma * sigma) * std::f64::consts::LOG2_E
}

/// Fixed point: that noise carries a result over `q/2`. The scale leaves `2^-5` of the range free.
pub fn log2_wrap(params: &Params, form: WireForm, max_row_norm: f64) -> f64 {
    log2_tail(bounds::margin(params), bounds::parts(params, form, max_row_norm).total().sqrt())
}

/// Exact mode: that noise reaches half of `delta`. The reply's rounding is bounded and taken off first; the rest is Gaussian.
pub fn log2_exact(params: &Params, form: WireForm, max_row_norm: f64, delta: u64) -> f64 {
    let parts = bounds::parts(params, form, max_row_norm);
    let reply = params.q() as f64 / 2f64.powi(form.reply_bits() as i32 + 1);
    log2_tail(delta as f64 / 2.0 - reply, (parts.total() - parts.reply).sqrt())
}
