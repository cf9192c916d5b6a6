//! The offline half: a dot product of prepared digits with a batch's key, no activation involved.
//!
//! Several batches share one pass over the tables. Every ciphertext gets a fresh encryption of zero under the
//! batch's public key before it is switched to 32-bit words: that hides the final mask, which depends on the weights.

use super::table::{BlockDigits, PreparedModel};
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::mask_mac::{MAX_BATCHES, MacAccumulator, MacKey, mask_mac};
use crate::kernels::pointwise;
use crate::params::MASK_WORD_BITS;
use crate::random::noise::NoiseRng;
use crate::random::xof::public_key_mask;
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
        }
    }
}

/// One batch's work: its keys, and the secret seed of its re-randomisation.
///
/// The same job gives the same bytes, so that a retry can be answered without keeping the masks.
pub struct MaskJob<'a> {
    /// Keys of the batch.
    pub keys: &'a ExpandedKeys,
    /// 256 random bits that only this server knows, fresh for every batch.
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
        let switch = Switch::new(self.instance().params().q(), MASK_WORD_BITS);
        blocks.into_par_iter().try_for_each_init(
            || Scratch::new(self.instance(), jobs.len()),
            |scratch, block| {
                if !keep_on() {
                    return Err(Error::Cancelled);
                }
                self.dot_products(jobs, block, scratch);
                for (index, job) in jobs.iter().enumerate() {
                    let words = self.rerandomise(job, block, index, scratch, &switch);
                    sink(index, block, MaskBlock::new(words));
                }
                Ok(())
            },
        )
    }

    /// `sum_j sum_i d_(j,i) sigma^(j-1)(kb_i)` for every job, into `scratch.sums`, orbit order.
    fn dot_products(&self, jobs: &[MaskJob<'_>], block: usize, scratch: &mut Scratch) {
        let ring = self.instance().ring();
        let (isa, modulus, n, shape) = (ring.isa(), ring.modulus(), ring.n(), ring.shape());
        match self.digits(block) {
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
        let (ring, params) = (instance.ring(), instance.params());
        let (isa, modulus) = (ring.isa(), ring.modulus());
        let mut rng = block_rng(&job.seed, block);
        rng.fill_bits(&mut scratch.ephemeral);
        ring.forward(&mut scratch.ephemeral);
        let mut words = vec![0; 2 * n];
        pointwise::mul(isa, modulus, &scratch.ephemeral, &job.keys.public_mask, &mut scratch.first);
        ring.inverse(&mut scratch.first);
        rng.fill_noise(params, &mut scratch.noise);
        pointwise::add_assign(isa, modulus, &mut scratch.first, &scratch.noise);
        pointwise::add_assign(isa, modulus, &mut scratch.first, self.mask(block));
        for (word, &value) in words[..n].iter_mut().zip(&scratch.first) {
            *word = switch.down(value) as u32;
        }
        pointwise::mul(isa, modulus, &scratch.ephemeral, &job.keys.public_body, &mut scratch.first);
        ring.leave_orbit(&scratch.sums[index * n..(index + 1) * n], &mut scratch.second);
        pointwise::sub_assign(isa, modulus, &mut scratch.first, &scratch.second);
        ring.inverse(&mut scratch.first);
        rng.fill_noise(params, &mut scratch.noise);
        pointwise::add_assign(isa, modulus, &mut scratch.first, &scratch.noise);
        for (word, &value) in words[n..].iter_mut().zip(&scratch.first) {
            *word = switch.down(value) as u32;
        }
        words
    }
}

/// The generator of one ciphertext's re-randomisation.
fn block_rng(seed: &[u8; 32], block: usize) -> NoiseRng {
    let hash = blake3::keyed_hash(seed, &(block as u64).to_le_bytes());
    let (seed, _) = hash.as_bytes().split_at(16);
    NoiseRng::from_seed(u128::from_le_bytes(seed.try_into().expect("sixteen bytes")))
}

/// Buffers of one thread.
struct Scratch {
    /// `[jobs][n]`
    sums: Vec<u64>,
    first: Vec<u64>,
    second: Vec<u64>,
    ephemeral: Zeroizing<Vec<u64>>,
    noise: Zeroizing<Vec<u64>>,
    accumulators: Vec<MacAccumulator>,
}

impl Scratch {
    fn new(instance: &Instance, jobs: usize) -> Self {
        let (ring, n) = (instance.ring(), instance.params().n());
        Self {
            sums: vec![0; jobs * n],
            first: vec![0; n],
            second: vec![0; n],
            ephemeral: Zeroizing::new(vec![0; n]),
            noise: Zeroizing::new(vec![0; n]),
            accumulators: (0..jobs).map(|_| MacAccumulator::new(ring.isa(), ring.shape())).collect(),
        }
    }
}
