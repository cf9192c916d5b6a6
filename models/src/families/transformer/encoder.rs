//! Encoders: embeddings, the blocks, perhaps a token classifier.

use super::block::Tokens;
use super::pass::{Output, Stack, Wanted};
use crate::families::config::{EncoderConfig, ModelConfig, Pooling, Positions};
use crate::formats::WeightSource;
use crate::linear::LinearBackend;
use crate::local_ops::embedding::Embedding;
use crate::local_ops::norm::Norm;
use crate::model::check_ids;
use crate::split::plan::PlanKind;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// An encoder, with a token classifier if its configuration has labels.
///
/// A pass takes several sequences at once; they are laid end to end, so that every round carries the tokens of all of
/// them, and attend only to themselves. The caller brackets the call with the backend's `begin_pass` and `end_pass`
/// ([`crate::linear::run_pass`] does).
pub struct Encoder {
    config: ModelConfig,
    encoder: EncoderConfig,
    words: Embedding,
    /// `[positions, hidden]`, the first token type added, where positions are learned.
    positions: Option<Tensor>,
    /// The first token type, where positions are rotated.
    first_type: Option<Tensor>,
    norm: Norm,
    stack: Stack,
}

impl Encoder {
    /// An encoder of a plan's local tensors ([`ModelConfig::local_tensors`]) and the embedding.
    ///
    /// # Errors
    /// If the configuration is unusable or a tensor is missing or misshapen.
    pub fn new(
        config: ModelConfig,
        kind: PlanKind,
        local: &dyn WeightSource,
        words: Embedding,
    ) -> Result<Self> {
        let Some(encoder) = config.encoder.clone() else {
            return Err(Error::config("family", format!("{} is no encoder", config.family)));
        };
        let hidden = config.hidden_size;
        words.check(config.vocab_size, hidden)?;
        let first_type = match encoder.token_types {
            0 => None,
            types => Some(local.get_shaped("token_types.weight", &[types, hidden])?.narrow(0, 0, 1)?),
        };
        let positions = match &config.positions {
            Positions::Rotary { .. } => None,
            Positions::Learned => {
                let table = local.get_shaped("position_embd.weight", &[config.context_length, hidden])?;
                Some(match &first_type {
                    Some(first) => table.broadcast_add(first)?,
                    None => table,
                })
            }
        };
        let first_type = first_type.filter(|_| positions.is_none());
        let settings = config.norm;
        let norm = Norm::load(local, "token_embd_norm", hidden, settings.kind, settings.eps, settings.bias)?;
        let mut stack = Stack::new(config.clone(), kind, local)?;
        stack.reserve(config.context_length);
        Ok(Self { config, encoder, words, positions, first_type, norm, stack })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Labels of the token classifier, by index; none without one.
    pub fn labels(&self) -> &[String] {
        &self.encoder.labels
    }

    /// Whether the model ends in a token classifier.
    pub fn classifies(&self) -> bool {
        !self.encoder.labels.is_empty()
    }

    /// The longest sequence, special tokens included.
    pub fn max_positions(&self) -> usize {
        self.config.context_length
    }

    /// Hidden states of the last layer, `[tokens of all sequences, hidden]`, in the order of the sequences.
    ///
    /// # Errors
    /// If there is no sequence, one is empty or longer than the model's positions, or holds an id outside the
    /// vocabulary; or if the backend fails.
    pub fn encode(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        Ok(self.run(sequences, backend)?.hidden)
    }

    /// Logits of the token classifier, `[tokens of all sequences, labels]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and if the model has no classifier.
    pub fn classify(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        let head = self.run(sequences, backend)?.head;
        head.ok_or_else(|| Error::config("id2label", "the model has no token classifier"))
    }

    /// Sentence embeddings: of each sequence's hidden states what the configuration's [`Pooling`] says (the mean takes in
    /// special tokens, as sentence-transformers does), scaled to length 1. `[sequences, hidden]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn embed(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        let hidden = self.encode(sequences, backend)?;
        let embeddings = ranges(sequences)
            .into_iter()
            .map(|range| {
                let own = hidden.narrow(0, range.start, range.len())?;
                let pooled = match self.encoder.pooling {
                    Pooling::Mean => own.mean(0)?,
                    Pooling::First => own.get(0)?,
                };
                let length = pooled.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt().max(f32::MIN_POSITIVE);
                Ok((pooled / f64::from(length))?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&embeddings, 0)?)
    }

    fn run(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Output> {
        if sequences.is_empty() {
            return Err(Error::config("sequences", "a pass needs at least one"));
        }
        for ids in sequences {
            check_ids(ids, self.config.vocab_size, 0, self.config.context_length)?;
        }
        let mut h = self.words.rows(&sequences.concat())?;
        if let Some(table) = &self.positions {
            let positions: Vec<u32> = sequences.iter().flat_map(|ids| 0..ids.len() as u32).collect();
            h = (h + table.index_select(&Tensor::new(positions, &Device::Cpu)?, 0)?)?;
        }
        if let Some(first_type) = &self.first_type {
            h = h.broadcast_add(first_type)?;
        }
        let ranges = ranges(sequences);
        self.stack.run(self.norm.apply(&h)?, Tokens::Sequences(&ranges), backend, Wanted::All)
    }
}

/// Where each sequence's tokens are when all are laid end to end.
fn ranges(sequences: &[&[u32]]) -> Vec<Range<usize>> {
    let mut start = 0;
    let next = |ids: &&[u32]| {
        let range = start..start + ids.len();
        start = range.end;
        range
    };
    sequences.iter().map(next).collect()
}
