//! Secret randomness: keys, noise and re-randomisation, from tfhe's CSPRNG seeded by the operating system.

use crate::error::{Error, Result};
use crate::params::Params;
use crate::secret::SecretWords;
use tfhe::core_crypto::commons::math::random::{RandomGenerator, Seed, TUniform};
use tfhe::core_crypto::prelude::{
    CiphertextModulus, DefaultRandomGenerator, GlweDimension, GlweSecretKey, PolynomialSize,
    SecretRandomGenerator,
};
use zeroize::{Zeroize, Zeroizing};

/// A generator of secrets and noise.
///
/// It belongs to the process that made it: a fork would draw the same noise a second time, so slots refuse it there.
/// tfhe's generator keeps its AES key schedule in memory that is not wiped; what it has produced is.
pub struct NoiseRng {
    generator: RandomGenerator<DefaultRandomGenerator>,
    process: u32,
}

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

    /// A deterministic generator: for tests, and for replaying a job whose seed is kept secret. Two messages encrypted with
    /// generators of one seed carry the same noise.
    pub fn from_seed(seed: u128) -> Self {
        Self { generator: RandomGenerator::new(Seed(seed)), process: std::process::id() }
    }

    pub(crate) fn belongs_to(&self, process: u32) -> bool {
        self.process == process
    }

    /// TUniform noise modulo `q`, in `[0, q)`.
    pub fn fill_noise(&mut self, params: &Params, out: &mut [u64]) {
        let modulus = CiphertextModulus::new(u128::from(params.q()));
        let noise = TUniform::new(params.noise_bound());
        self.generator.fill_slice_with_random_from_distribution_custom_mod(out, noise, modulus);
    }

    /// TUniform noise as signed bytes: what [`NoiseRng::fill_noise`] draws, before reduction.
    pub fn fill_small_noise(&mut self, params: &Params, out: &mut [i8]) {
        let noise = TUniform::<u8>::new(params.noise_bound());
        self.generator
            .fill_slice_with_random_from_distribution(bytemuck::cast_slice_mut::<i8, u8>(out), noise);
    }

    /// Uniform bits, as words 0 or 1.
    pub fn fill_bits(&mut self, out: &mut [u64]) {
        self.generator.fill_slice_with_random_uniform_binary_bits(out);
    }

    /// Uniform bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.generator.fill_slice_with_random_uniform(out);
    }

    /// A fresh binary secret of tfhe's type, moved at once into a container that is wiped.
    pub(crate) fn secret(&mut self, n: usize) -> SecretWords {
        let taken = std::mem::replace(&mut self.generator, RandomGenerator::new(Seed(0)));
        let mut generator = SecretRandomGenerator::from_raw_parts(taken);
        let mut key = GlweSecretKey::generate_new_binary(GlweDimension(1), PolynomialSize(n), &mut generator);
        self.generator = generator.into_raw_parts();
        let secret = SecretWords::copied(key.as_ref());
        key.as_mut().zeroize();
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::sets::n2048_q50_tau;

    #[test]
    fn both_forms_draw_the_same_centred_noise() {
        let params = n2048_q50_tau(64).unwrap();
        let (mut wide, mut small) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        NoiseRng::from_seed(3).fill_noise(&params, &mut wide);
        NoiseRng::from_seed(3).fill_small_noise(&params, &mut small);
        for (&wide, &small) in wide.iter().zip(&small) {
            assert_eq!(wide as i64, i64::from(small).rem_euclid(params.q() as i64));
        }
        let moment =
            |power| small.iter().map(|&e| f64::from(e).powi(power)).sum::<f64>() / small.len() as f64;
        assert!(small.iter().all(|&e| (-32..=32).contains(&e)));
        // Deviation of the estimates: 18.5 / 2^8 and about 341 / 2^8.
        assert!(moment(1).abs() < 0.4, "{}", moment(1));
        assert!((moment(2) - params.noise_variance()).abs() < 7.0, "{}", moment(2));
    }

    #[test]
    fn secrets_are_balanced_bits_and_differ() {
        let mut rng = NoiseRng::from_os().unwrap();
        let (first, second) = (rng.secret(2048), rng.secret(2048));
        let ones = first.iter().sum::<u64>();
        assert!(first.iter().all(|&bit| bit < 2) && (800..1248).contains(&ones), "{ones} ones");
        assert!(*first != *second);
    }
}
