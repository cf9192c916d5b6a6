//! Randomness of a batch's keys: the secret and the public seed straight from the operating system, noise from AES-256.

use super::noise::{NoiseRng, fill_from_os, spread_bits};
use crate::error::Result;
use crate::params::Params;
use crate::secret::SecretWords;
use zeroize::Zeroizing;

/// Draws the keys of one batch.
///
/// A secret has `n` independent bits of the operating system's generator, not `n` bits stretched from a shorter seed, and
/// the public seed is an independent draw: what is published of a batch says nothing about the generator of its secret. The
/// noise comes from a 256-bit key. So the strength of a batch is that of the lattice problem, or of AES-256 where that is less.
pub(crate) struct KeyRng {
    noise: NoiseRng,
    /// Draws in place of the operating system's.
    #[cfg(any(test, feature = "insecure-test-params"))]
    given: Option<NoiseRng>,
}

impl KeyRng {
    /// Fresh from the operating system.
    ///
    /// # Errors
    /// [`Error::Entropy`](crate::Error::Entropy) when it gives none.
    pub(crate) fn from_os() -> Result<Self> {
        Ok(Self {
            noise: NoiseRng::from_os()?,
            #[cfg(any(test, feature = "insecure-test-params"))]
            given: None,
        })
    }

    /// A deterministic generator.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub(crate) fn from_seed(seed: u128) -> Self {
        Self { noise: NoiseRng::from_seed(seed), given: Some(NoiseRng::from_seed(!seed)) }
    }

    fn draw(&mut self, out: &mut [u8]) -> Result<()> {
        #[cfg(any(test, feature = "insecure-test-params"))]
        if let Some(given) = &mut self.given {
            given.fill_bytes(out);
            return Ok(());
        }
        fill_from_os(out)
    }

    /// A fresh uniform binary secret, `[n]` words 0 or 1: 256 bytes of entropy at `n = 2048`.
    ///
    /// # Errors
    /// [`Error::Entropy`](crate::Error::Entropy).
    pub(crate) fn secret(&mut self, n: usize) -> Result<SecretWords> {
        let mut bytes = Zeroizing::new(vec![0u8; n.div_ceil(8)]);
        self.draw(&mut bytes)?;
        let mut secret = SecretWords::zeroed(n);
        spread_bits(&bytes, &mut secret);
        Ok(secret)
    }

    /// A public seed.
    ///
    /// # Errors
    /// [`Error::Entropy`](crate::Error::Entropy).
    pub(crate) fn public_seed(&mut self) -> Result<[u8; 32]> {
        let mut seed = [0; 32];
        self.draw(&mut seed)?;
        Ok(seed)
    }

    /// TUniform noise modulo `q`, in `[0, q)`.
    pub(crate) fn fill_noise(&mut self, params: &Params, out: &mut [u64]) {
        let mut noise = Zeroizing::new(vec![0i8; out.len()]);
        self.noise.fill_small_noise(params, &mut noise);
        for (out, &e) in out.iter_mut().zip(noise.iter()) {
            // Branchless: the residue of a signed byte.
            let wide = i64::from(e);
            *out = (wide as u64).wrapping_add(params.q() & (wide >> 63) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Set;

    #[test]
    fn secrets_are_balanced_bits_and_differ() {
        let mut rng = KeyRng::from_os().unwrap();
        let (first, second) = (rng.secret(2048).unwrap(), rng.secret(2048).unwrap());
        let ones = first.iter().sum::<u64>();
        assert!(first.iter().all(|&bit| bit < 2) && (800..1248).contains(&ones), "{ones} ones");
        assert!(*first != *second);
        assert!(rng.public_seed().unwrap() != rng.public_seed().unwrap());
    }

    #[test]
    fn noise_is_centred_and_as_wide_as_stated() {
        for set in Set::ALL {
            let params = set.params(64).unwrap();
            let mut words = vec![0; 1 << 16];
            KeyRng::from_seed(3).fill_noise(&params, &mut words);
            let bound = 1i64 << params.noise_bound();
            let signed = words
                .iter()
                .map(|&w| if w > params.q() / 2 { w as i64 - params.q() as i64 } else { w as i64 });
            let signed: Vec<i64> = signed.collect();
            assert!(signed.iter().all(|&e| (-bound..=bound).contains(&e)));
            let moment =
                |power| signed.iter().map(|&e| (e as f64).powi(power)).sum::<f64>() / signed.len() as f64;
            // Deviations of the estimates over 2^16 samples: no more than 18.5 / 2^8 and about 341 / 2^8.
            assert!(moment(1).abs() < 0.4, "{set}: {}", moment(1));
            assert!((moment(2) - params.noise_variance()).abs() < 7.0, "{set}: {}", moment(2));
        }
    }
}
