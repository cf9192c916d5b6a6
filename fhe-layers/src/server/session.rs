//! A session on the server: the randomness that hides the final masks once, for all batches of one client and model.
//!
//! `a' = a + pk_a u + e_a` per block. `u` and `e_a` are derived, not kept: from the server's secret, the credential, the
//! client's seed, the instance and the block. A batch needs `u` again, for `pk_b u`.

use super::table::PreparedModel;
use crate::bits;
use crate::error::{Error, Result};
use crate::form::{WORD_BITS, Widths, WireForm};
use crate::instance::Instance;
use crate::kernels::{Isa, pointwise};
use crate::params::Params;
use crate::random::noise::NoiseRng;
use crate::secret::SecretWords;
use crate::switch::Switch;
use crate::words::{SessionSeed, SharedMaskHasher};
use rayon::prelude::*;
use std::ops::Range;
use zeroize::Zeroizing;

/// What the server knows of one session.
///
/// Cheap to make again: nothing but the client's seed needs to be kept. The same inputs give the same session on every worker
/// that has the same secret.
pub struct ServerSession {
    form: WireForm,
    widths: Widths,
    seed: SessionSeed,
    /// Key of the blocks' randomness.
    key: Zeroizing<[u8; 32]>,
    /// `pk_a`, natural NTT order, `[n]`.
    key_mask: Vec<u64>,
    #[cfg(any(test, feature = "conformance"))]
    given: Option<GivenRandomness>,
}

/// Randomness that golden vectors give instead of deriving it, by block.
#[cfg(any(test, feature = "conformance"))]
pub(crate) struct GivenRandomness {
    /// `u`, coefficients.
    pub(crate) ephemeral: Vec<Vec<u64>>,
    /// `e_a`.
    pub(crate) noise: Vec<Vec<i8>>,
}

impl ServerSession {
    /// The session that `credential` opened on `instance` with `seed`. `server_secret`: 256 random bits that only the server
    /// knows; who has them can take the hiding off `a'`, and then knows the final masks, which depend on the weights.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for the full form.
    pub fn new(
        instance: &Instance,
        form: WireForm,
        server_secret: &[u8; 32],
        credential: &[u8],
        seed: SessionSeed,
    ) -> Result<Self> {
        let widths = form.session_widths()?;
        let mut hasher = blake3::Hasher::new_keyed(server_secret);
        hasher.update(b"sotto 2026 session randomness");
        for field in [
            credential,
            seed.bytes(),
            instance.params().id().as_bytes(),
            instance.plan().as_bytes(),
            &instance.digest().0,
            form.to_string().as_bytes(),
        ] {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        let mut key_mask = vec![0; instance.params().n()];
        instance.session_key_mask(&seed, &mut key_mask);
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        Ok(Self {
            form,
            widths,
            seed,
            key,
            key_mask,
            #[cfg(any(test, feature = "conformance"))]
            given: None,
        })
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn give(&mut self, given: GivenRandomness) {
        self.given = Some(given);
    }

    /// The wire form.
    pub fn form(&self) -> WireForm {
        self.form
    }

    /// The widths of its words.
    pub fn widths(&self) -> Widths {
        self.widths
    }

    /// The client's public seed.
    pub fn seed(&self) -> &SessionSeed {
        &self.seed
    }

    /// `u` of one block as coefficients, `[n]`.
    pub(crate) fn ephemeral(&self, isa: Isa, block: usize, ephemeral: &mut [u64]) {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(given) = &self.given {
            return ephemeral.copy_from_slice(&given.ephemeral[block]);
        }
        self.block_randomness(block).fill_bits_fast(isa, ephemeral);
    }

    /// `u` and `e_a` of one block, `[n]` each.
    fn randomness(&self, params: &Params, block: usize, ephemeral: &mut [u64], noise: &mut [i8]) {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(given) = &self.given {
            noise.copy_from_slice(&given.noise[block]);
            return ephemeral.copy_from_slice(&given.ephemeral[block]);
        }
        let mut randomness = self.block_randomness(block);
        randomness.fill_bits(ephemeral);
        randomness.fill_small_noise(params, noise);
    }

    /// The generator of one block: first the bits of `u`, then `e_a`.
    fn block_randomness(&self, block: usize) -> NoiseRng {
        let key = blake3::keyed_hash(&self.key, &(block as u64).to_le_bytes());
        NoiseRng::from_key(&Zeroizing::new(*key.as_bytes()))
    }
}

impl PreparedModel {
    /// The shared masks of `blocks`, packed, in order, on the current rayon pool: [`WireForm::session_block_bytes`] each.
    ///
    /// All of a session: call it for consecutive ranges, send and hash each ([`SharedMaskHasher`]). This is as much work per
    /// block as a batch's mask half has besides its dot product, and 28 bits per row and token; charge and limit it.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for blocks outside the layout.
    pub fn shared_masks(&self, session: &ServerSession, blocks: Range<usize>) -> Result<Vec<Vec<u8>>> {
        let inside = blocks.start <= blocks.end && blocks.end <= self.blocks();
        Error::check_range("mask blocks", "within the layout", inside, blocks.end)?;
        let (instance, n) = (self.instance(), self.instance().params().n());
        let masks = blocks.into_par_iter().map_init(
            || (SecretWords::zeroed(n), Zeroizing::new(vec![0i8; n])),
            |(ephemeral, noise), block| {
                session.randomness(instance.params(), block, ephemeral, noise);
                self.shared_mask(session, block, ephemeral, noise)
            },
        );
        Ok(masks.collect())
    }

    /// Hash of all shared masks of `session`, as [`SharedMaskHasher`] computes it from what is sent. As much work as sending.
    ///
    /// # Errors
    /// None but those of [`PreparedModel::shared_masks`].
    pub fn shared_masks_hash(&self, session: &ServerSession) -> Result<[u8; 32]> {
        let mut hasher = SharedMaskHasher::new();
        for first in (0..self.blocks()).step_by(HASH_GROUP) {
            let group = first..self.blocks().min(first + HASH_GROUP);
            self.shared_masks(session, group)?.iter().for_each(|packed| hasher.update(packed));
        }
        Ok(hasher.finish())
    }

    /// `a + pk_a u + e_a`, packed. `ephemeral`: `u` as coefficients; its transform afterwards.
    pub(crate) fn shared_mask(
        &self,
        session: &ServerSession,
        block: usize,
        ephemeral: &mut [u64],
        noise: &[i8],
    ) -> Vec<u8> {
        let ring = self.instance().ring();
        let (isa, modulus, n) = (ring.isa(), ring.modulus(), ring.n());
        let (mut sum, mut mask) = (SecretWords::zeroed(n), vec![0; n]);
        ring.forward(ephemeral);
        pointwise::mul(isa, modulus, ephemeral, &session.key_mask, &mut sum);
        ring.inverse(&mut sum);
        self.load_mask(block, &mut mask);
        pointwise::add_assign(isa, modulus, &mut sum, &mask);
        let bits = session.widths.shared();
        pointwise::switch_noisy(isa, &Switch::new(modulus, bits), &mut sum, noise);
        let words: Vec<u32> = sum.iter().map(|&word| (word as u32) << (WORD_BITS - bits)).collect();
        let mut packed = Vec::new();
        bits::pack(&words, bits, &mut packed);
        packed
    }
}

/// Blocks that are hashed together.
const HASH_GROUP: usize = 256;
