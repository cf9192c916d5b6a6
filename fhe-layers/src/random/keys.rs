//! Randomness of a batch's keys: tfhe's secret key, noise and generator.

use super::noise::seed_from_os;
use crate::error::Result;
use crate::params::Params;
use crate::secret::SecretWords;
use tfhe::core_crypto::commons::math::random::{RandomGenerator, Seed, TUniform};
use tfhe::core_crypto::prelude::{
    CiphertextModulus, DefaultRandomGenerator, GlweDimension, GlweSecretKey, PolynomialSize,
    SecretRandomGenerator,
};
use zeroize::Zeroize;

/// A generator for the keys of one batch.
///
/// tfhe's generator keeps its AES key schedule in memory that is not wiped; what it has produced is.
pub(crate) struct KeyRng(RandomGenerator<DefaultRandomGenerator>);

impl KeyRng {
    /// Seeded with 128 bits of the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`](crate::Error::Entropy) when it gives none.
    pub(crate) fn from_os() -> Result<Self> {
        Ok(Self(RandomGenerator::new(Seed(u128::from_le_bytes(*seed_from_os()?)))))
    }

    /// A deterministic generator.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub(crate) fn from_seed(seed: u128) -> Self {
        Self(RandomGenerator::new(Seed(seed)))
    }

    /// A fresh binary secret of tfhe's type, `[n]`, moved at once into a container that is wiped.
    pub(crate) fn secret(&mut self, n: usize) -> SecretWords {
        let taken = std::mem::replace(&mut self.0, RandomGenerator::new(Seed(0)));
        let mut generator = SecretRandomGenerator::from_raw_parts(taken);
        let mut key = GlweSecretKey::generate_new_binary(GlweDimension(1), PolynomialSize(n), &mut generator);
        self.0 = generator.into_raw_parts();
        let secret = SecretWords::copied(key.as_ref());
        key.as_mut().zeroize();
        secret
    }

    /// TUniform noise modulo `q`, in `[0, q)`.
    pub(crate) fn fill_noise(&mut self, params: &Params, out: &mut [u64]) {
        let modulus = CiphertextModulus::new(u128::from(params.q()));
        let noise = TUniform::new(params.noise_bound());
        self.0.fill_slice_with_random_from_distribution_custom_mod(out, noise, modulus);
    }

    /// Uniform bytes.
    pub(crate) fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_slice_with_random_uniform(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_balanced_bits_and_differ() {
        let mut rng = KeyRng::from_os().unwrap();
        let (first, second) = (rng.secret(2048), rng.secret(2048));
        let ones = first.iter().sum::<u64>();
        assert!(first.iter().all(|&bit| bit < 2) && (800..1248).contains(&ones), "{ones} ones");
        assert!(*first != *second);
    }
}
