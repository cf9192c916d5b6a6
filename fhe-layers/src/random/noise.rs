//! Noise of bodies and keys, and the server's session randomness: AES-256 in counter mode seeded by the operating system.
//!
//! Values are made from the stream as tfhe makes them (TUniform from one byte, bits lowest first). The stream is drawn in
//! blocks, where tfhe's goes byte by byte, which took 15 % of the time of a token; and its key schedule is wiped. See ADR
//! 0008 and ADR 0010.

use crate::error::{Error, Result};
use crate::guard::ForkGuard;
use crate::kernels::{Isa, pointwise};
use crate::params::Params;
use aes::Aes256;
use ctr::Ctr128LE;
use ctr::cipher::{Iv, Key, KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Bytes of the stream that are turned into bits at once.
const CHUNK: usize = 256;

/// The cipher and what is left of its last block.
pub(crate) type Stream = Ctr128LE<Aes256>;

/// A generator of noise.
///
/// It belongs to the process that made it: a fork would draw the same noise a second time, so slots refuse it there.
pub struct NoiseRng {
    stream: Stream,
    /// `None` for generators that replay a job: they encrypt nothing.
    guard: Option<ForkGuard>,
}

impl NoiseRng {
    /// Seeded with 256 bits of the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`] when it gives none.
    pub fn from_os() -> Result<Self> {
        let mut key = Zeroizing::new([0u8; 32]);
        fill_from_os(&mut *key)?;
        let guard = Some(ForkGuard::new()?);
        Ok(Self { guard, ..Self::from_key(&key) })
    }

    /// A deterministic generator: for tests. Two messages encrypted with generators of one seed carry the same noise.
    pub fn from_seed(seed: u128) -> Self {
        let mut key = Zeroizing::new([0u8; 32]);
        key[..16].copy_from_slice(&seed.to_le_bytes());
        Self { guard: ForkGuard::new().ok(), ..Self::from_key(&key) }
    }

    /// The stream of an AES-256 key, from block 0 on: for replaying a job whose key is kept secret.
    pub(crate) fn from_key(key: &[u8; 32]) -> Self {
        let key: &Key<Stream> = key.into();
        Self { stream: Stream::new(key, &Iv::<Stream>::default()), guard: None }
    }

    /// # Errors
    /// [`Error::Forked`] unless this process made the generator.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.guard.map_or(Ok(()), |guard| guard.check())
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
            spread_bits(bytes, out);
        }
    }

    /// As [`NoiseRng::fill_bits`] for a whole number of bytes, with a named instruction set.
    pub(crate) fn fill_bits_fast(&mut self, isa: Isa, out: &mut [u64]) {
        let mut bytes = Zeroizing::new([0u8; CHUNK]);
        for out in out.chunks_mut(8 * CHUNK) {
            let bytes = &mut bytes[..out.len() / 8];
            self.fill_bytes(bytes);
            pointwise::spread_bits(isa, bytes, out);
        }
    }

    /// Uniform bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.stream.write_keystream(out);
    }
}

/// The bits of `bytes` as words 0 or 1, lowest first.
pub(super) fn spread_bits(bytes: &[u8], out: &mut [u64]) {
    for (bits, &byte) in out.chunks_mut(8).zip(bytes) {
        for (index, bit) in bits.iter_mut().enumerate() {
            *bit = u64::from(byte >> index & 1);
        }
    }
}

/// Fills `out` with the operating system's entropy, by one call.
///
/// # Errors
/// [`Error::Entropy`] when it gives none.
pub(crate) fn fill_from_os(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(Error::Entropy)
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
    use crate::params::Set;

    /// Neither a block of AES nor a chunk of bits ends there.
    const LEN: usize = 9 * CHUNK + 7;

    #[test]
    fn the_stream_is_aes_256_in_counter_mode() {
        // Blocks 0 and 1 under the zero key. Block 0: NIST SP 800-38A's cipher on zeros (AESAVS, KAT for the zero key).
        let mut bytes = [0; 16];
        NoiseRng::from_key(&[0; 32]).fill_bytes(&mut bytes);
        assert_eq!(u128::from_be_bytes(bytes), 0xdc95c078_a2408989_ad48a214_92842087);
    }

    #[test]
    fn bits_and_noise_come_from_the_stream_in_order() {
        let params = Set::Default.params(64).unwrap();
        let mut bytes = vec![0u8; LEN];
        NoiseRng::from_seed(5).fill_bytes(&mut bytes);
        let mut noise = vec![0i8; LEN];
        NoiseRng::from_seed(5).fill_small_noise(&params, &mut noise);
        let mut bits = vec![0u64; 8 * LEN];
        NoiseRng::from_seed(5).fill_bits(&mut bits);
        for (i, &byte) in bytes.iter().enumerate() {
            let low = i16::from(byte & 0x7f);
            assert_eq!(i16::from(noise[i]), (low + 1) / 2 - 32, "byte {i}");
            assert_eq!((0..8).map(|k| bits[8 * i + k] << k).sum::<u64>(), u64::from(byte), "byte {i}");
        }
    }

    #[test]
    fn every_value_of_the_noise_has_its_weight() {
        for set in Set::ALL {
            let params = set.params(64).unwrap();
            let (small, bound) = (small_noise(&params), 1i16 << params.noise_bound());
            let all: Vec<i16> = (0..=255).map(|byte| i16::from(small(byte))).collect();
            for value in -bound..=bound {
                let ends = if value.abs() == bound { 1 } else { 2 };
                let expected = ends * (256 >> (params.noise_bound() + 2));
                assert_eq!(all.iter().filter(|&&v| v == value).count(), expected, "{set}: {value}");
            }
            let variance = all.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 256.0;
            assert!((variance - params.noise_variance()).abs() < 1e-9, "{set}: {variance}");
        }
    }
}
