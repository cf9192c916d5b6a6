//! Fixed point: activations to integers and back.

use crate::params::Params;

/// The largest scale such that `phi max_row_norm |x| scale <= (q/2)(1 - 2^-5)`: by Cauchy-Schwarz no output can
/// overflow, whatever the weights. A zero or non-finite input gets scale 1.
pub(crate) fn input_scale(params: &Params, max_row_norm: f64, x: &[f32]) -> f64 {
    let norm =
        x.iter().map(|&v| if v.is_finite() { f64::from(v) * f64::from(v) } else { 0.0 }).sum::<f64>().sqrt();
    let reach = params.q() as f64 / 2.0 * (1.0 - 2f64.powi(-5)) / params.phi() as f64;
    let scale = reach / (max_row_norm.max(1.0) * norm);
    if norm > 0.0 && scale.is_finite() { scale } else { 1.0 }
}

/// `round(x scale)`; what is not finite becomes 0, so that the traffic does not depend on it.
#[inline(always)]
pub(crate) fn fixed_point(x: f32, scale: f64) -> i64 {
    if x.is_finite() { (f64::from(x) * scale).round_ties_even() as i64 } else { 0 }
}
