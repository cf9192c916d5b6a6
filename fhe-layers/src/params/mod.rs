//! Checked parameters of the encrypted layer.
//!
//! [`Params`] come from a constructor that refuses what is insecure or does not compute; the named sets in [`sets`]
//! are what everything else uses.

pub mod security;
pub mod sets;

use crate::arith::Modulus;
use crate::error::ParamsError;
use crate::kernels::pointwise::Gadget;
use sets::Gear;
pub use sets::Set;

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
    /// [`Set::Default`] for `tau` tokens per batch.
    ///
    /// # Errors
    /// [`ParamsError::OutOfRange`] unless `tau` is a power of two in `8..=1024`.
    pub fn n2048_q50(tau: usize) -> Result<Self, ParamsError> {
        Set::Default.params(tau)
    }

    /// Any ring and noise, with the gadget of [`Set::Default`].
    ///
    /// # Errors
    /// [`ParamsError::Insecure`] below [`security::REQUIRED_BITS`], [`ParamsError::OutOfRange`] for a value that the code
    /// does not admit.
    pub fn checked(n: usize, q: u64, tau: usize, noise_bound: u32, id: &str) -> Result<Self, ParamsError> {
        require_security(n, q, noise_bound)?;
        Self::possible(n, q, tau, Gear { noise_bound, ..Set::Default.gear() }, id)
    }

    pub(crate) fn of_set(n: usize, set: Set, tau: usize) -> Result<Self, ParamsError> {
        let gear = set.gear();
        require_security(n, sets::Q, gear.noise_bound)?;
        Self::possible(n, sets::Q, tau, gear, &format!("{}-tau{tau}", set.prefix()))
    }

    /// A ring of 64 coefficients that protects nothing: for tests against the reference vectors.
    ///
    /// # Errors
    /// [`ParamsError::OutOfRange`] unless `tau` is 8, 16 or 32.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn insecure_toy_n64(tau: usize) -> Result<Self, ParamsError> {
        Self::insecure_toy_n64_set(tau, Set::Default)
    }

    /// As [`Params::insecure_toy_n64`] with noise and gadget of `set`.
    ///
    /// # Errors
    /// As [`Params::insecure_toy_n64`].
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn insecure_toy_n64_set(tau: usize, set: Set) -> Result<Self, ParamsError> {
        let name = match set {
            Set::Default => "",
            Set::Light => "-light",
        };
        Self::possible(64, sets::Q, tau, set.gear(), &format!("INSECURE-TOY-n64{name}-tau{tau}"))
    }

    fn possible(n: usize, q: u64, tau: usize, gear: Gear, id: &str) -> Result<Self, ParamsError> {
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
        if !(1..=MAX_NOISE_BOUND).contains(&gear.noise_bound) {
            return range("noise bound", "in 1..=6", u64::from(gear.noise_bound));
        }
        let Gear { noise_bound, levels, base_log, drop } = gear;
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
    /// Name that goes into digests and wire formats.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Quantum security in bits, see [`security`].
    pub fn quantum_security_bits(&self) -> u32 {
        security::quantum_bits(self.n, self.q, self.noise_bound)
    }
    pub(crate) fn gadget(&self) -> Gadget {
        Gadget::new(self.levels, self.base_log, self.drop)
    }
}

fn require_security(n: usize, q: u64, noise_bound: u32) -> Result<(), ParamsError> {
    let estimated_bits = security::estimated_bits(n, q, noise_bound);
    if estimated_bits < security::REQUIRED_BITS {
        return Err(ParamsError::Insecure { estimated_bits, required_bits: security::REQUIRED_BITS });
    }
    Ok(())
}
