//! Variances of the noise in a decoded result, on the scale of the modulus: a result `W X` is below `q/2` in magnitude, and
//! the client divides by its input scale afterwards.
//!
//! Source: the protocol's design, sections *Noise* of the split-phase layer and *Parameter sets* of the lean wire; confirmed by
//! measurement in `noise/measure.rs`. The secret's weight `|s|_1` is taken at its mean `N/2`.

use crate::form::{WORD_BITS, WireForm};
use crate::params::Params;

/// Share of the range `q/2` that the client's scale leaves free for noise and rounding.
const MARGIN: f64 = 0.03125;

/// What the client's scale keeps `max_j |w_j x|` below: `(q/2)(1 - 2^-5)`.
pub fn reach(params: &Params) -> f64 {
    params.q() as f64 / 2.0 * (1.0 - MARGIN)
}

/// What is left of `q/2` beyond [`reach`].
pub fn margin(params: &Params) -> f64 {
    params.q() as f64 / 2.0 * MARGIN
}

/// Variances by source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// The packing chain: `V (phi - 1)`.
    pub key_switch: f64,
    /// Hiding the final mask.
    pub rerandomisation: f64,
    /// Rounding the mask to words.
    pub mask: f64,
    /// Rounding `b'` and the client's corrections.
    pub words: f64,
    /// Noise and rounding of the body, through the row.
    pub body: f64,
    /// Rounding the reply.
    pub reply: f64,
}

impl Parts {
    /// Their sum.
    pub fn total(&self) -> f64 {
        self.key_switch + self.rerandomisation + self.mask + self.words + self.body + self.reply
    }
}

/// Variance of rounding from `q` to `bits` bits: `(q / 2^bits)^2 / 12`.
pub fn rounding(params: &Params, bits: u32) -> f64 {
    (params.q() as f64 / 2f64.powi(bits as i32)).powi(2) / 12.0
}

/// One key switch: `V = N sigma^2 sum_i w_i^2/12 + 2^(2 drop)/12 N/4`, `w_i = 2^base` except that the top digit has
/// `2^(50 - drop - base (levels - 1))` values.
///
/// The second term is what the gadget rounds away, times the secret. The mean of the secret, 1/2, is folded away at
/// preparation; its variance, 1/4 per coefficient, is left.
pub fn key_switch(params: &Params) -> f64 {
    let (n, levels, base) = (params.n() as f64, params.levels() as i32, params.base_log() as i32);
    let top = 50 - params.drop() as i32 - base * (levels - 1);
    let lower = f64::from(levels - 1) * 2f64.powi(2 * base);
    let digits = (lower + 2f64.powi(2 * top)) / 12.0;
    n * params.noise_variance() * digits + 2f64.powi(2 * params.drop() as i32) / 12.0 * n / 4.0
}

/// All sources for a row of norm `row_norm`.
///
/// ```text
/// key_switch      = V (phi - 1)
/// rerandomisation = sigma^2 N                  (+ sigma^2 in the full form, where b' has noise of its own)
/// mask            = (q/2^S)^2 (N/2)/12         (S = 32 in the full form)
/// words           = (q/2^K)^2/12 + (q/2^32)^2/12    (K: 24 bits kept, 22 sent ahead, 32 in the full form)
/// body            = |w|^2 (sigma^2 + (q/2^B)^2/12)
/// reply           = (q/2^R)^2/12
/// ```
pub fn parts(params: &Params, form: WireForm, row_norm: f64) -> Parts {
    let (n, sigma2) = (params.n() as f64, params.noise_variance());
    let mask_bits = form.widths().map_or(WORD_BITS, |widths| widths.shared());
    let own_noise = if form == WireForm::Full { sigma2 } else { 0.0 };
    Parts {
        key_switch: key_switch(params) * (params.phi() as f64 - 1.0),
        rerandomisation: sigma2 * n + own_noise,
        mask: rounding(params, mask_bits) * n / 2.0,
        words: rounding(params, form.mask_body_bits()) + rounding(params, WORD_BITS),
        body: row_norm * row_norm * (sigma2 + rounding(params, form.body_bits())),
        reply: rounding(params, form.reply_bits()),
    }
}

/// Total variance in the full form for a row of norm `row_norm`.
pub fn total_variance(params: &Params, row_norm: f64) -> f64 {
    parts(params, WireForm::Full, row_norm).total()
}

/// `nu = log2(rms noise / (max|w_j| |X|))`: the number that predicts what a model loses, for rows of the largest norm and a
/// client that scales by the norm alone.
pub fn nu(params: &Params, form: WireForm, row_norm: f64) -> f64 {
    (parts(params, form, row_norm).total().sqrt() / reach(params)).log2()
}

/// Root mean square of `W x` on the same scale, for rows of the largest norm and a client that scales by the norm alone:
/// `q / (2.07 sqrt(d_in))`.
pub fn signal(params: &Params, d_in: usize) -> f64 {
    params.q() as f64 / (2.07 * (d_in as f64).sqrt())
}

/// Signal-to-noise ratio in bits: `log2(signal / rms noise)`, rows of int8 weights with `rms_weight` per entry.
pub fn snr_bits(params: &Params, form: WireForm, d_in: usize, rms_weight: f64) -> f64 {
    let row_norm = rms_weight * (d_in as f64).sqrt();
    (signal(params, d_in) / parts(params, form, row_norm).total().sqrt()).log2()
}
