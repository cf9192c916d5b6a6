//! The server's side of one layer: weights, tables, and answers to bytes. The same code as `sotto serve` runs, without
//! network, credential and meter.

use std::sync::{Arc, Mutex, PoisonError};

use fhe_layers::{
    Body, EvaluationKeys, ExpandedKeys, Instance, LeanBatch, LinearServer, MaskBlock, MaskJob, MatrixSpec,
    ModelDigest, PrepareOptions, PreparedModel, RawMatrix, RawRound, RoundSpec, ServerSession, ServerWeights,
    SessionSeed, TableForm, Widths, WireForm, WordBody, WordQuery, WordReply, WordsJob, word_half,
};
use sotto_models::split::ServerPart;
use sotto_models::split::plan::PlanRound;

use sotto_protocol::error::{Error, Result};

/// One round of a split, served alone.
pub(super) struct LayerServer {
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    tables: PreparedModel,
}

impl LayerServer {
    /// Reads the weights of round `round` and prepares its tables.
    ///
    /// # Errors
    /// What reading or preparing fails with.
    pub(super) fn new(part: &ServerPart, round: usize) -> Result<Self> {
        let spec = &part.plan().rounds[round];
        let instance = Arc::new(layer_instance(part, spec)?);
        let matrices = part.round(round)?;
        let raw = spec
            .matrices
            .iter()
            .zip(&matrices)
            .map(|(spec, matrix)| RawMatrix { columns: spec.columns.clone(), weights: &matrix.weights });
        let raw = [RawRound { matrices: raw.collect() }];
        let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
        let options = PrepareOptions::default();
        let (shared, served) = (Arc::clone(&instance), Arc::clone(&weights));
        let tables = PreparedModel::prepare(shared, served, TableForm::Compact, &options)?;
        Ok(Self { instance, weights, tables })
    }

    /// What client and server agree on.
    pub(super) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The mask blocks of a batch, in order, for its serialized keys.
    ///
    /// # Errors
    /// [`Error::FheLayers`] for malformed keys.
    pub(super) fn masks(&self, keys: &[u8], seed: [u8; 32]) -> Result<Vec<MaskBlock>> {
        let keys = EvaluationKeys::from_bytes(self.instance.params(), keys)?;
        let keys = ExpandedKeys::new(&self.instance, &keys);
        let blocks = self.instance.layout().blocks();
        let done = Mutex::new(Vec::with_capacity(blocks));
        self.tables.mask_half(&[MaskJob { keys: &keys, seed }], 0..blocks, &|| true, &|_, block, mask| {
            done.lock().unwrap_or_else(PoisonError::into_inner).push((block, mask));
        })?;
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(block, _)| *block);
        Ok(done.into_iter().map(|(_, mask)| mask).collect())
    }

    /// The words of a lean batch whose keys have the polynomials `polynomials`, as they travel.
    ///
    /// # Errors
    /// [`Error::FheLayers`] for malformed keys.
    pub(super) fn kept_words(
        &self,
        form: WireForm,
        seed: SessionSeed,
        polynomials: &[u8],
    ) -> Result<LeanBatch> {
        let (instance, params) = (&self.instance, self.instance.params());
        let mut bytes = Vec::with_capacity(EvaluationKeys::byte_len(params));
        bytes.extend_from_slice(b"SKY1");
        bytes.extend_from_slice(&fhe_layers::ciphertext::WIRE_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(params.id().len() as u16).to_le_bytes());
        bytes.extend_from_slice(params.id().as_bytes());
        bytes.extend_from_slice(seed.bytes());
        bytes.extend_from_slice(polynomials);
        let keys = ExpandedKeys::for_session(instance, &EvaluationKeys::from_bytes(params, &bytes)?);
        // The server's secret: any will do, since it belongs to this process alone.
        let session = ServerSession::new(instance, form, seed.bytes(), b"audit", seed)?;
        let kept = Mutex::new(LeanBatch::new(instance));
        let failed = Mutex::new(None);
        let jobs = [WordsJob::new(&keys, &session)?];
        self.tables.mask_words(&jobs, 0..instance.layout().blocks(), &|| true, &|_, block, words| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = kept.words.store(block, &words) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        })?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(kept.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Replies to `bodies`, in the slots 0, 1, ... of `kept` in the lean form.
    ///
    /// # Errors
    /// [`Error::FheLayers`] for bodies of another length, or too many for the slots.
    pub(super) fn answer_words(
        &self,
        widths: Widths,
        bodies: &[WordBody],
        kept: Option<&LeanBatch>,
    ) -> Result<Vec<WordReply>> {
        let layout = self.instance.layout();
        let mut queries = Vec::with_capacity(bodies.len());
        for (slot, body) in bodies.iter().enumerate() {
            let words = match kept {
                Some(batch) => Some(batch.claim(layout, slot, 0, &body.to_bytes())?.1),
                None => None,
            };
            queries.push(WordQuery { body, words });
        }
        Ok(word_half(&self.weights, 0, &queries, widths)?)
    }

    /// Replies to bodies, one after another as they travel.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless `bodies` is a whole number of bodies.
    pub(super) fn answer(&self, bodies: &[u8]) -> Result<Vec<u8>> {
        let d_in = self.instance.layout().round(0)?.d_in;
        let size = d_in * fhe_layers::ciphertext::BODY_WORD_BYTES;
        if !bodies.len().is_multiple_of(size) {
            return Err(Error::Malformed {
                field: "bodies",
                expected: format!("a multiple of {size} bytes"),
                got: format!("{} bytes", bodies.len()),
            });
        }
        let bodies = bodies.chunks_exact(size).map(|bytes| Body::from_bytes(d_in, bytes));
        let bodies = bodies.collect::<fhe_layers::Result<Vec<_>>>()?;
        let mut out = Vec::new();
        self.weights.answer(0, &bodies)?.iter().for_each(|reply| reply.write(&mut out));
        Ok(out)
    }
}

/// The layer's instance: the model's parameters and digest, one round, and a plan of its own so that its public masks are
/// nobody else's.
fn layer_instance(part: &ServerPart, spec: &PlanRound) -> Result<Instance> {
    let matrices = spec.matrices.iter();
    let matrices =
        matrices.map(|matrix| MatrixSpec { rows: matrix.rows, columns: matrix.columns.clone() }).collect();
    let round = RoundSpec { d_in: spec.d_in, matrices };
    let params = sotto_protocol::binding::params(&part.manifest().protocol)?;
    let plan = format!("audit of {}", spec.name);
    Ok(Instance::new(params, vec![round], ModelDigest(part.digest().0), &plan)?)
}
