//! Batches: a fresh secret, its public keys, the pads, and the corrections that arrive from the mask half.

use super::slot::{RoundSecrets, Slot};
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::random::keys::KeyRng;
use crate::random::xof::public_key_mask;
use crate::secret::SecretWords;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Polynomials whose words are handed out to the tokens together: 512 KB at `n = 2048`, which the second-level cache holds.
const HAND_OUT_GROUP: usize = 32;

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
        Ok(self.batch_from(KeyRng::from_os()?))
    }

    /// A batch from a given generator: for tests, which must not encrypt anything real with it.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn new_batch_seeded(&self, seed: u128) -> Batch {
        self.batch_from(KeyRng::from_seed(seed))
    }

    fn batch_from(&self, mut rng: KeyRng) -> Batch {
        let (instance, n) = (&self.instance, self.instance.params().n());
        let coefficients = rng.secret(n);
        let mut secret = SecretWords::copied(&coefficients);
        instance.ring().forward(&mut secret);
        let keys = evaluation_keys(instance, &coefficients, &secret, &mut rng);
        self.batch_of(secret, keys)
    }

    /// The batch of a secret in natural NTT order.
    pub(crate) fn batch_of(&self, secret: SecretWords, keys: EvaluationKeys) -> Batch {
        let instance = &self.instance;
        let rounds = (0..instance.layout().rounds().len()).into_par_iter();
        let rounds = rounds.map(|round| self.round_secrets(round, &secret)).collect();
        let blocks = instance.layout().blocks();
        Batch {
            instance: Arc::clone(instance),
            secret,
            keys,
            rounds,
            arrived: vec![false; blocks],
            missing: blocks,
            process: std::process::id(),
        }
    }

    /// The pads `A s` of one round, token by token; corrections still zero.
    fn round_secrets(&self, round: usize, secret: &[u64]) -> Vec<RoundSecrets> {
        let (instance, n) = (&self.instance, self.instance.params().n());
        let (ring, layout, phi) = (instance.ring(), instance.layout(), instance.params().phi());
        let (polys, rows) = (layout.round_polys(round), layout.round_rows(round).len());
        let empty = |_| RoundSecrets {
            pads: SecretWords::zeroed(polys.len() * phi),
            corrections: SecretWords::zeroed(rows),
        };
        let mut tokens: Vec<RoundSecrets> = (0..instance.params().tau()).map(empty).collect();
        let mut mask = vec![0; n];
        let mut products = SecretWords::zeroed(HAND_OUT_GROUP.min(polys.len()) * n);
        for first in (0..polys.len()).step_by(HAND_OUT_GROUP) {
            let group = first..polys.len().min(first + HAND_OUT_GROUP);
            for (index, product) in group.clone().zip(products.chunks_exact_mut(n)) {
                let mask = match &self.public_masks {
                    Some(masks) => &masks[(polys.start + index) * n..][..n],
                    None => {
                        instance.public_mask(round, index, &mut mask);
                        &mask
                    }
                };
                pointwise::mul(ring.isa(), ring.modulus(), mask, secret, product);
                ring.inverse(product);
            }
            for (token, secrets) in tokens.iter_mut().enumerate() {
                let pads = &mut secrets.pads[group.start * phi..group.end * phi];
                hand_out(&products, n, phi, token, 0, pads);
            }
        }
        tokens
    }
}

/// Of `polys`, `[polys][n]`, what belongs to `token`: word `i` of `out` is coefficient `(first + i) mod phi + phi token` of
/// polynomial `(first + i) / phi`.
fn hand_out(polys: &[u64], n: usize, phi: usize, token: usize, first: usize, mut out: &mut [u64]) {
    let (mut poly, mut skip) = (first / phi, first % phi);
    while !out.is_empty() {
        let (words, rest) = out.split_at_mut((phi - skip).min(out.len()));
        words.copy_from_slice(&polys[poly * n + token * phi + skip..][..words.len()]);
        (out, poly, skip) = (rest, poly + 1, 0);
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
pub(crate) fn evaluation_keys(
    instance: &Instance,
    coefficients: &[u64],
    secret: &[u64],
    rng: &mut KeyRng,
) -> EvaluationKeys {
    let (ring, params, n) = (instance.ring(), instance.params(), instance.params().n());
    let (isa, modulus) = (ring.isa(), ring.modulus());
    let gamma = 2 * params.tau() + 1;
    let mut rotated = SecretWords::zeroed(n);
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
    secret: SecretWords,
    keys: EvaluationKeys,
    /// `[rounds][tau]`: each value goes to one slot.
    rounds: Vec<Vec<RoundSecrets>>,
    arrived: Vec<bool>,
    missing: usize,
    process: u32,
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
        let mut phases = SecretWords::zeroed(HAND_OUT_GROUP.min(masks.len()) * n);
        for (group, masks) in masks.chunks(HAND_OUT_GROUP).enumerate() {
            let (instance, secret) = (&self.instance, &self.secret);
            phases.par_chunks_exact_mut(n).zip(masks).for_each_init(
                || SecretWords::zeroed(n),
                |product, (phase, mask)| decrypt(instance, secret, mask, product, phase),
            );
            let first = first_block + group * HAND_OUT_GROUP;
            self.store_corrections(first..first + masks.len(), &phases);
        }
        self.arrived[first_block..end].fill(true);
        self.missing -= masks.len();
        Ok(())
    }

    /// Hands the phases of `blocks`, coefficient `r + phi t`, out to rows and tokens.
    fn store_corrections(&mut self, blocks: Range<usize>, phases: &[u64]) {
        let (layout, n, phi) =
            (self.instance.layout(), self.instance.params().n(), self.instance.params().phi());
        let given = blocks.start * phi..blocks.end * phi;
        for round in layout.rounds_of(blocks.start).start..layout.rounds_of(blocks.end - 1).end {
            let rows = layout.round_rows(round);
            let (start, end) = (rows.start.max(given.start), rows.end.min(given.end));
            for (token, secrets) in self.rounds[round].iter_mut().enumerate() {
                let corrections = &mut secrets.corrections[start - rows.start..end - rows.start];
                hand_out(phases, n, phi, token, start - given.start, corrections);
            }
        }
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
        let Self { instance, rounds, process, .. } = self;
        let mut slots: Vec<Vec<Option<RoundSecrets>>> =
            (0..instance.params().tau()).map(|_| Vec::with_capacity(rounds.len())).collect();
        for tokens in rounds {
            slots.iter_mut().zip(tokens).for_each(|(slot, secrets)| slot.push(Some(secrets)));
        }
        Ok(slots.into_iter().map(|rounds| Slot::new(Arc::clone(&instance), process, rounds)).collect())
    }
}

/// `phase = b - a s`, coefficient `r + phi t` holding `-phi (H_r s)[phi t]` plus noise. `product` is overwritten.
fn decrypt(instance: &Instance, secret: &[u64], mask: &MaskBlock, product: &mut [u64], phase: &mut [u64]) {
    let ring = instance.ring();
    let (isa, modulus) = (ring.isa(), ring.modulus());
    let (a, b) = mask.words().split_at(ring.n());
    pointwise::switch_up(isa, modulus, a, phase);
    ring.forward(phase);
    pointwise::mul(isa, modulus, phase, secret, product);
    ring.inverse(product);
    pointwise::switch_up(isa, modulus, b, phase);
    pointwise::sub_assign(isa, modulus, phase, product);
}
