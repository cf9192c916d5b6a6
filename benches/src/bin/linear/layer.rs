//! The measured layer, both sides of it in one process, in any wire form.

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use benches::stats::time_ms;
use fhe_layers::{
    Batch, Body, Client, ClientOptions, ClientSession, ExactMode, ExpandedKeys, Instance, LeanBatch,
    MaskBlock, MaskJob, MaskWords, MatrixSpec, ModelDigest, NoiseRng, PendingReply, PrepareOptions,
    PreparedModel, RawMatrix, RawRound, RoundSpec, ServerSession, ServerWeights, SessionDownload,
    SessionSeed, Set, Slot, TableForm, WireForm, WordBody, WordQuery, WordReply, WordsJob, body_half,
    kernels::Isa, word_half,
};
use rand::Rng as _;

/// One matrix and everything both sides need for it.
pub(crate) struct Layer {
    pub(crate) instance: Arc<Instance>,
    pub(crate) weights: Arc<ServerWeights>,
    pub(crate) raw: Vec<i8>,
    pub(crate) d_in: usize,
    pub(crate) max_row_norm: f64,
}

/// What a layer is made of besides its weights.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) set: Set,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) tau: usize,
    pub(crate) isa: Isa,
}

impl Layer {
    pub(crate) fn new(shape: Shape, digest: u8, raw: Vec<i8>) -> anyhow::Result<Self> {
        let Shape { set, d_in, d_out, tau, isa } = shape;
        let rounds = vec![RoundSpec { d_in, matrices: vec![MatrixSpec { rows: d_out, columns: 0..d_in }] }];
        let digest = ModelDigest([digest; 32]);
        let instance = Arc::new(Instance::with_isa(set.params(tau)?, rounds, digest, "bench", isa)?);
        let matrices = [RawRound { matrices: vec![RawMatrix { columns: 0..d_in, weights: &raw }] }];
        let weights = Arc::new(ServerWeights::with_isa(instance.layout(), &matrices, isa)?);
        let norm = |row: &[i8]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
        let max_row_norm = raw.chunks(d_in).map(norm).fold(0.0, f64::max);
        Ok(Self { instance, weights, raw, d_in, max_row_norm })
    }

    pub(crate) fn prepare(&self, form: TableForm) -> anyhow::Result<PreparedModel> {
        let (instance, weights) = (Arc::clone(&self.instance), Arc::clone(&self.weights));
        Ok(PreparedModel::prepare(instance, weights, form, &PrepareOptions::default())?)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.instance.layout().blocks()
    }

    pub(crate) fn rows(&self) -> usize {
        self.instance.layout().total_rows()
    }

    pub(crate) fn client(&self, options: ClientOptions) -> Client {
        Client::new(Arc::clone(&self.instance), options)
    }
}

/// A session's two sides.
pub(crate) struct Session {
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    /// Milliseconds that the server took for the shared masks.
    pub(crate) server_ms: f64,
}

/// The wire form in use, with its session where it has one.
pub(crate) struct Wire {
    pub(crate) form: WireForm,
    pub(crate) session: Option<Session>,
}

impl Wire {
    pub(crate) fn open(layer: &Layer, tables: &PreparedModel, form: WireForm) -> anyhow::Result<Self> {
        if form == WireForm::Full {
            return Ok(Self { form, session: None });
        }
        let (instance, seed) = (&layer.instance, SessionSeed::from_os()?);
        let server = ServerSession::new(instance, form, &random_bytes(), b"bench", seed)?;
        let (masks, server_ms) = time_ms(|| tables.shared_masks(&server, 0..layer.blocks()));
        let mut download = SessionDownload::new(Arc::clone(instance), form, seed)?;
        masks?.iter().try_for_each(|packed| download.accept(packed))?;
        let client = download.finish(&tables.shared_masks_hash(&server)?)?;
        Ok(Self { form, session: Some(Session { client, server, server_ms }) })
    }

    /// Bytes that a session downloads once.
    pub(crate) fn session_bytes(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.client.packed_masks().len())
    }

    pub(crate) fn new_batch(&self, client: &Client) -> anyhow::Result<Batch> {
        Ok(match &self.session {
            None => client.new_batch()?,
            Some(session) => client.new_session_batch(&session.client)?,
        })
    }

    pub(crate) fn expand(&self, layer: &Layer, batch: &Batch) -> ExpandedKeys {
        match self.session {
            None => ExpandedKeys::new(&layer.instance, batch.keys()),
            Some(_) => ExpandedKeys::for_session(&layer.instance, batch.keys()),
        }
    }

    /// The mask half of up to four batches, results dropped.
    pub(crate) fn mask_pass(
        &self,
        layer: &Layer,
        tables: &PreparedModel,
        keys: &[ExpandedKeys],
    ) -> anyhow::Result<()> {
        let blocks = 0..layer.blocks();
        match &self.session {
            None => {
                let jobs: Vec<MaskJob<'_>> =
                    keys.iter().map(|keys| MaskJob { keys, seed: [3; 32] }).collect();
                let sink = |_: usize, _: usize, mask: MaskBlock| drop(std::hint::black_box(mask));
                tables.mask_half(&jobs, blocks, &|| true, &sink)?;
            }
            Some(session) => {
                let jobs = keys.iter().map(|keys| WordsJob::new(keys, &session.server));
                let jobs: Vec<WordsJob<'_>> = jobs.collect::<Result<_, _>>()?;
                let sink = |_: usize, _: usize, words: MaskWords| drop(std::hint::black_box(words));
                tables.mask_words(&jobs, blocks, &|| true, &sink)?;
            }
        }
        Ok(())
    }

    /// A batch that both sides are ready for.
    pub(crate) fn ready(&self, layer: &Layer, tables: &PreparedModel) -> anyhow::Result<Ready> {
        let client = layer.client(ClientOptions::default());
        let mut batch = self.new_batch(&client)?;
        let keys = self.expand(layer, &batch);
        let (mut kept, mut decrypt_ms) = (None, 0.0);
        match &self.session {
            None => {
                let masks = Mutex::new(vec![None; layer.blocks()]);
                let job = MaskJob { keys: &keys, seed: random_bytes() };
                tables.mask_half(&[job], 0..layer.blocks(), &|| true, &|_, block, mask| {
                    put(&masks, block, mask);
                })?;
                let masks = complete(masks)?;
                let (accepted, ms) = time_ms(|| batch.accept_masks(0, &masks));
                accepted?;
                decrypt_ms = ms;
            }
            Some(session) => {
                let words = Mutex::new(vec![None; layer.blocks()]);
                let job = WordsJob::new(&keys, &session.server)?;
                tables.mask_words(&[job], 0..layer.blocks(), &|| true, &|_, block, body| {
                    put(&words, block, body);
                })?;
                let words = complete(words)?;
                if self.form.keeps_words() {
                    let mut lean = LeanBatch::new(&layer.instance);
                    words.iter().enumerate().try_for_each(|(block, words)| lean.words.store(block, words))?;
                    kept = Some(lean);
                } else {
                    let mut bytes = Vec::new();
                    words.iter().for_each(|words| words.write(&mut bytes));
                    let (read, ms) = time_ms(|| {
                        let words = MaskWords::read_all(layer.instance.params(), self.form, &bytes)?;
                        batch.accept_mask_words(0, &words)
                    });
                    read?;
                    decrypt_ms = ms;
                }
            }
        }
        Ok(Ready { slots: batch.into_slots()?, kept, decrypt_ms })
    }
}

fn put<T>(found: &Mutex<Vec<Option<T>>>, block: usize, value: T) {
    if let Ok(mut found) = found.lock() {
        found[block] = Some(value);
    }
}

fn complete<T>(found: Mutex<Vec<Option<T>>>) -> anyhow::Result<Vec<T>> {
    let found = found.into_inner().ok().context("a thread of the mask half panicked")?;
    found.into_iter().collect::<Option<Vec<_>>>().context("a mask block is missing")
}

/// Slots, and what the server kept for them.
pub(crate) struct Ready {
    pub(crate) slots: Vec<Slot>,
    pub(crate) kept: Option<LeanBatch>,
    /// Milliseconds in which the client took in what was sent ahead.
    pub(crate) decrypt_ms: f64,
}

/// A body in either format.
pub(crate) enum Encrypted {
    Full(Body),
    Words(WordBody),
}

impl Encrypted {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Full(body) => body.to_bytes(),
            Self::Words(body) => body.to_bytes(),
        }
    }
}

/// A reply in either format.
pub(crate) enum Answered {
    Full(fhe_layers::Reply),
    Words(WordReply),
}

impl Answered {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Full(reply) => reply.to_bytes(),
            Self::Words(reply) => reply.to_bytes(),
        }
    }

    pub(crate) fn decode(&self, pending: PendingReply, out: &mut [f32]) -> fhe_layers::Result<()> {
        match self {
            Self::Full(reply) => pending.decode(reply, out),
            Self::Words(reply) => pending.decode_words(reply, out),
        }
    }

    pub(crate) fn decode_exact(&self, pending: PendingReply) -> fhe_layers::Result<Vec<i64>> {
        match self {
            Self::Full(reply) => pending.decode_exact(reply),
            Self::Words(reply) => pending.decode_exact_words(reply),
        }
    }
}

/// Encrypts `x` in the slot's form.
pub(crate) fn encrypt(
    slot: &mut Slot,
    x: &[f32],
    max_row_norm: f64,
    rng: &mut NoiseRng,
) -> fhe_layers::Result<(Encrypted, PendingReply)> {
    Ok(if slot.form() == WireForm::Full {
        let (body, pending) = slot.encrypt(0, x, max_row_norm, rng)?;
        (Encrypted::Full(body), pending)
    } else {
        let (body, pending) = slot.encrypt_words(0, x, max_row_norm, rng)?;
        (Encrypted::Words(body), pending)
    })
}

/// As [`encrypt`] for integers.
pub(crate) fn encrypt_exact(
    slot: &mut Slot,
    x: &[i64],
    exact: &ExactMode,
    rng: &mut NoiseRng,
) -> fhe_layers::Result<(Encrypted, PendingReply)> {
    Ok(if slot.form() == WireForm::Full {
        let (body, pending) = slot.encrypt_exact(0, x, exact, rng)?;
        (Encrypted::Full(body), pending)
    } else {
        let (body, pending) = slot.encrypt_exact_words(0, x, exact, rng)?;
        (Encrypted::Words(body), pending)
    })
}

/// The server's answer to the body of slot `slot`.
pub(crate) fn answer(
    layer: &Layer,
    form: WireForm,
    kept: Option<&LeanBatch>,
    slot: usize,
    body: &Encrypted,
) -> anyhow::Result<Answered> {
    Ok(match (body, form.widths()) {
        (Encrypted::Words(body), Some(widths)) => {
            let layout = layer.instance.layout();
            let words = kept.map(|batch| batch.words.slot(layout, slot, 0)).transpose()?;
            Answered::Words(word_half(&layer.weights, 0, &[WordQuery { body, words }], widths)?.remove(0))
        }
        (Encrypted::Full(body), None) => {
            Answered::Full(body_half(&layer.weights, 0, std::slice::from_ref(body))?.remove(0))
        }
        _ => anyhow::bail!("a body of another form"),
    })
}

pub(crate) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
