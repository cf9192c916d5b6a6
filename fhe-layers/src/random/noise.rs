//! Secret randomness: keys, noise and re-randomisation, from AES-128 in counter mode seeded by the operating system.
//!
//! The stream is that of tfhe's own generator, and so is every value made of it. It is drawn in blocks instead of byte by
//! byte, which took a tenth of the time of a served token, and its key schedule is wiped, which tfhe's is not.

use crate::error::{Error, Result};
use crate::params::Params;
use crate::secret::SecretWords;
use aes::Aes128;
use ctr::Ctr128LE;
use ctr::cipher::{Iv, Key, KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Bytes of the stream that are turned into words at once.
const CHUNK: usize = 512;

/// A generator of secrets and noise.
///
/// It belongs to the process that made it: a fork would draw the same noise a second time, so slots refuse it there.
pub struct NoiseRng {
    stream: Ctr128LE<Aes128>,
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
        Ok(Self::from_key(&seed))
    }

    /// A deterministic generator: for tests, and for replaying a job whose seed is kept secret. Two messages encrypted with
    /// generators of one seed carry the same noise.
    pub fn from_seed(seed: u128) -> Self {
        Self::from_key(&Zeroizing::new(seed.to_le_bytes()))
    }

    /// The stream of an AES key, from block 0 on.
    fn from_key(key: &[u8; 16]) -> Self {
        let key: &Key<Ctr128LE<Aes128>> = key.into();
        Self { stream: Ctr128LE::new(key, &Iv::<Ctr128LE<Aes128>>::default()), process: std::process::id() }
    }

    pub(crate) fn belongs_to(&self, process: u32) -> bool {
        self.process == process
    }

    /// TUniform noise modulo `q`, in `[0, q)`: what [`NoiseRng::fill_small_noise`] draws, reduced.
    pub fn fill_noise(&mut self, params: &Params, out: &mut [u64]) {
        let (q, small) = (params.q(), small_noise(params));
        self.fill_words::<1>(out, |byte, _| {
            let wide = i64::from(small(byte));
            (wide as u64).wrapping_add(q & (wide >> 63) as u64)
        });
    }

    /// TUniform noise as signed bytes, one byte of the stream each.
    pub fn fill_small_noise(&mut self, params: &Params, out: &mut [i8]) {
        self.fill_bytes(bytemuck::cast_slice_mut(out));
        let small = small_noise(params);
        for value in out {
            *value = small(*value as u8);
        }
    }

    /// Uniform bits, as words 0 or 1: eight of each byte of the stream, lowest first.
    pub fn fill_bits(&mut self, out: &mut [u64]) {
        self.fill_words::<8>(out, |byte, index| u64::from(byte >> index & 1));
    }

    /// Uniform bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.stream.write_keystream(out);
    }

    /// A fresh binary secret, `[n]`: one byte of the stream for each bit.
    pub(crate) fn secret(&mut self, n: usize) -> SecretWords {
        let mut secret = SecretWords::zeroed(n);
        self.fill_words::<1>(&mut secret, |byte, _| u64::from(byte & 1));
        secret
    }

    /// Words from bytes of the stream: `word(byte, i)` is the `i`-th of the `WORDS` words of a byte.
    fn fill_words<const WORDS: usize>(&mut self, out: &mut [u64], word: impl Fn(u8, usize) -> u64) {
        let mut bytes = Zeroizing::new([0u8; CHUNK]);
        for out in out.chunks_mut(CHUNK * WORDS) {
            let bytes = &mut bytes[..out.len().div_ceil(WORDS)];
            self.fill_bytes(bytes);
            for (words, &byte) in out.chunks_mut(WORDS).zip(&*bytes) {
                for (index, out) in words.iter_mut().enumerate() {
                    *out = word(byte, index);
                }
            }
        }
    }
}

/// TUniform(b) of a byte's low `b + 2` bits, as tfhe makes it: half of them, rounded up, less `2^b`. Both ends of
/// `[-2^b, 2^b]` are half as likely as the rest.
fn small_noise(params: &Params) -> impl Fn(u8) -> i8 + use<> {
    let bound = params.noise_bound();
    assert!(bound <= 6, "noise bound 2^{bound}: a byte has bits for 2^6");
    let (mask, offset) = (u8::MAX >> (6 - bound), 1u8 << bound);
    move |byte| {
        let drawn = byte & mask;
        ((drawn >> 1) + (drawn & 1)).wrapping_sub(offset) as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::sets::n2048_q50_tau;
    use tfhe::core_crypto::commons::math::random::{RandomGenerator, Seed, TUniform};
    use tfhe::core_crypto::prelude::{
        CiphertextModulus, DefaultRandomGenerator, GlweDimension, GlweSecretKey, PolynomialSize,
        SecretRandomGenerator,
    };

    /// Neither a block of AES nor a chunk of bits ends there.
    const LEN: usize = 9 * CHUNK + 7;

    #[test]
    fn every_draw_is_that_of_the_generator_of_tfhe() {
        let params = n2048_q50_tau(64).unwrap();
        for seed in [0, 1, 3 << 100, u128::MAX] {
            let mut ours = NoiseRng::from_seed(seed);
            let mut theirs = RandomGenerator::<DefaultRandomGenerator>::new(Seed(seed));

            let (mut bytes, mut expected) = (vec![0u8; LEN], vec![0u8; LEN]);
            ours.fill_bytes(&mut bytes);
            theirs.fill_slice_with_random_uniform(&mut expected);
            assert!(bytes == expected, "bytes, seed {seed}");

            let (mut noise, mut expected) = (vec![0; LEN], vec![0; LEN]);
            ours.fill_noise(&params, &mut noise);
            let modulus = CiphertextModulus::new(u128::from(params.q()));
            let distribution = TUniform::new(params.noise_bound());
            theirs.fill_slice_with_random_from_distribution_custom_mod(&mut expected, distribution, modulus);
            assert!(noise == expected, "noise mod q, seed {seed}");

            let (mut noise, mut expected) = (vec![0i8; LEN], vec![0u8; LEN]);
            ours.fill_small_noise(&params, &mut noise);
            let distribution = TUniform::<u8>::new(params.noise_bound());
            theirs.fill_slice_with_random_from_distribution(&mut expected, distribution);
            assert!(bytemuck::cast_slice::<i8, u8>(&noise) == expected, "noise, seed {seed}");

            let (mut bits, mut expected) = (vec![0u64; LEN], vec![0u64; LEN]);
            ours.fill_bits(&mut bits);
            theirs.fill_slice_with_random_uniform_binary_bits(&mut expected);
            assert!(bits == expected, "bits, seed {seed}");

            let mut theirs = SecretRandomGenerator::from_raw_parts(theirs);
            let (dimension, size) = (GlweDimension(1), PolynomialSize(2048));
            let key = GlweSecretKey::<Vec<u64>>::generate_new_binary(dimension, size, &mut theirs);
            assert!(*ours.secret(2048) == *key.as_ref(), "secret, seed {seed}");
        }
    }

    #[test]
    fn noise_is_centred_and_as_wide_as_stated() {
        let params = n2048_q50_tau(64).unwrap();
        let mut noise = vec![0; 1 << 16];
        NoiseRng::from_seed(3).fill_small_noise(&params, &mut noise);
        let moment =
            |power| noise.iter().map(|&e| f64::from(e).powi(power)).sum::<f64>() / noise.len() as f64;
        assert!(noise.iter().all(|&e| (-32..=32).contains(&e)));
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
