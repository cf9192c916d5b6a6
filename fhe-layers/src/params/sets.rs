//! The named parameter sets and where each constant comes from.

use super::Params;
use crate::error::ParamsError;
use std::fmt;
use std::str::FromStr;

/// Ring degree of every set: the smallest power of two with 128-bit security at a 50-bit modulus.
pub const N: usize = 2048;

/// Modulus of every set, `2^50 - 2^14 + 1`: prime, `1 mod 4096`, just below `2^50`, so that the 52-bit transform of
/// `tfhe-ntt` applies, seven bytes hold a residue, and modulus switching is a shift up to `2^-36`.
pub const Q: u64 = 1_125_899_906_826_241;

/// Noise of [`Set::Default`], TUniform(5): uniform on `[-32, 32]`, standard deviation 18.5. See [`super::security`].
pub const NOISE_BOUND: u32 = 5;

/// Gadget levels of [`Set::Default`].
pub const LEVELS: usize = 2;
/// Bits per digit of [`Set::Default`]: `DROP + LEVELS * BASE_LOG = 50`, aligned to the top.
pub const BASE_LOG: u32 = 15;
/// Low bits that [`Set::Default`] rounds away; their error is below the key's noise times the digits.
pub const DROP: u32 = 20;

/// What a set fixes besides the ring: noise and gadget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gear {
    /// `b` of TUniform(b).
    pub(crate) noise_bound: u32,
    /// Gadget digits.
    pub(crate) levels: usize,
    /// Bits per digit.
    pub(crate) base_log: u32,
    /// Low bits rounded away; `drop + levels * base_log = 50`.
    pub(crate) drop: u32,
}

/// A named parameter set. `tau` is chosen next to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Set {
    /// `n2048-q50-t5`: TUniform(5), two gadget levels. The most precise set.
    #[default]
    Default,
    /// `n2048-q50-t4-l1`: TUniform(4), one gadget level of 23 bits. Half the tables, half the mask half, and 5 to 7 bits
    /// less precision in the key switch: for servers that are short of memory or cores, and for big models.
    Light,
}

impl Set {
    /// Every set.
    pub const ALL: [Set; 2] = [Set::Default, Set::Light];

    /// The parameters of this set for `tau` tokens per batch.
    ///
    /// # Errors
    /// [`ParamsError::OutOfRange`] unless `tau` is a power of two in `8..=1024`.
    pub fn params(self, tau: usize) -> Result<Params, ParamsError> {
        Params::of_set(N, self, tau)
    }

    /// The set that parameters with the identifier `id` belong to, with `tau` as in [`Set::params`].
    pub fn of_id(id: &str, tau: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|set| id == format!("{}-tau{tau}", set.prefix()))
    }

    /// The identifier without `tau`.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Set::Default => "n2048-q50-t5",
            Set::Light => "n2048-q50-t4-l1",
        }
    }

    /// Noise and gadget. One level of 23 bits rounds 27 bits away: with `2^23` the key's noise times the digits and the
    /// rounding are of one size, which is the best that one level can do (`lean_params.py` of the reference searches).
    pub(crate) fn gear(self) -> Gear {
        match self {
            Set::Default => Gear { noise_bound: NOISE_BOUND, levels: LEVELS, base_log: BASE_LOG, drop: DROP },
            Set::Light => Gear { noise_bound: 4, levels: 1, base_log: 23, drop: 27 },
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Set::Default => "default",
            Set::Light => "light",
        })
    }
}

impl FromStr for Set {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let set = Self::ALL.into_iter().find(|set| set.to_string() == text);
        set.ok_or_else(|| format!("parameter set: expected default or light, got {text}"))
    }
}

/// [`Set::Default`] for `tau` tokens per batch.
///
/// # Errors
/// [`ParamsError::OutOfRange`] unless `tau` is a power of two in `8..=1024`.
pub fn n2048_q50_tau(tau: usize) -> Result<Params, ParamsError> {
    Set::Default.params(tau)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_by_name_and_by_id() {
        for set in Set::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
            let params = set.params(64).unwrap();
            assert_eq!((Set::of_id(params.id(), 64), Set::of_id(params.id(), 8)), (Some(set), None));
            let bits = params.drop() as usize + params.levels() * params.base_log() as usize;
            assert_eq!(bits, 50, "{set}");
        }
        assert!("heavy".parse::<Set>().is_err());
    }
}
