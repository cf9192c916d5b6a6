//! The border to `fhe_layers`: bytes in, bytes out.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use fhe_layers::{
    Body, EvaluationKeys, ExpandedKeys, Instance, MaskBlock, MaskJob, PrepareOptions, PreparedModel,
    ServerWeights, TableForm, body_half,
};
use rayon::prelude::*;

use super::config::{Form, ServerConfig};
use super::listen::{BACKGROUND_NICE, pool};
use super::memory::available_bytes;
use crate::error::{Error, Result};
use crate::split_store::{self, SplitEntry};

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

    /// Serialized size of a body of `round`, which the caller has checked.
    pub(crate) fn body_bytes(&self, round: usize) -> usize {
        let rounds = self.instance.layout().rounds();
        rounds.get(round).map_or(0, |spec| spec.d_in * fhe_layers::ciphertext::BODY_WORD_BYTES)
    }

    /// Replies to `tokens` bodies of `round`, serialized one after another; on the current rayon pool.
    pub(crate) fn bodies(&self, round: usize, tokens: usize, bodies: &[u8]) -> Result<Bytes> {
        let spec = self.instance.layout().round(round)?;
        let size = self.body_bytes(round);
        if tokens == 0 || bodies.len() != tokens * size {
            return Err(Error::Malformed {
                field: "bodies",
                expected: format!("{} bytes", tokens * size),
                got: format!("{} bytes", bodies.len()),
            });
        }
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
pub(crate) struct Batch {
    pub(crate) keys: Arc<Keys>,
    /// Determines the re-randomisation.
    pub(crate) seed: [u8; 32],
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
        let bytes = crate::mmap::map(&path)?;
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

    /// Reads and checks keys.
    pub(crate) fn keys(&self, bytes: &[u8]) -> Result<Keys> {
        let instance = self.tables.instance();
        let keys = EvaluationKeys::from_bytes(instance.params(), bytes)
            .map_err(|error| from_peer("keys", &error))?;
        Ok(Keys(ExpandedKeys::new(instance, &keys)))
    }

    /// Computes `blocks` for every batch in one pass, on the current rayon pool; returns one buffer per batch with
    /// the blocks serialized in order.
    pub(crate) fn masks(&self, batches: &[Arc<Batch>], blocks: Range<usize>) -> Result<Vec<Bytes>> {
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

/// The NTT form where it leaves a third of the free memory, else the compact one.
fn table_form(form: Form, instance: &Instance) -> TableForm {
    match form {
        Form::Ntt => TableForm::Ntt,
        Form::Compact => TableForm::Compact,
        Form::Auto => {
            let ntt_bytes = 4 * PreparedModel::saved_bytes(instance);
            let fits = available_bytes().is_none_or(|free| ntt_bytes <= free / 3 * 2);
            if fits { TableForm::Ntt } else { TableForm::Compact }
        }
    }
}
