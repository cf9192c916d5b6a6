//! Batches: a fresh secret, its public keys, the pads, and the corrections.

use super::session::ClientSession;
use super::slot::{Origin, RoundSecrets, Slot};
use crate::ciphertext::{EvaluationKeys, MaskBlock};
use crate::error::{Error, Result};
use crate::form::{WORD_BITS, WireForm};
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::random::keys::KeyRng;
use crate::random::xof::public_key_mask;
use crate::secret::{SecretHalves, SecretWords};
use crate::switch::Switch;
use crate::words::MaskWords;
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

    /// A batch in the full form under a fresh secret from the operating system's entropy.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub fn new_batch(&self) -> Result<Batch> {
        self.batch_from(KeyRng::from_os()?)
    }

    /// A batch from a given generator: for tests, which must not encrypt anything real with it.
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn new_batch_seeded(&self, seed: u128) -> Batch {
        self.batch_from(KeyRng::from_seed(seed)).expect("a seeded batch needs no entropy but a guard's")
    }

    /// As [`Client::new_batch`] for a session: needs nothing more in the lean form, and [`Batch::accept_mask_words`] in the
    /// stateless form.
    ///
    /// # Errors
    /// [`Error::Entropy`], [`Error::Foreign`] for a session of another instance.
    pub fn new_session_batch(&self, session: &ClientSession) -> Result<Batch> {
        self.session_batch_from(session, KeyRng::from_os()?)
    }

    /// As [`Client::new_session_batch`] from a given generator: for tests.
    ///
    /// # Errors
    /// As [`Client::new_session_batch`].
    #[cfg(any(test, feature = "insecure-test-params"))]
    pub fn new_session_batch_seeded(&self, session: &ClientSession, seed: u128) -> Result<Batch> {
        self.session_batch_from(session, KeyRng::from_seed(seed))
    }

    fn batch_from(&self, mut rng: KeyRng) -> Result<Batch> {
        let (secret, keys) = batch_keys(&self.instance, &mut rng, None)?;
        self.batch_of(secret, keys)
    }

    fn session_batch_from(&self, session: &ClientSession, mut rng: KeyRng) -> Result<Batch> {
        if !Arc::ptr_eq(&self.instance, session.instance()) {
            return Err(Error::Foreign { what: "session", of: "instance" });
        }
        let (secret, keys) = batch_keys(&self.instance, &mut rng, Some(session))?;
        self.session_batch_of(session, secret, keys)
    }

    /// The batch of a secret in natural NTT order, in the full form.
    pub(crate) fn batch_of(&self, secret: SecretWords, keys: EvaluationKeys) -> Result<Batch> {
        let blocks = self.instance.layout().blocks();
        Ok(Batch {
            rounds: self.rounds_of(&secret),
            instance: Arc::clone(&self.instance),
            form: WireForm::Full,
            secret,
            keys,
            arrived: vec![false; blocks],
            missing: blocks,
            origin: Origin::here()?,
        })
    }

    /// The batch of a secret in natural NTT order, for a session.
    pub(crate) fn session_batch_of(
        &self,
        session: &ClientSession,
        secret: SecretWords,
        keys: EvaluationKeys,
    ) -> Result<Batch> {
        let blocks = self.instance.layout().blocks();
        let complete = session.form().keeps_words();
        let mut batch = Batch {
            rounds: self.rounds_of(&secret),
            instance: Arc::clone(&self.instance),
            form: session.form(),
            secret,
            keys,
            arrived: vec![complete; blocks],
            missing: if complete { 0 } else { blocks },
            origin: Origin::here()?,
        };
        batch.subtract_products(session)?;
        Ok(batch)
    }

    fn rounds_of(&self, secret: &[u64]) -> Vec<Vec<RoundSecrets>> {
        let rounds = (0..self.instance.layout().rounds().len()).into_par_iter();
        rounds.map(|round| self.round_secrets(round, secret)).collect()
    }

    /// The pads `A s` of one round, token by token; corrections still zero.
    fn round_secrets(&self, round: usize, secret: &[u64]) -> Vec<RoundSecrets> {
        let (instance, n) = (&self.instance, self.instance.params().n());
        let (ring, layout, phi) = (instance.ring(), instance.layout(), instance.params().phi());
        let (polys, rows) = (layout.round_polys(round), layout.round_rows(round).len());
        let empty = |_| RoundSecrets {
            pads: SecretWords::zeroed(polys.len() * phi),
            corrections: SecretHalves::zeroed(rows),
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
fn hand_out<T: Copy>(polys: &[T], n: usize, phi: usize, token: usize, first: usize, out: &mut [T]) {
    scatter(polys, n, phi, token, first, out, |out, word| *out = word);
}

/// As [`hand_out`], with `store` in place of the copy.
fn scatter<T: Copy>(
    polys: &[T],
    n: usize,
    phi: usize,
    token: usize,
    first: usize,
    mut out: &mut [T],
    store: impl Fn(&mut T, T),
) {
    let (mut poly, mut skip) = (first / phi, first % phi);
    while !out.is_empty() {
        let (words, rest) = out.split_at_mut((phi - skip).min(out.len()));
        let from = &polys[poly * n + token * phi + skip..];
        words.iter_mut().zip(from).for_each(|(out, &word)| store(out, word));
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

/// A fresh secret in natural NTT order, and its keys; the public key's mask is the session's, if there is one.
fn batch_keys(
    instance: &Instance,
    rng: &mut KeyRng,
    session: Option<&ClientSession>,
) -> Result<(SecretWords, EvaluationKeys)> {
    let n = instance.params().n();
    let coefficients = rng.secret(n)?;
    let mut secret = SecretWords::copied(&coefficients);
    instance.ring().forward(&mut secret);
    let public = match session {
        Some(session) => PublicMask { seed: *session.seed().bytes(), words: session.key_mask().to_vec() },
        None => {
            let (seed, mut words) = (rng.public_seed()?, vec![0; n]);
            public_key_mask(instance.params().q(), &seed, &mut words);
            PublicMask { seed, words }
        }
    };
    let keys = evaluation_keys(instance, &coefficients, &secret, public, rng);
    Ok((secret, keys))
}

/// The mask of a public key, in natural NTT order, and the seed it is expanded from.
pub(crate) struct PublicMask {
    pub(crate) seed: [u8; 32],
    pub(crate) words: Vec<u64>,
}

/// `kb_i = ka_i s + e + 2^(drop + base_log i) sigma(s)` and the public key, all as values in natural order.
pub(crate) fn evaluation_keys(
    instance: &Instance,
    coefficients: &[u64],
    secret: &[u64],
    public: PublicMask,
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
    let public_key_body = encrypt(&public.words, None);
    EvaluationKeys { key_bodies, public_key_seed: public.seed, public_key_body }
}

/// `tau` token positions under one secret, until what the server sends ahead has arrived.
pub struct Batch {
    instance: Arc<Instance>,
    form: WireForm,
    /// `s` in natural NTT order.
    secret: SecretWords,
    keys: EvaluationKeys,
    /// `[rounds][tau]`: each value goes to one slot.
    rounds: Vec<Vec<RoundSecrets>>,
    arrived: Vec<bool>,
    missing: usize,
    origin: Origin,
}

impl Batch {
    /// What the server needs for this batch: public.
    pub fn keys(&self) -> &EvaluationKeys {
        &self.keys
    }

    /// The wire form of its slots.
    pub fn form(&self) -> WireForm {
        self.form
    }

    /// Checks that the next blocks are `first_block..first_block + sizes.len()`, each new and of `expected` words.
    fn check_blocks(
        &self,
        first_block: usize,
        expected: usize,
        sizes: impl ExactSizeIterator<Item = usize>,
    ) -> Result<()> {
        let end = first_block.saturating_add(sizes.len());
        Error::check_range("mask blocks", "within the layout", end <= self.arrived.len(), end)?;
        for (block, words) in (first_block..).zip(sizes) {
            Error::check("words of a mask block", expected, words)?;
            if self.arrived[block] {
                return Err(Error::DuplicateMask { block });
            }
        }
        Ok(())
    }

    fn mark_arrived(&mut self, first_block: usize, blocks: usize) {
        self.arrived[first_block..first_block + blocks].fill(true);
        self.missing -= blocks;
    }

    /// Adds mask bodies `first_block..` of the stateless form as they arrive, in any order, each once.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for a batch of another form, [`Error::OutOfRange`] for a block outside the layout,
    /// [`Error::Mismatch`] for one of another size, [`Error::DuplicateMask`]. Nothing is kept of a refused call.
    pub fn accept_mask_words(&mut self, first_block: usize, blocks: &[MaskWords]) -> Result<()> {
        let WireForm::Stateless(_) = self.form else {
            return Err(Error::WrongForm { expected: "stateless", got: self.form.name() });
        };
        let n = self.instance.params().n();
        self.check_blocks(first_block, n, blocks.iter().map(|block| block.words().len()))?;
        for (group, blocks) in blocks.chunks(HAND_OUT_GROUP).enumerate() {
            let words = blocks.iter().flat_map(|block| block.words()).copied().collect::<Vec<_>>();
            let first = first_block + group * HAND_OUT_GROUP;
            self.store_corrections(first..first + blocks.len(), &words);
        }
        self.mark_arrived(first_block, blocks.len());
        Ok(())
    }

    /// `-(a' s)` into all corrections: the client's work ahead in the session forms.
    fn subtract_products(&mut self, session: &ClientSession) -> Result<()> {
        let (blocks, n) = (self.arrived.len(), self.instance.params().n());
        let mut products = SecretHalves::zeroed(HAND_OUT_GROUP.min(blocks) * n);
        for first in (0..blocks).step_by(HAND_OUT_GROUP) {
            let group = first..blocks.min(first + HAND_OUT_GROUP);
            let (instance, secret) = (&self.instance, &self.secret);
            let products = &mut products[..group.len() * n];
            products.par_chunks_exact_mut(n).zip(group.clone()).try_for_each_init(
                || ProductScratch::new(n),
                |scratch, (out, block)| {
                    session.load_mask(block, out)?;
                    scratch.minus_product(instance, secret, out);
                    Ok::<_, Error>(())
                },
            )?;
            self.store_corrections(group, products);
        }
        Ok(())
    }

    /// Decrypts mask blocks `first_block..` of the full form as they arrive, in any order, each once.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for a batch of a session form, [`Error::OutOfRange`] for a block outside the layout,
    /// [`Error::Mismatch`] for one of another size, [`Error::DuplicateMask`]. Nothing is kept of a refused call.
    pub fn accept_masks(&mut self, first_block: usize, masks: &[MaskBlock]) -> Result<()> {
        if self.form != WireForm::Full {
            return Err(Error::WrongForm { expected: "full", got: self.form.name() });
        }
        let n = self.instance.params().n();
        self.check_blocks(first_block, 2 * n, masks.iter().map(|mask| mask.words().len()))?;
        let mut phases = SecretHalves::zeroed(HAND_OUT_GROUP.min(masks.len()) * n);
        for (group, masks) in masks.chunks(HAND_OUT_GROUP).enumerate() {
            let (instance, secret) = (&self.instance, &self.secret);
            phases.par_chunks_exact_mut(n).zip(masks).for_each_init(
                || ProductScratch::new(n),
                |scratch, (phase, mask)| {
                    let (a, b) = mask.words().split_at(n);
                    phase.copy_from_slice(a);
                    scratch.minus_product(instance, secret, phase);
                    phase.iter_mut().zip(b).for_each(|(phase, &b)| *phase = phase.wrapping_add(b));
                },
            );
            let first = first_block + group * HAND_OUT_GROUP;
            self.store_corrections(first..first + masks.len(), &phases);
        }
        self.mark_arrived(first_block, masks.len());
        Ok(())
    }

    /// Adds the phases of `blocks`, coefficient `r + phi t`, to the corrections of rows and tokens.
    fn store_corrections(&mut self, blocks: Range<usize>, phases: &[u32]) {
        let (layout, n, phi) =
            (self.instance.layout(), self.instance.params().n(), self.instance.params().phi());
        let given = blocks.start * phi..blocks.end * phi;
        for round in layout.rounds_of(blocks.start).start..layout.rounds_of(blocks.end - 1).end {
            let rows = layout.round_rows(round);
            let (start, end) = (rows.start.max(given.start), rows.end.min(given.end));
            for (token, secrets) in self.rounds[round].iter_mut().enumerate() {
                let corrections = &mut secrets.corrections[start - rows.start..end - rows.start];
                let add = |out: &mut u32, word: u32| *out = out.wrapping_add(word);
                scatter(phases, n, phi, token, start - given.start, corrections, add);
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
        let Self { instance, form, rounds, origin, .. } = self;
        let mut slots: Vec<Vec<Option<RoundSecrets>>> =
            (0..instance.params().tau()).map(|_| Vec::with_capacity(rounds.len())).collect();
        for tokens in rounds {
            slots.iter_mut().zip(tokens).for_each(|(slot, secrets)| slot.push(Some(secrets)));
        }
        Ok(slots.into_iter().map(|rounds| Slot::new(Arc::clone(&instance), form, origin, rounds)).collect())
    }
}

/// Buffers of one product with the secret.
struct ProductScratch {
    product: SecretWords,
    mask: Vec<u64>,
    no_noise: Vec<i8>,
}

impl ProductScratch {
    fn new(n: usize) -> Self {
        Self { product: SecretWords::zeroed(n), mask: vec![0; n], no_noise: vec![0; n] }
    }

    /// `-(a s)` in 32-bit words, in place of the left-aligned words of `a`.
    fn minus_product(&mut self, instance: &Instance, secret: &[u64], words: &mut [u32]) {
        let ring = instance.ring();
        let (isa, modulus) = (ring.isa(), ring.modulus());
        pointwise::switch_up(isa, modulus, words, &mut self.mask);
        ring.forward(&mut self.mask);
        pointwise::mul(isa, modulus, &self.mask, secret, &mut self.product);
        ring.inverse(&mut self.product);
        let switch = Switch::new(modulus, WORD_BITS);
        pointwise::switch_noisy(isa, &switch, &mut self.product, &self.no_noise);
        for (word, &product) in words.iter_mut().zip(self.product.iter()) {
            *word = (product as u32).wrapping_neg();
        }
    }
}
