//! Batches: a fresh secret, its public keys, the pads, and the corrections that arrive from the mask half.

use super::slot::Slot;
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::params::MASK_WORD_BITS;
use crate::random::noise::NoiseRng;
use crate::random::xof::public_key_mask;
use crate::switch::Switch;
use rayon::prelude::*;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How a client trades memory for time.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Keep the expanded public masks (`8 N` bytes per `phi` features) instead of deriving them for every batch.
    pub cache_a: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { cache_a: true }
    }
}

/// Makes batches for one instance.
pub struct Client {
    instance: Arc<Instance>,
    /// `[polys][n]` in natural NTT order, when cached.
    public_masks: Option<Vec<u64>>,
}

impl Client {
    /// Derives the public masks when they are to be cached.
    pub fn new(instance: Arc<Instance>, options: ClientOptions) -> Self {
        let public_masks = options.cache_a.then(|| {
            let n = instance.params().n();
            let mut masks = vec![0; instance.layout().total_polys() * n];
            each_poly(&instance, &mut masks, |round, poly, out| instance.public_mask(round, poly, out));
            masks
        });
        Self { instance, public_masks }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// A batch under a fresh secret from the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn new_batch(&self) -> Result<Batch> {
        Ok(self.batch_from(NoiseRng::from_os()?))
    }

    /// A batch from a given generator: for tests, which must not encrypt anything real with it.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn new_batch_seeded(&self, seed: u128) -> Batch {
        self.batch_from(NoiseRng::from_seed(seed))
    }

    fn batch_from(&self, mut rng: NoiseRng) -> Batch {
        let instance = &self.instance;
        let (ring, params, n) = (instance.ring(), instance.params(), instance.params().n());
        let coefficients = rng.secret(n);
        let mut secret = Zeroizing::new(coefficients.to_vec());
        ring.forward(&mut secret);
        let keys = evaluation_keys(instance, &coefficients, &secret, &mut rng);
        let mut pads = Zeroizing::new(vec![0; instance.layout().total_polys() * n]);
        let (isa, modulus) = (ring.isa(), ring.modulus());
        each_poly(instance, &mut pads, |round, poly, out| {
            let index = instance.layout().round_polys(round).start + poly;
            match &self.public_masks {
                Some(masks) => pointwise::mul(isa, modulus, &masks[index * n..(index + 1) * n], &secret, out),
                None => {
                    let mut mask = vec![0; n];
                    instance.public_mask(round, poly, &mut mask);
                    pointwise::mul(isa, modulus, &mask, &secret, out);
                }
            }
            ring.inverse(out);
        });
        let blocks = instance.layout().blocks();
        Batch {
            instance: Arc::clone(instance),
            secret,
            keys,
            pads,
            corrections: Zeroizing::new(vec![0; blocks * n]),
            arrived: vec![false; blocks],
            missing: blocks,
            process: std::process::id(),
            tau: params.tau(),
        }
    }
}

/// Runs `fill(round, poly, out)` for every public polynomial, on all cores.
fn each_poly(instance: &Instance, polys: &mut [u64], fill: impl Fn(usize, usize, &mut [u64]) + Sync) {
    let (layout, n) = (instance.layout(), instance.params().n());
    let mut owners = Vec::with_capacity(layout.total_polys());
    for round in 0..layout.rounds().len() {
        owners.extend((0..layout.round_polys(round).len()).map(|poly| (round, poly)));
    }
    polys.par_chunks_exact_mut(n).zip(owners).for_each(|(out, (round, poly))| fill(round, poly, out));
}

/// `kb_i = ka_i s + e + 2^(drop + base_log i) sigma(s)` and the public key, all as values in natural order.
fn evaluation_keys(
    instance: &Instance,
    coefficients: &[u64],
    secret: &[u64],
    rng: &mut NoiseRng,
) -> EvaluationKeys {
    let (ring, params, n) = (instance.ring(), instance.params(), instance.params().n());
    let (isa, modulus) = (ring.isa(), ring.modulus());
    let gamma = 2 * params.tau() + 1;
    let mut rotated = Zeroizing::new(vec![0; n]);
    for (i, &bit) in coefficients.iter().enumerate() {
        let p = i * gamma % (2 * n);
        rotated[p % n] = if p < n { bit } else { modulus.neg(bit) };
    }
    let mut seed = [0u8; 32];
    rng.fill_bytes(&mut seed);
    let mut encrypt = |mask: &[u64], shift: Option<u32>| {
        let mut body = vec![0; n];
        rng.fill_noise(params, &mut body);
        if let Some(shift) = shift {
            for (body, &message) in body.iter_mut().zip(rotated.iter()) {
                *body = modulus.add(*body, modulus.mul(message, 1 << shift));
            }
        }
        ring.forward(&mut body);
        pointwise::mul_add(isa, modulus, mask, secret, &mut body);
        body
    };
    let mut mask = vec![0; n];
    let mut key_bodies = Vec::with_capacity(params.levels());
    for level in 0..params.levels() {
        instance.key_mask(level, &mut mask);
        key_bodies.push(encrypt(&mask, Some(params.drop() + params.base_log() * level as u32)));
    }
    public_key_mask(params.q(), &seed, &mut mask);
    let public_key_body = encrypt(&mask, None);
    EvaluationKeys { key_bodies, public_key_seed: seed, public_key_body }
}

/// `tau` token positions under one secret, until their masks have arrived.
pub struct Batch {
    instance: Arc<Instance>,
    /// `s` in natural NTT order.
    secret: Zeroizing<Vec<u64>>,
    keys: EvaluationKeys,
    /// Coefficients of `A s`, `[polys][n]`.
    pads: Zeroizing<Vec<u64>>,
    /// Phases of the mask blocks, `[blocks][n]`.
    corrections: Zeroizing<Vec<u64>>,
    arrived: Vec<bool>,
    missing: usize,
    process: u32,
    tau: usize,
}

/// Pads and corrections that the slots of one batch share; wiped with the last of them.
pub(super) struct Store {
    pub(super) instance: Arc<Instance>,
    pub(super) pads: Zeroizing<Vec<u64>>,
    pub(super) corrections: Zeroizing<Vec<u64>>,
    pub(super) process: u32,
}

impl Batch {
    /// What the server needs for this batch: public.
    pub fn keys(&self) -> &EvaluationKeys {
        &self.keys
    }

    /// Decrypts mask blocks `first_block..` as they arrive, in any order, each once.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a block outside the layout or of another size, [`Error::DuplicateMask`]. Blocks before the
    /// refused one are kept.
    pub fn accept_masks(&mut self, first_block: usize, masks: &[MaskBlock]) -> Result<()> {
        let n = self.instance.params().n();
        let end = first_block.checked_add(masks.len()).filter(|&end| end <= self.arrived.len());
        let end = end.ok_or(Error::Mismatch {
            what: "mask blocks (at most)",
            expected: self.arrived.len() as u64,
            got: first_block.saturating_add(masks.len()) as u64,
        })?;
        for (offset, mask) in masks.iter().enumerate() {
            Error::check("words of a mask block", 2 * n, mask.words().len())?;
            if self.arrived[first_block + offset] {
                return Err(Error::DuplicateMask { block: first_block + offset });
            }
        }
        let (instance, secret) = (&self.instance, &self.secret);
        let phases = &mut self.corrections[first_block * n..end * n];
        phases
            .par_chunks_exact_mut(n)
            .zip(masks)
            .for_each(|(phase, mask)| decrypt(instance, secret, mask, phase));
        self.arrived[first_block..end].fill(true);
        self.missing -= masks.len();
        Ok(())
    }

    /// Whether every block has arrived.
    pub fn masks_complete(&self) -> bool {
        self.missing == 0
    }

    /// Blocks that have not arrived.
    pub fn masks_missing(&self) -> usize {
        self.missing
    }

    /// The slots; the secret is wiped.
    ///
    /// # Errors
    /// [`Error::MasksMissing`].
    pub fn into_slots(self) -> Result<Vec<Slot>> {
        if self.missing > 0 {
            return Err(Error::MasksMissing { missing: self.missing });
        }
        let Self { instance, pads, corrections, process, tau, .. } = self;
        let store = Arc::new(Store { instance, pads, corrections, process });
        Ok((0..tau).map(|t| Slot::new(Arc::clone(&store), t)).collect())
    }
}

/// `phase = b - a s`, coefficient `r + phi t` holding `-phi (H_r s)[phi t]` plus noise.
fn decrypt(instance: &Instance, secret: &[u64], mask: &MaskBlock, phase: &mut [u64]) {
    let (ring, n) = (instance.ring(), instance.params().n());
    let (isa, modulus) = (ring.isa(), ring.modulus());
    let switch = Switch::new(instance.params().q(), MASK_WORD_BITS);
    let (a, b) = mask.words().split_at(n);
    let mut product: Vec<u64> = a.iter().map(|&word| switch.up(u64::from(word))).collect();
    ring.forward(&mut product);
    pointwise::mul(isa, modulus, &product, secret, phase);
    ring.inverse(phase);
    for (phase, &word) in phase.iter_mut().zip(b) {
        *phase = modulus.sub(switch.up(u64::from(word)), *phase);
    }
}
