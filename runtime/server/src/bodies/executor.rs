//! The border to `fhe_layers`: bytes in, bytes out.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use fhe_layers::{
    Body, EvaluationKeys, ExpandedKeys, Instance, MaskBlock, MaskJob, PrepareOptions, PreparedModel,
    ServerSession, ServerWeights, TableForm, Widths, WireForm, WordBody, WordQuery, WordsJob, body_half,
    word_half,
};
use rayon::prelude::*;

use crate::masks::kept::{KeptBatch, NamedSlots};
use crate::models::split_store;
use crate::models::split_store::SplitEntry;
use crate::ops::config::{Form, ServerConfig};
use crate::transport::listen::{BACKGROUND_NICE, pool};
use sotto_protocol::binding::spendable;
use sotto_protocol::error::{Error, Result};
use sotto_storage::available_bytes;

/// From this many tokens on, bodies are read on all cores.
const PARALLEL_TOKENS: usize = 16;

/// The int8 weights of a model: all that a body replica needs.
pub(crate) struct Weights {
    instance: Arc<Instance>,
    packed: Arc<ServerWeights>,
}

impl Weights {
    /// Reads and packs the weights of a split.
    pub(crate) fn load(entry: &SplitEntry) -> Result<Self> {
        let instance = Arc::new(split_store::entry_instance(entry)?);
        let packed = Arc::new(split_store::load_weights(entry, &instance)?);
        Ok(Self { instance, packed })
    }

    /// Serialized size of a body of `round` in `form`, which the caller has checked.
    pub(crate) fn body_bytes(&self, form: WireForm, round: usize) -> usize {
        let rounds = self.instance.layout().rounds();
        rounds.get(round).map_or(0, |spec| form.body_bytes(spec.d_in))
    }

    /// Replies to `tokens` bodies of `round` in `form`, serialized one after another; on the current rayon pool. `named`:
    /// the slots of the tokens in the lean form, each claimed before anything is computed.
    ///
    /// # Errors
    /// [`Error::Malformed`] for other bytes than the form's; [`Error::SlotReused`], [`Error::BatchDead`].
    pub(crate) fn answer(
        &self,
        form: WireForm,
        round: usize,
        tokens: usize,
        bodies: &[u8],
        named: &NamedSlots,
    ) -> Result<Bytes> {
        let size = self.body_bytes(form, round);
        if tokens == 0 || bodies.len() != tokens * size {
            return Err(Error::Malformed {
                field: "bodies",
                expected: format!("{} bytes", tokens * size),
                got: format!("{} bytes", bodies.len()),
            });
        }
        match form {
            WireForm::Full => self.bodies(round, tokens, bodies),
            WireForm::Lean(widths) if named.len() == tokens => {
                self.words(widths, round, size, bodies, Some(named))
            }
            WireForm::Lean(_) => Err(Error::Malformed {
                field: "slots",
                expected: format!("{tokens} named"),
                got: format!("{} named", named.len()),
            }),
            WireForm::Stateless(widths) => self.words(widths, round, size, bodies, None),
        }
    }

    fn words(
        &self,
        widths: Widths,
        round: usize,
        size: usize,
        bytes: &[u8],
        named: Option<&NamedSlots>,
    ) -> Result<Bytes> {
        let layout = self.instance.layout();
        let spec = layout.round(round)?;
        let read = |bytes: &[u8]| WordBody::from_bytes(widths, spec.d_in, bytes);
        let bodies: fhe_layers::Result<Vec<WordBody>> = if bytes.len() < PARALLEL_TOKENS * size {
            bytes.chunks_exact(size).map(read).collect()
        } else {
            bytes.par_chunks_exact(size).map(read).collect()
        };
        let bodies = bodies.map_err(|error| from_peer("bodies", &error))?;
        let batches = named.map_or(&[][..], NamedSlots::batches);
        let reading = batches.iter().map(|batch| batch.read()).collect::<Result<Vec<_>>>()?;
        let mut queries = Vec::with_capacity(bodies.len());
        for (token, (body, bytes)) in bodies.iter().zip(bytes.chunks_exact(size)).enumerate() {
            let words = match named {
                None => None,
                Some(named) => {
                    let (batch, slot) = named.slots()[token];
                    let lean = reading[batch].as_ref().ok_or(Error::BatchDead)?;
                    Some(lean.claim(layout, slot, round, bytes).map_err(refused_slot)?.1)
                }
            };
            queries.push(WordQuery { body, words });
        }
        let replies = word_half(&self.packed, round, &queries, widths)?;
        let mut out = Vec::with_capacity(replies.len() * (spec.rows() * widths.reply() as usize).div_ceil(8));
        replies.iter().for_each(|reply| reply.write(&mut out));
        Ok(out.into())
    }

    /// Replies to `tokens` bodies of `round`, serialized one after another, in the full form.
    fn bodies(&self, round: usize, tokens: usize, bodies: &[u8]) -> Result<Bytes> {
        let spec = self.instance.layout().round(round)?;
        let size = self.body_bytes(WireForm::Full, round);
        let read = |bytes: &[u8]| Body::from_bytes(spec.d_in, bytes);
        let bodies: fhe_layers::Result<Vec<Body>> = if tokens < PARALLEL_TOKENS {
            bodies.chunks_exact(size).map(read).collect()
        } else {
            bodies.par_chunks_exact(size).map(read).collect()
        };
        let bodies = bodies.map_err(|error| from_peer("bodies", &error))?;
        let mut out = Vec::with_capacity(tokens * spec.rows() * fhe_layers::ciphertext::REPLY_WORD_BYTES);
        for reply in body_half(&self.packed, round, &bodies)? {
            reply.write(&mut out);
        }
        Ok(out.into())
    }
}

/// A client's evaluation keys, checked and in the form that the mask half reads.
pub(crate) struct Keys(ExpandedKeys);

/// One batch of a pass over the tables.
pub(crate) struct MaskBatch {
    pub(crate) keys: Arc<Keys>,
    /// Determines the re-randomisation.
    pub(crate) seed: [u8; 32],
}

/// One batch of a session in a pass over the tables.
pub(crate) struct SessionBatch {
    pub(crate) keys: Arc<Keys>,
    pub(crate) session: Arc<ServerSession>,
    /// Where the words stay, in the lean form.
    pub(crate) kept: Option<Arc<KeptBatch>>,
}

/// The prepared tables of a model: all that a mask worker needs.
pub(crate) struct Tables {
    tables: Arc<PreparedModel>,
    /// What they are to become.
    form: TableForm,
}

impl Tables {
    /// Maps and checks saved tables, on the current rayon pool; `None` if they are damaged, or those of another model,
    /// plan, parameter set or version of the format: whoever prepares them again writes over them.
    pub(crate) fn load(entry: &SplitEntry, form: Form) -> Result<Option<Self>> {
        let instance = Arc::new(split_store::entry_instance(entry)?);
        let path = entry.tables_path();
        let bytes = crate::models::mmap::map(&path)?;
        match PreparedModel::load(instance, Arc::new(bytes), TableForm::Compact) {
            Ok(tables) => Ok(Some(Self::new(tables, form))),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "saved tables are of no use; they are prepared again");
                Ok(None)
            }
        }
    }

    /// Prepares tables on threads of its own.
    pub(crate) fn prepare(weights: &Weights, config: &ServerConfig) -> Result<Self> {
        let progress = |done, all| {
            tracing::info!(done, all, "preparing tables");
            true
        };
        let tables = pool(config.threads, "sotto-prepare", None)?.install(|| {
            let options = PrepareOptions { progress: &progress };
            let (instance, weights) = (Arc::clone(&weights.instance), Arc::clone(&weights.packed));
            PreparedModel::prepare(instance, weights, TableForm::Compact, &options)
        })?;
        Ok(Self::new(tables, config.form))
    }

    fn new(tables: PreparedModel, form: Form) -> Self {
        let form = table_form(form, tables.instance());
        Self { tables: Arc::new(tables), form }
    }

    /// What goes on while the tables serve, on a thread that whoever stops the server must join: saving them to
    /// `save_to`, and turning them into the NTT form where that is wanted, until `keep_on` says no.
    pub(crate) fn improve(
        &self,
        save_to: Option<PathBuf>,
        keep_on: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Result<JoinHandle<()>> {
        let (tables, form) = (Arc::clone(&self.tables), self.form);
        let background = pool(1, "sotto-improve", Some(BACKGROUND_NICE))?;
        let improve = move || {
            if let Some(server_dir) = save_to
                && let Err(error) = background.install(|| split_store::save_tables(&server_dir, &tables))
            {
                tracing::warn!(%error, "the tables were not saved; the next start prepares them again");
            }
            if form == TableForm::Ntt
                && let Err(error) = background.install(|| tables.expand(&*keep_on))
            {
                tracing::debug!(%error, "the tables stay compact");
            }
        };
        std::thread::Builder::new()
            .name("sotto-improve".to_owned())
            .spawn(improve)
            .map_err(|source| Error::Io { context: "starting a thread".to_owned(), source })
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables.table_bytes() as u64
    }

    /// The instance.
    pub(crate) fn instance(&self) -> &Instance {
        self.tables.instance()
    }

    /// Reads and checks keys for `form`.
    pub(crate) fn keys(&self, form: WireForm, bytes: &[u8]) -> Result<Keys> {
        let instance = self.tables.instance();
        let keys = EvaluationKeys::from_bytes(instance.params(), bytes)
            .map_err(|error| from_peer("keys", &error))?;
        Ok(Keys(match form {
            WireForm::Full => ExpandedKeys::new(instance, &keys),
            WireForm::Lean(_) | WireForm::Stateless(_) => ExpandedKeys::for_session(instance, &keys),
        }))
    }

    /// Whether `keys` belong to `session`.
    pub(crate) fn check_session(keys: &Keys, session: &ServerSession) -> Result<()> {
        WordsJob::new(&keys.0, session).map(drop).map_err(|error| from_peer("keys", &error))
    }

    /// Shared masks of `blocks`, packed, on the current rayon pool.
    pub(crate) fn shared_masks(&self, session: &ServerSession, blocks: Range<usize>) -> Result<Vec<Vec<u8>>> {
        Ok(self.tables.shared_masks(session, blocks)?)
    }

    /// Computes `blocks` for every batch of a session in one pass, on the current rayon pool. Lean words go to their
    /// batch and leave an empty buffer; stateless ones are returned, serialized in order.
    pub(crate) fn words(
        &self,
        batches: &[Arc<SessionBatch>],
        blocks: Range<usize>,
    ) -> Result<Vec<Result<Bytes>>> {
        let params = self.tables.instance().params();
        let jobs = batches
            .iter()
            .map(|batch| WordsJob::new(&batch.keys.0, &batch.session))
            .collect::<fhe_layers::Result<Vec<_>>>()?;
        let size = |job: usize| batches[job].session.form().batch_block_bytes(params);
        let empty = |job| Mutex::new(Ok(vec![0; blocks.len() * size(job)]));
        let buffers: Vec<Mutex<Result<Vec<u8>>>> = (0..jobs.len()).map(empty).collect();
        self.tables.mask_words(&jobs, blocks.clone(), &|| true, &|job, block, words| {
            let outcome = match &batches[job].kept {
                Some(kept) => kept.store(block, &words).map(|()| Vec::new()),
                None => {
                    let mut bytes = Vec::with_capacity(size(job));
                    words.write(&mut bytes);
                    Ok(bytes)
                }
            };
            let mut buffer = buffers[job].lock().unwrap_or_else(PoisonError::into_inner);
            match (outcome, &mut *buffer) {
                (Ok(bytes), Ok(buffer)) => {
                    let at = (block - blocks.start) * bytes.len();
                    buffer[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                (Err(error), buffer @ Ok(_)) => *buffer = Err(error),
                (_, Err(_)) => {}
            }
        })?;
        let bytes =
            |buffer: Mutex<Result<Vec<u8>>>| buffer.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(buffers.into_iter().map(|buffer| bytes(buffer).map(Bytes::from)).collect())
    }

    /// Computes `blocks` for every batch in one pass, on the current rayon pool; returns one buffer per batch with
    /// the blocks serialized in order.
    pub(crate) fn masks(&self, batches: &[Arc<MaskBatch>], blocks: Range<usize>) -> Result<Vec<Bytes>> {
        let jobs: Vec<MaskJob<'_>> =
            batches.iter().map(|batch| MaskJob { keys: &batch.keys.0, seed: batch.seed }).collect();
        let size = MaskBlock::byte_len(self.tables.instance().params());
        let empty = || vec![0; blocks.len() * size];
        let buffers: Vec<Mutex<Vec<u8>>> = jobs.iter().map(|_| Mutex::new(empty())).collect();
        self.tables.mask_half(&jobs, blocks.clone(), &|| true, &|job, block, mask| {
            let mut buffer = buffers[job].lock().unwrap_or_else(PoisonError::into_inner);
            let at = (block - blocks.start) * size;
            buffer[at..at + size].copy_from_slice(&mask.bytes());
        })?;
        Ok(buffers
            .into_iter()
            .map(|buffer| buffer.into_inner().unwrap_or_else(PoisonError::into_inner).into())
            .collect())
    }
}

/// What a client sent does not decode: its fault, not the server's.
fn from_peer(field: &'static str, error: &fhe_layers::Error) -> Error {
    Error::Malformed { field, expected: "the form in docs/protocol.md".to_owned(), got: error.to_string() }
}

/// A slot that cannot be claimed: of a copy of the client, or of a batch that is not ready.
fn refused_slot(error: fhe_layers::Error) -> Error {
    match error {
        fhe_layers::Error::SlotReused { .. } | fhe_layers::Error::SlotReleased { .. } => Error::SlotReused,
        other => from_peer("slots", &other),
    }
}

/// The NTT form where the free memory allows it, else the compact one.
fn table_form(form: Form, instance: &Instance) -> TableForm {
    match form {
        Form::Ntt => TableForm::Ntt,
        Form::Compact => TableForm::Compact,
        Form::Auto => {
            let rows = instance.layout().total_rows();
            let ntt_bytes = PreparedModel::bytes_for(instance.params(), rows, TableForm::Ntt);
            let fits = available_bytes().is_none_or(|free| ntt_bytes <= spendable(free));
            if fits { TableForm::Ntt } else { TableForm::Compact }
        }
    }
}
