//! Checked parameters of the encrypted layer.
//!
//! [`Params`] come from a constructor that refuses what is insecure or does not compute; the named sets in [`sets`]
//! are what everything else uses.

pub mod security;
pub mod sets;

use crate::arith::Modulus;
use crate::error::ParamsError;
use crate::kernels::pointwise::Gadget;

/// Bits of a body word on the wire.
pub const BODY_BITS: u32 = 40;
/// Bits of a reply word.
pub const REPLY_BITS: u32 = 32;
/// Bits of a mask word.
pub const MASK_WORD_BITS: u32 = 32;

/// The largest noise: `2^6` still fits a signed byte.
const MAX_NOISE_BOUND: u32 = 6;

/// Ring, noise, gadget and batch size of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    n: usize,
    q: u64,
    tau: usize,
    noise_bound: u32,
    levels: usize,
    base_log: u32,
    drop: u32,
    id: String,
}

impl Params {
    /// The set `n = 2048`, `q = 2^50 - 2^14 + 1`, TUniform(5), two signed digits of 15 bits, for `tau` tokens per batch.
    ///
    /// # Errors
    /// [`ParamsError::OutOfRange`] unless `tau` is a power of two in `8..=1024`.
    pub fn n2048_q50(tau: usize) -> Result<Self, ParamsError> {
        Self::checked(sets::N, sets::Q, tau, sets::NOISE_BOUND, &format!("n2048-q50-t5-tau{tau}"))
    }

    /// Any ring and noise: refused when below [`security::REQUIRED_BITS`] or impossible.
    ///
    /// # Errors
    /// [`ParamsError`], naming what is wrong.
    pub fn checked(n: usize, q: u64, tau: usize, noise_bound: u32, id: &str) -> Result<Self, ParamsError> {
        let estimated_bits = security::estimated_bits(n, q, noise_bound);
        if estimated_bits < security::REQUIRED_BITS {
            return Err(ParamsError::Insecure { estimated_bits, required_bits: security::REQUIRED_BITS });
        }
        Self::possible(n, q, tau, noise_bound, id)
    }

    /// A ring of 64 coefficients that protects nothing: for tests against the reference vectors.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn insecure_toy_n64(tau: usize) -> Result<Self, ParamsError> {
        Self::possible(64, sets::Q, tau, sets::NOISE_BOUND, &format!("INSECURE-TOY-n64-tau{tau}"))
    }

    fn possible(n: usize, q: u64, tau: usize, noise_bound: u32, id: &str) -> Result<Self, ParamsError> {
        let range = |name, expected, got| Err(ParamsError::OutOfRange { name, expected, got });
        if !n.is_power_of_two() || !(16..=1 << 15).contains(&n) {
            return range("n", "a power of two in 16..=32768", n as u64);
        }
        if Modulus::new(q).is_err() || q <= 1 << 49 || q % (2 * n as u64) != 1 {
            return range("q", "in (2^49, 2^50), 1 modulo 2n", q);
        }
        if !tau.is_power_of_two() || tau < 8 || tau > n / 2 {
            return range("tau", "a power of two in 8..=n/2", tau as u64);
        }
        if !(1..=MAX_NOISE_BOUND).contains(&noise_bound) {
            return range("noise bound", "in 1..=6", u64::from(noise_bound));
        }
        let (levels, base_log, drop) = (sets::LEVELS, sets::BASE_LOG, sets::DROP);
        Ok(Self { n, q, tau, noise_bound, levels, base_log, drop, id: id.to_owned() })
    }

    /// Ring degree `N`.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Modulus `q`.
    pub fn q(&self) -> u64 {
        self.q
    }
    /// Tokens per batch.
    pub fn tau(&self) -> usize {
        self.tau
    }
    /// Rows per mask ciphertext: `N / tau`.
    pub fn phi(&self) -> usize {
        self.n / self.tau
    }
    /// Features per public polynomial: `phi`, so that the client's pads cost `d_in / phi` products per batch.
    pub fn features_per_poly(&self) -> usize {
        self.phi()
    }
    /// Gadget digits.
    pub fn levels(&self) -> usize {
        self.levels
    }
    /// Bits per gadget digit.
    pub fn base_log(&self) -> u32 {
        self.base_log
    }
    /// Low bits rounded away before the digits.
    pub fn drop(&self) -> u32 {
        self.drop
    }
    /// `b` of TUniform(b): noise is uniform on `[-2^b, 2^b]`, the ends at half weight.
    pub fn noise_bound(&self) -> u32 {
        self.noise_bound
    }
    /// Variance of one noise sample: `(2^(2b+1) + 1) / 6`.
    pub fn noise_variance(&self) -> f64 {
        (2f64.powi(2 * self.noise_bound as i32 + 1) + 1.0) / 6.0
    }
    /// Classical security in bits, see [`security`].
    pub fn security_bits(&self) -> u32 {
        security::estimated_bits(self.n, self.q, self.noise_bound)
    }
    /// Name that goes into digests and wire forms.
    pub fn id(&self) -> &str {
        &self.id
    }
    pub(crate) fn gadget(&self) -> Gadget {
        Gadget::new(self.levels, self.base_log, self.drop)
    }
}
