//! The offline half: a dot product of prepared digits with a batch's key, no activation involved.
//!
//! Several batches share one pass over the tables. In the full form every ciphertext gets a fresh encryption of zero under
//! the batch's public key before it is switched to 32-bit words: that hides the final mask, which depends on the weights. In
//! the session forms the mask is hidden once per session, and only the body is computed here ([`PreparedModel::mask_words`]).

use super::session::ServerSession;
use super::table::{BlockDigits, DigitScratch, PreparedModel, View};
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::form::WireForm;
use crate::instance::Instance;
use crate::kernels::mask_mac::{MAX_BATCHES, MacAccumulator, MacKey, mask_mac};
use crate::kernels::pointwise;
use crate::params::MASK_WORD_BITS;
use crate::random::noise::NoiseRng;
use crate::random::xof::public_key_mask;
use crate::ring::Ring;
use crate::secret::SecretWords;
use crate::switch::Switch;
use crate::words::{MaskWords, SessionSeed};
use rayon::prelude::*;
use std::ops::Range;
use zeroize::Zeroizing;

/// A batch's keys as the kernels read them.
pub struct ExpandedKeys {
    bodies: MacKey,
    /// Public key mask and body, natural NTT order; a session keeps its mask itself.
    public_mask: Vec<u64>,
    public_body: Vec<u64>,
    /// BLAKE3 of the keys.
    hash: [u8; 32],
    /// Seed of the public key's mask.
    seed: SessionSeed,
}

impl ExpandedKeys {
    /// Expands the seed and reorders the bodies.
    pub fn new(instance: &Instance, keys: &EvaluationKeys) -> Self {
        let mut public_mask = vec![0; instance.params().n()];
        public_key_mask(instance.params().q(), &keys.public_key_seed, &mut public_mask);
        Self { public_mask, ..Self::for_session(instance, keys) }
    }

    /// As [`ExpandedKeys::new`] for [`WordsJob`]s, which need no public mask.
    pub fn for_session(instance: &Instance, keys: &EvaluationKeys) -> Self {
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
        Self {
            bodies: MacKey::new(ring.shape(), &polys),
            public_mask: Vec::new(),
            public_body: keys.public_key_body.clone(),
            hash: *blake3::hash(&keys.to_bytes(instance.params())).as_bytes(),
            seed: SessionSeed::from_bytes(keys.public_key_seed),
        }
    }

    /// BLAKE3 of the keys as they travel: two batches with the same hash are the same batch.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
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

/// One batch's work in a session form.
pub struct WordsJob<'a> {
    keys: &'a ExpandedKeys,
    session: &'a ServerSession,
}

impl<'a> WordsJob<'a> {
    /// The batch with `keys` of `session`.
    ///
    /// # Errors
    /// [`Error::Foreign`] for keys of another session.
    pub fn new(keys: &'a ExpandedKeys, session: &'a ServerSession) -> Result<Self> {
        if keys.seed != *session.seed() {
            return Err(Error::Foreign { what: "keys", of: "session" });
        }
        Ok(Self { keys, session })
    }
}

impl PreparedModel {
    /// The mask blocks `blocks` of up to [`MAX_BATCHES`] jobs in one pass over the tables, on the current rayon pool.
    ///
    /// `sink(job, block, mask)` receives them in any order, from several threads; `keep_on` is asked before each block.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for no or too many jobs or blocks out of range; [`Error::Cancelled`].
    pub fn mask_half(
        &self,
        jobs: &[MaskJob<'_>],
        blocks: Range<usize>,
        keep_on: &(dyn Fn() -> bool + Sync),
        sink: &(dyn Fn(usize, usize, MaskBlock) + Sync),
    ) -> Result<()> {
        self.check_pass(jobs.len(), &blocks)?;
        let switch = Switch::new(self.instance().ring().modulus(), MASK_WORD_BITS);
        let view = self.view();
        let keys: Vec<&ExpandedKeys> = jobs.iter().map(|job| job.keys).collect();
        blocks.into_par_iter().try_for_each_init(
            || Scratch::new(self.instance(), jobs.len()),
            |scratch, block| {
                if !keep_on() {
                    return Err(Error::Cancelled);
                }
                self.dot_products(&view, &keys, block, scratch);
                for (index, job) in jobs.iter().enumerate() {
                    let words = self.rerandomise(job, block, index, scratch, &switch);
                    sink(index, block, MaskBlock::new(words));
                }
                Ok(())
            },
        )
    }

    /// `b'` of the blocks `blocks` for up to [`MAX_BATCHES`] batches of session forms, in one pass over the tables, on the
    /// current rayon pool: `b + pk_b u - fold`, switched to what the form keeps or sends. It has no noise of its own, which
    /// would vanish in the rounding.
    ///
    /// `sink(job, block, words)` receives them in any order, from several threads; `keep_on` is asked before each block. The
    /// same job gives the same words.
    ///
    /// # Errors
    /// As [`PreparedModel::mask_half`].
    pub fn mask_words(
        &self,
        jobs: &[WordsJob<'_>],
        blocks: Range<usize>,
        keep_on: &(dyn Fn() -> bool + Sync),
        sink: &(dyn Fn(usize, usize, MaskWords) + Sync),
    ) -> Result<()> {
        self.check_pass(jobs.len(), &blocks)?;
        let (ring, n) = (self.instance().ring(), self.instance().params().n());
        let view = self.view();
        let keys: Vec<&ExpandedKeys> = jobs.iter().map(|job| job.keys).collect();
        blocks.into_par_iter().try_for_each_init(
            || Scratch::new(self.instance(), jobs.len()),
            |scratch, block| {
                if !keep_on() {
                    return Err(Error::Cancelled);
                }
                self.dot_products(&view, &keys, block, scratch);
                let mut drawn: Option<&ServerSession> = None;
                for (index, job) in jobs.iter().enumerate() {
                    // Batches of one session share `u`: it is expanded and transformed once.
                    if drawn.is_none_or(|session| !std::ptr::eq(session, job.session)) {
                        job.session.ephemeral(ring.isa(), block, &mut scratch.zero.ephemeral);
                        ring.forward(&mut scratch.zero.ephemeral);
                        drawn = Some(job.session);
                    }
                    let words = self.body_words(job.keys, job.session.form(), block, index * n, scratch);
                    sink(index, block, words);
                }
                Ok(())
            },
        )
    }

    /// `pk_b u - sums - fold` in words, for `u` in `scratch.zero.ephemeral`, in natural NTT order.
    pub(crate) fn body_words(
        &self,
        keys: &ExpandedKeys,
        form: WireForm,
        block: usize,
        sums_at: usize,
        scratch: &mut Scratch,
    ) -> MaskWords {
        let (ring, n) = (self.instance().ring(), self.instance().params().n());
        let (isa, modulus) = (ring.isa(), ring.modulus());
        let Scratch { sums, first, zero, .. } = scratch;
        let body = &mut zero.body;
        pointwise::mul(isa, modulus, &zero.ephemeral, &keys.public_body, body);
        ring.leave_orbit(&sums[sums_at..sums_at + n], first);
        pointwise::sub_assign(isa, modulus, body, first);
        ring.inverse(body);
        let mut words = vec![0; n];
        let switch = Switch::new(modulus, form.mask_body_bits());
        pointwise::switch_folded(isa, &switch, &self.fold_of(block), body, &mut words);
        MaskWords::new(words, form)
    }

    fn check_pass(&self, jobs: usize, blocks: &Range<usize>) -> Result<()> {
        Error::check_range("batches in one pass", "1..=4", (1..=MAX_BATCHES).contains(&jobs), jobs)?;
        let inside = blocks.start <= blocks.end && blocks.end <= self.blocks();
        Error::check_range("mask blocks", "within the layout", inside, blocks.end)
    }

    /// `sum_j sum_i d_(j,i) sigma^(j-1)(kb_i)` for every batch, into `scratch.sums`, orbit order.
    pub(crate) fn dot_products(
        &self,
        view: &View<'_>,
        batches: &[&ExpandedKeys],
        block: usize,
        scratch: &mut Scratch,
    ) {
        let ring = self.instance().ring();
        let (isa, modulus, n, shape) = (ring.isa(), ring.modulus(), ring.n(), ring.shape());
        match view.digits(block) {
            BlockDigits::Ntt(words) => {
                let keys: Vec<&MacKey> = batches.iter().map(|keys| &keys.bodies).collect();
                let mut outs: Vec<&mut [u64]> = scratch.sums.chunks_exact_mut(n).collect();
                mask_mac(isa, words, &keys, modulus, &mut outs);
            }
            BlockDigits::Compact(packed) => {
                scratch.accumulators.iter_mut().for_each(MacAccumulator::clear);
                for (term, packed) in packed.chunks_exact(packed.len() / shape.terms()).enumerate() {
                    let orbit = scratch.digits.transform(ring, packed);
                    let (j, level) = (term / shape.levels(), term % shape.levels());
                    for (sum, keys) in scratch.accumulators.iter_mut().zip(batches) {
                        sum.add(orbit, &keys.bodies, j, level);
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
        self.full_words(block, index * n, scratch, switch)
    }

    /// `(mask + zero_a, zero_b - sums - fold)` in words, for what `scratch.zero` holds. Uses the zero up.
    pub(crate) fn full_words(
        &self,
        block: usize,
        sums_at: usize,
        scratch: &mut Scratch,
        switch: &Switch,
    ) -> Vec<u32> {
        let ring = self.instance().ring();
        let (isa, modulus, n) = (ring.isa(), ring.modulus(), ring.n());
        let Scratch { sums, first, zero, .. } = scratch;
        let mut words = Vec::with_capacity(2 * n);
        ring.inverse(&mut zero.mask);
        self.load_mask(block, first);
        pointwise::add_assign(isa, modulus, &mut zero.mask, first);
        switch_noisy(ring, &mut zero.mask, &zero.mask_noise, switch, &mut words);
        ring.leave_orbit(&sums[sums_at..sums_at + n], first);
        pointwise::sub_assign(isa, modulus, &mut zero.body, first);
        ring.inverse(&mut zero.body);
        self.subtract_fold(block, &mut zero.body);
        switch_noisy(ring, &mut zero.body, &zero.body_noise, switch, &mut words);
        words
    }
}

/// An encryption of zero under a batch's public key: `(u pk_a + e_a, u pk_b + e_b)`.
pub(crate) struct Zero {
    /// `u`, then its transform.
    pub(crate) ephemeral: SecretWords,
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
    let mut key = Zeroizing::new([0u8; 32]);
    hasher.finalize_xof().fill(key.as_mut());
    NoiseRng::from_key(&key)
}

/// Buffers of one thread.
pub(crate) struct Scratch {
    /// `[jobs][n]`
    pub(crate) sums: Vec<u64>,
    first: Vec<u64>,
    digits: DigitScratch,
    pub(crate) zero: Zero,
    accumulators: Vec<MacAccumulator>,
}

impl Scratch {
    pub(crate) fn new(instance: &Instance, jobs: usize) -> Self {
        let (ring, n) = (instance.ring(), instance.params().n());
        Self {
            sums: vec![0; jobs * n],
            first: vec![0; n],
            digits: DigitScratch::new(n),
            zero: Zero::new(n),
            accumulators: (0..jobs).map(|_| MacAccumulator::new(ring.isa(), ring.shape())).collect(),
        }
    }
}
