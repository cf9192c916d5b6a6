//! The offline half: a dot product of prepared digits with a batch's key, no activation involved.
//!
//! Several batches share one pass over the tables. Every ciphertext gets a fresh encryption of zero under the
//! batch's public key before it is switched to 32-bit words: that hides the final mask, which depends on the weights.

use super::table::{BlockDigits, PreparedModel, View};
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::mask_mac::{MAX_BATCHES, MacAccumulator, MacKey, mask_mac};
use crate::kernels::pointwise;
use crate::params::MASK_WORD_BITS;
use crate::random::noise::NoiseRng;
use crate::random::xof::public_key_mask;
use crate::ring::Ring;
use crate::secret::SecretWords;
use crate::switch::Switch;
use rayon::prelude::*;
use std::ops::Range;
use zeroize::Zeroizing;

/// A batch's keys as the kernels read them.
pub struct ExpandedKeys {
    bodies: MacKey,
    /// Public key mask and body, natural NTT order.
    public_mask: Vec<u64>,
    public_body: Vec<u64>,
    /// BLAKE3 of the keys.
    hash: [u8; 32],
}

impl ExpandedKeys {
    /// Expands the seed and reorders the bodies.
    pub fn new(instance: &Instance, keys: &EvaluationKeys) -> Self {
        let (ring, n) = (instance.ring(), instance.params().n());
        let polys: Vec<Vec<u64>> = keys
            .key_bodies
            .iter()
            .map(|body| {
                let mut orbit = vec![0; n];
                ring.enter_orbit(body, &mut orbit);
                orbit
            })
            .collect();
        let mut public_mask = vec![0; n];
        public_key_mask(instance.params().q(), &keys.public_key_seed, &mut public_mask);
        Self {
            bodies: MacKey::new(ring.shape(), &polys),
            public_mask,
            public_body: keys.public_key_body.clone(),
            hash: *blake3::hash(&keys.to_bytes(instance.params())).as_bytes(),
        }
    }
}

/// One batch's work: its keys, and the secret seed of its re-randomisation.
///
/// The same job gives the same bytes, so that a retry can be answered without keeping the masks.
pub struct MaskJob<'a> {
    /// Keys of the batch.
    pub keys: &'a ExpandedKeys,
    /// 256 random bits that only this server knows. The randomness used depends on them, the keys and the block.
    pub seed: [u8; 32],
}

impl PreparedModel {
    /// The mask blocks `blocks` of up to [`MAX_BATCHES`] jobs in one pass over the tables, on the current rayon pool.
    ///
    /// `sink(job, block, mask)` receives them in any order, from several threads; `keep_on` is asked before each block.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for no or too many jobs or blocks out of range; [`Error::Cancelled`].
    pub fn mask_half(
        &self,
        jobs: &[MaskJob<'_>],
        blocks: Range<usize>,
        keep_on: &(dyn Fn() -> bool + Sync),
        sink: &(dyn Fn(usize, usize, MaskBlock) + Sync),
    ) -> Result<()> {
        if jobs.is_empty() || jobs.len() > MAX_BATCHES {
            return Err(Error::Mismatch {
                what: "batches in one pass (1 to)",
                expected: MAX_BATCHES as u64,
                got: jobs.len() as u64,
            });
        }
        if blocks.start > blocks.end || blocks.end > self.blocks() {
            return Err(Error::Mismatch {
                what: "mask blocks (at most)",
                expected: self.blocks() as u64,
                got: blocks.end as u64,
            });
        }
        let switch = Switch::new(self.instance().ring().modulus(), MASK_WORD_BITS);
        let view = self.view();
        blocks.into_par_iter().try_for_each_init(
            || Scratch::new(self.instance(), jobs.len()),
            |scratch, block| {
                if !keep_on() {
                    return Err(Error::Cancelled);
                }
                self.dot_products(&view, jobs, block, scratch);
                for (index, job) in jobs.iter().enumerate() {
                    let words = self.rerandomise(job, block, index, scratch, &switch);
                    sink(index, block, MaskBlock::new(words));
                }
                Ok(())
            },
        )
    }

    /// `sum_j sum_i d_(j,i) sigma^(j-1)(kb_i)` for every job, into `scratch.sums`, orbit order.
    pub(crate) fn dot_products(
        &self,
        view: &View<'_>,
        jobs: &[MaskJob<'_>],
        block: usize,
        scratch: &mut Scratch,
    ) {
        let ring = self.instance().ring();
        let (isa, modulus, n, shape) = (ring.isa(), ring.modulus(), ring.n(), ring.shape());
        match view.digits(block) {
            BlockDigits::Ntt(words) => {
                let keys: Vec<&MacKey> = jobs.iter().map(|job| &job.keys.bodies).collect();
                let mut outs: Vec<&mut [u64]> = scratch.sums.chunks_exact_mut(n).collect();
                mask_mac(isa, words, &keys, modulus, &mut outs);
            }
            BlockDigits::Compact(digits) => {
                scratch.accumulators.iter_mut().for_each(MacAccumulator::clear);
                for (term, digits) in digits.chunks_exact(n).enumerate() {
                    pointwise::residues(isa, modulus, digits, &mut scratch.first);
                    ring.forward(&mut scratch.first);
                    ring.enter_orbit(&scratch.first, &mut scratch.second);
                    let (j, level) = (term / shape.levels(), term % shape.levels());
                    for (sum, job) in scratch.accumulators.iter_mut().zip(jobs) {
                        sum.add(&scratch.second, &job.keys.bodies, j, level);
                    }
                }
                for (sum, out) in scratch.accumulators.iter().zip(scratch.sums.chunks_exact_mut(n)) {
                    sum.reduce(modulus, out);
                }
            }
        }
    }

    /// Adds a fresh encryption of zero and switches: `a` then `b`, `[2 n]`.
    fn rerandomise(
        &self,
        job: &MaskJob<'_>,
        block: usize,
        index: usize,
        scratch: &mut Scratch,
        switch: &Switch,
    ) -> Vec<u32> {
        let (instance, n) = (self.instance(), self.instance().params().n());
        let mut rng = block_rng(job, block);
        scratch.zero.draw(instance, job.keys, &mut rng);
        let sums = &scratch.sums[index * n..(index + 1) * n];
        let (mask, temporary) = (self.mask(block), &mut scratch.first);
        scratch.zero.add_to(instance.ring(), mask, sums, temporary, switch)
    }
}

/// An encryption of zero under a batch's public key: `(u pk_a + e_a, u pk_b + e_b)`.
pub(crate) struct Zero {
    /// `u`, then its transform.
    ephemeral: SecretWords,
    /// `u pk_a` and `u pk_b`, in natural NTT order until they are added.
    pub(crate) mask: SecretWords,
    pub(crate) body: SecretWords,
    pub(crate) mask_noise: Zeroizing<Vec<i8>>,
    pub(crate) body_noise: Zeroizing<Vec<i8>>,
}

impl Zero {
    /// Zero without any randomness.
    pub(crate) fn new(n: usize) -> Self {
        Self {
            ephemeral: SecretWords::zeroed(n),
            mask: SecretWords::zeroed(n),
            body: SecretWords::zeroed(n),
            mask_noise: Zeroizing::new(vec![0; n]),
            body_noise: Zeroizing::new(vec![0; n]),
        }
    }

    fn draw(&mut self, instance: &Instance, keys: &ExpandedKeys, rng: &mut NoiseRng) {
        let (ring, params) = (instance.ring(), instance.params());
        rng.fill_bits(&mut self.ephemeral);
        rng.fill_small_noise(params, &mut self.mask_noise);
        rng.fill_small_noise(params, &mut self.body_noise);
        ring.forward(&mut self.ephemeral);
        pointwise::mul(ring.isa(), ring.modulus(), &self.ephemeral, &keys.public_mask, &mut self.mask);
        pointwise::mul(ring.isa(), ring.modulus(), &self.ephemeral, &keys.public_body, &mut self.body);
    }

    /// `(mask + zero_a, zero_b - sums)` in words: `mask` as coefficients, `sums` in orbit order. Uses `self` up.
    pub(crate) fn add_to(
        &mut self,
        ring: &Ring,
        mask: &[u64],
        sums: &[u64],
        temporary: &mut [u64],
        switch: &Switch,
    ) -> Vec<u32> {
        let (isa, modulus) = (ring.isa(), ring.modulus());
        let mut words = Vec::with_capacity(2 * ring.n());
        ring.inverse(&mut self.mask);
        pointwise::add_assign(isa, modulus, &mut self.mask, mask);
        switch_noisy(ring, &mut self.mask, &self.mask_noise, switch, &mut words);
        ring.leave_orbit(sums, temporary);
        pointwise::sub_assign(isa, modulus, &mut self.body, temporary);
        ring.inverse(&mut self.body);
        switch_noisy(ring, &mut self.body, &self.body_noise, switch, &mut words);
        words
    }
}

/// Appends `round(value + noise, from q to 32 bits)`. Uses `values` up.
fn switch_noisy(ring: &Ring, values: &mut [u64], noise: &[i8], switch: &Switch, words: &mut Vec<u32>) {
    pointwise::switch_noisy(ring.isa(), switch, values, noise);
    words.extend(values.iter().map(|&word| word as u32));
}

/// The generator of one ciphertext's re-randomisation: a function of seed, keys and block, so that a seed that comes
/// back with other keys gives other randomness.
fn block_rng(job: &MaskJob<'_>, block: usize) -> NoiseRng {
    let mut hasher = blake3::Hasher::new_keyed(&job.seed);
    hasher.update(&job.keys.hash).update(&(block as u64).to_le_bytes());
    let mut seed = Zeroizing::new([0u8; 16]);
    hasher.finalize_xof().fill(seed.as_mut());
    NoiseRng::from_seed(u128::from_le_bytes(*seed))
}

/// Buffers of one thread.
pub(crate) struct Scratch {
    /// `[jobs][n]`
    pub(crate) sums: Vec<u64>,
    first: Vec<u64>,
    second: Vec<u64>,
    zero: Zero,
    accumulators: Vec<MacAccumulator>,
}

impl Scratch {
    pub(crate) fn new(instance: &Instance, jobs: usize) -> Self {
        let (ring, n) = (instance.ring(), instance.params().n());
        Self {
            sums: vec![0; jobs * n],
            first: vec![0; n],
            second: vec![0; n],
            zero: Zero::new(n),
            accumulators: (0..jobs).map(|_| MacAccumulator::new(ring.isa(), ring.shape())).collect(),
        }
    }
}
