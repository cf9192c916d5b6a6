//! Secret randomness: keys, noise and re-randomisation, from tfhe's CSPRNG seeded by the operating system.

use crate::error::{Error, Result};
use crate::params::Params;
use tfhe::core_crypto::commons::math::random::{RandomGenerator, Seed, TUniform};
use tfhe::core_crypto::prelude::{
    CiphertextModulus, DefaultRandomGenerator, GlweDimension, GlweSecretKey, PolynomialSize,
    SecretRandomGenerator,
};
use zeroize::{Zeroize, Zeroizing};

/// A generator of secrets and noise.
pub struct NoiseRng(RandomGenerator<DefaultRandomGenerator>);

impl NoiseRng {
    /// Seeded with 128 bits of the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`] when it gives none.
    pub fn from_os() -> Result<Self> {
        let mut seed = Zeroizing::new([0u8; 16]);
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, seed.as_mut()))
            .map_err(|error| Error::Entropy(error.to_string()))?;
        Ok(Self::from_seed(u128::from_le_bytes(*seed)))
    }

    /// A deterministic generator: for tests, and for replaying a job whose seed is kept secret.
    pub fn from_seed(seed: u128) -> Self {
        Self(RandomGenerator::new(Seed(seed)))
    }

    /// TUniform noise modulo `q`, in `[0, q)`.
    pub fn fill_noise(&mut self, params: &Params, out: &mut [u64]) {
        let modulus = CiphertextModulus::new(u128::from(params.q()));
        let noise = TUniform::new(params.noise_bound());
        self.0.fill_slice_with_random_from_distribution_custom_mod(out, noise, modulus);
    }

    /// Uniform bits, as words 0 or 1.
    pub fn fill_bits(&mut self, out: &mut [u64]) {
        self.0.fill_slice_with_random_uniform_binary_bits(out);
    }

    /// Uniform bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_slice_with_random_uniform(out);
    }

    /// A fresh binary secret of tfhe's type, moved at once into a container that is wiped.
    pub(crate) fn secret(&mut self, n: usize) -> Zeroizing<Vec<u64>> {
        let taken = std::mem::replace(&mut self.0, RandomGenerator::new(Seed(0)));
        let mut generator = SecretRandomGenerator::from_raw_parts(taken);
        let mut key = GlweSecretKey::generate_new_binary(GlweDimension(1), PolynomialSize(n), &mut generator);
        self.0 = generator.into_raw_parts();
        let secret = Zeroizing::new(key.as_ref().to_vec());
        key.as_mut().zeroize();
        secret
    }
}
