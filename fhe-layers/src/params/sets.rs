//! The named parameter sets and where each constant comes from.

use super::Params;
use crate::error::ParamsError;

/// Ring degree. The smallest power of two with 128-bit security at a 50-bit modulus.
pub const N: usize = 2048;

/// `2^50 - 2^14 + 1`: prime, `1 mod 4096`, just under `2^50`, so that the 52-bit transform of `tfhe-ntt` applies, seven
/// bytes hold a residue, and modulus switching is a shift up to `2^-36`.
pub const Q: u64 = 1_125_899_906_826_241;

/// TUniform(5): uniform on `[-32, 32]`, standard deviation 18.5. 140 bits classical, 132 quantum (lattice-estimator
/// 27a581b, dual hybrid, unlimited samples). A deviation of 3.2 would give 133 / 126.
pub const NOISE_BOUND: u32 = 5;

/// Gadget levels. One level leaves 11 to 13 bits of precision only.
pub const LEVELS: usize = 2;
/// Bits per digit: `DROP + LEVELS * BASE_LOG = 50`, aligned to the top.
pub const BASE_LOG: u32 = 15;
/// Low bits rounded away; their error is below the key's noise times the digits.
pub const DROP: u32 = 20;

/// The set for `tau` tokens per batch.
///
/// # Errors
/// [`ParamsError::OutOfRange`] unless `tau` is a power of two in `8..=1024`.
pub fn n2048_q50_tau(tau: usize) -> Result<Params, ParamsError> {
    Params::n2048_q50(tau)
}
