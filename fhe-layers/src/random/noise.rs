//! Noise of bodies and re-randomisation of masks: AES-128 in counter mode seeded by the operating system.
//!
//! The stream is that of tfhe's generator, and so is every value made of it, bit for bit. It is drawn in blocks, where tfhe's
//! goes byte by byte, which took 15 % of the time of a token; and its key schedule is wiped. See ADR 0008.

use crate::error::{Error, Result};
use crate::params::Params;
use aes::Aes128;
use ctr::Ctr128LE;
use ctr::cipher::{Iv, Key, KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Bytes of the stream that are turned into bits at once.
const CHUNK: usize = 256;

/// The cipher and what is left of its last block.
pub(crate) type Stream = Ctr128LE<Aes128>;

/// A generator of noise.
///
/// It belongs to the process that made it: a fork would draw the same noise a second time, so slots refuse it there.
pub struct NoiseRng {
    stream: Stream,
    process: u32,
}

impl NoiseRng {
    /// Seeded with 128 bits of the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`] when it gives none.
    pub fn from_os() -> Result<Self> {
        Ok(Self::from_key(&*seed_from_os()?))
    }

    /// A deterministic generator: for tests, and for replaying a job whose seed is kept secret. Two messages encrypted with
    /// generators of one seed carry the same noise.
    pub fn from_seed(seed: u128) -> Self {
        Self::from_key(&Zeroizing::new(seed.to_le_bytes()))
    }

    /// The stream of an AES key, from block 0 on.
    fn from_key(key: &[u8; 16]) -> Self {
        let key: &Key<Stream> = key.into();
        Self { stream: Stream::new(key, &Iv::<Stream>::default()), process: std::process::id() }
    }

    pub(crate) fn belongs_to(&self, process: u32) -> bool {
        self.process == process
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
        let mut bytes = Zeroizing::new([0u8; CHUNK]);
        for out in out.chunks_mut(8 * CHUNK) {
            let bytes = &mut bytes[..out.len().div_ceil(8)];
            self.fill_bytes(bytes);
            for (bits, &byte) in out.chunks_mut(8).zip(&*bytes) {
                for (index, bit) in bits.iter_mut().enumerate() {
                    *bit = u64::from(byte >> index & 1);
                }
            }
        }
    }

    /// Uniform bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.stream.write_keystream(out);
    }
}

/// 128 bits of the operating system's entropy.
pub(super) fn seed_from_os() -> Result<Zeroizing<[u8; 16]>> {
    let mut seed = Zeroizing::new([0u8; 16]);
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, seed.as_mut()))
        .map_err(|error| Error::Entropy(error.to_string()))?;
    Ok(seed)
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
    use tfhe::core_crypto::prelude::DefaultRandomGenerator;

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

            let (mut noise, mut expected) = (vec![0i8; LEN], vec![0u8; LEN]);
            ours.fill_small_noise(&params, &mut noise);
            let distribution = TUniform::<u8>::new(params.noise_bound());
            theirs.fill_slice_with_random_from_distribution(&mut expected, distribution);
            assert!(bytemuck::cast_slice::<i8, u8>(&noise) == expected, "noise, seed {seed}");

            let (mut bits, mut expected) = (vec![0u64; LEN], vec![0u64; LEN]);
            ours.fill_bits(&mut bits);
            theirs.fill_slice_with_random_uniform_binary_bits(&mut expected);
            assert!(bits == expected, "bits, seed {seed}");
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
}
