//! Variances, on the scale of `u = W v` (before the division by the fixed-point scale).
//!
//! `phi` rows share a mask ciphertext; decoding divides its phase by `phi`, hence the `phi^2` below. The secret's
//! weight `|s|_1` is taken at its mean `N/2`. Source: the protocol's design, section *Noise*; confirmed by
//! measurement in `noise/measure.rs`.

use crate::params::{BODY_BITS, MASK_WORD_BITS, Params, REPLY_BITS};

fn secret_weight(params: &Params) -> f64 {
    params.n() as f64 / 2.0
}

/// One key switch: `N sigma^2 sum_i w_i^2/12 + 2^(2 drop)/12 |s|_1`, `w_i = 2^base` except that the top digit has
/// `2^(50 - drop - base (levels - 1))` values.
pub fn key_switch(params: &Params) -> f64 {
    let levels = params.levels() as i32;
    let base = params.base_log() as i32;
    let top = 50 - params.drop() as i32 - base * (levels - 1);
    let lower = f64::from(levels - 1) * 2f64.powi(2 * base);
    let digits = (lower + 2f64.powi(2 * top)) / 12.0;
    params.n() as f64 * params.noise_variance() * digits
        + 2f64.powi(2 * params.drop() as i32) / 12.0 * secret_weight(params)
}

/// The flattened chain: `V (phi - 1) / phi^2`.
pub fn packing(params: &Params) -> f64 {
    let phi = params.phi() as f64;
    key_switch(params) * (phi - 1.0) / (phi * phi)
}

/// Re-randomisation under the public key: `sigma^2 (N/2 + |s|_1 + 1) / phi^2`.
pub fn rerandomisation(params: &Params) -> f64 {
    let phi = params.phi() as f64;
    params.noise_variance() * (params.n() as f64 / 2.0 + secret_weight(params) + 1.0) / (phi * phi)
}

/// Switching masks to 32-bit words: `(q/2^32)^2 (1 + |s|_1) / 12 / phi^2`.
pub fn mask_switch(params: &Params) -> f64 {
    let phi = params.phi() as f64;
    (params.q() as f64 / 2f64.powi(MASK_WORD_BITS as i32)).powi(2) * (1.0 + secret_weight(params))
        / 12.0
        / (phi * phi)
}

/// Noise and rounding of the body, through a row of norm `row_norm`: `|w|^2 (sigma^2 + (q/2^40)^2 / 12)`.
pub fn body(params: &Params, row_norm: f64) -> f64 {
    let step = params.q() as f64 / 2f64.powi(BODY_BITS as i32);
    row_norm * row_norm * (params.noise_variance() + step * step / 12.0)
}

/// Rounding of the reply: `(q/2^32)^2 / 12`.
pub fn reply(params: &Params) -> f64 {
    (params.q() as f64 / 2f64.powi(REPLY_BITS as i32)).powi(2) / 12.0
}

/// All of the above for a row of norm `row_norm`.
pub fn total_variance(params: &Params, row_norm: f64) -> f64 {
    packing(params) + rerandomisation(params) + mask_switch(params) + body(params, row_norm) + reply(params)
}

/// Root mean square of `W x` on the same scale, for rows of the largest norm and the client's scale:
/// `q / (2.07 phi sqrt(d_in))`.
pub fn signal(params: &Params, d_in: usize) -> f64 {
    params.q() as f64 / (2.07 * params.phi() as f64 * (d_in as f64).sqrt())
}

/// Signal-to-noise ratio in bits: `log2(signal / rms noise)`, rows of int8 weights with `rms_weight` per entry.
pub fn snr_bits(params: &Params, d_in: usize, rms_weight: f64) -> f64 {
    let row_norm = rms_weight * (d_in as f64).sqrt();
    (signal(params, d_in) / total_variance(params, row_norm).sqrt()).log2()
}
