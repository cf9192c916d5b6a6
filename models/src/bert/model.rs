//! The encoder: what the client computes between the rounds.

use super::layer::Layer;
use super::plan::{CLASSIFIER, FUSED_ROUNDS, PLAIN_ROUNDS, bias_name};
use super::{Config, Pooling};
use crate::layers::gelu::{Gelu, biased_gelu};
use crate::layers::layer_norm::{LayerNorm, inverse_std};
use crate::linear::LinearBackend;
use crate::model::{check_ids, unpack};
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// A BERT encoder, with a token classifier if its configuration has labels.
///
/// A pass takes several sequences at once; they are laid end to end, so that every round carries the tokens of all of
/// them, and attend only to themselves. Who calls brackets the call with the backend's `begin_pass` and `end_pass`
/// ([`crate::linear::run_pass`] does).
pub struct Bert {
    config: Config,
    kind: PlanKind,
    /// `[vocab, hidden]`.
    words: Tensor,
    /// `[positions, hidden]`, the first token type added.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    /// Bias of the classifier, `[labels]`.
    classifier_bias: Option<Tensor>,
}

/// What a pass gives, one row per token of all sequences.
struct Encoded {
    /// `[tokens, hidden]`.
    hidden: Tensor,
    /// `[tokens, labels]`.
    logits: Option<Tensor>,
}

impl Bert {
    /// A model of the local tensors of a plan of this kind (`local_tensors` of [`Config`]).
    ///
    /// # Errors
    /// If the configuration is unusable or a tensor is missing or misshapen.
    pub fn new(config: Config, kind: PlanKind, local: &dyn WeightSource) -> Result<Self> {
        config.validate()?;
        let hidden = config.hidden_size;
        let table = |name: &str, rows: usize| {
            local.get_shaped(&format!("embeddings.{name}_embeddings.weight"), &[rows, hidden])
        };
        let types = table("token_type", config.token_types)?;
        let classifier_bias = if config.classifies() {
            let name = bias_name(CLASSIFIER, kind == PlanKind::Fused);
            Some(local.get_shaped(&name, &[config.labels.len()])?)
        } else {
            None
        };
        Ok(Self {
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_positions)?.broadcast_add(&types.narrow(0, 0, 1)?)?,
            norm: LayerNorm::load(local, "embeddings.LayerNorm", hidden, config.layer_norm_eps)?,
            layers: (0..config.layers)
                .map(|i| Layer::new(&config, kind, i, local))
                .collect::<Result<Vec<_>>>()?,
            classifier_bias,
            config,
            kind,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
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
        self.run(sequences, backend)?
            .logits
            .ok_or_else(|| Error::config("id2label", "the model has no token classifier"))
    }

    /// Sentence embeddings: of each sequence's hidden states what [`Config::pooling`] says (the mean takes in special
    /// tokens, as sentence-transformers does), scaled to length 1. `[sequences, hidden]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn embed(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        let hidden = self.encode(sequences, backend)?;
        let embeddings = ranges(sequences)
            .into_iter()
            .map(|range| {
                let pooled = match self.config.pooling {
                    Pooling::Mean => hidden.narrow(0, range.start, range.len())?.mean(0)?,
                    Pooling::First => hidden.get(range.start)?,
                };
                let length = pooled.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt().max(f32::MIN_POSITIVE);
                Ok((pooled / f64::from(length))?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&embeddings, 0)?)
    }

    fn run(&self, sequences: &[&[u32]], backend: &mut dyn LinearBackend) -> Result<Encoded> {
        if sequences.is_empty() {
            return Err(Error::config("sequences", "a pass needs at least one"));
        }
        for ids in sequences {
            check_ids(ids, self.config.vocab_size, 0, self.config.max_positions)?;
        }
        let ranges = ranges(sequences);
        let x = self.embedded(sequences)?;
        match self.kind {
            PlanKind::Plain => self.run_plain(x, &ranges, backend),
            PlanKind::Fused => self.run_fused(x, &ranges, backend),
        }
    }

    fn embedded(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let ids: Vec<u32> = sequences.concat();
        let positions: Vec<u32> = sequences.iter().flat_map(|ids| 0..ids.len() as u32).collect();
        let words = self.words.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        let positions = self.positions.index_select(&Tensor::new(positions, &Device::Cpu)?, 0)?;
        self.norm.apply(&(words + positions)?)
    }

    fn run_plain(
        &self,
        mut x: Tensor,
        sequences: &[Range<usize>],
        backend: &mut dyn LinearBackend,
    ) -> Result<Encoded> {
        for (i, layer) in self.layers.iter().enumerate() {
            let round = PLAIN_ROUNDS * i;
            let qkv = unpack(round, backend.round(round, &x)?)?;
            let a = layer.attend(self.config.attention(), sequences, qkv)?;
            let [out] = unpack(round + 1, backend.round(round + 1, &a)?)?;
            let x1 = layer.attention_norm.apply(&(x + out)?.broadcast_add(&layer.attention_bias)?)?;
            let [inner] = unpack(round + 2, backend.round(round + 2, &x1)?)?;
            let m = biased_gelu(Gelu::Erf, &inner, None, &layer.intermediate_bias)?;
            let [out] = unpack(round + 3, backend.round(round + 3, &m)?)?;
            x = layer.output_norm.apply(&(x1 + out)?.broadcast_add(&layer.output_bias)?)?;
        }
        let logits = match &self.classifier_bias {
            None => None,
            Some(bias) => {
                let round = PLAIN_ROUNDS * self.layers.len();
                let [logits] = unpack(round, backend.round(round, &x)?)?;
                Some(logits.broadcast_add(bias)?)
            }
        };
        Ok(Encoded { hidden: x, logits })
    }

    fn run_fused(
        &self,
        mut x: Tensor,
        sequences: &[Range<usize>],
        backend: &mut dyn LinearBackend,
    ) -> Result<Encoded> {
        let eps = self.config.layer_norm_eps;
        let last = self.layers.len() - 1;
        let mut behind = backend.round(0, &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let round = 1 + FUSED_ROUNDS * i;
            let a = layer.attend(self.config.attention(), sequences, unpack(round - 1, behind)?)?;

            let residual = x.broadcast_add(&layer.attention_bias)?;
            let reply = backend.round(round, &Tensor::cat(&[&a, &residual], 1)?)?;
            let [out, inner] = unpack(round, reply)?;
            let h = (residual + out)?;
            let m = biased_gelu(Gelu::Erf, &inner, Some(&inverse_std(&h, eps)?), &layer.intermediate_bias)?;

            let residual = layer.attention_norm.apply(&h)?.broadcast_add(&layer.output_bias)?;
            let input = if i == last && self.classifier_bias.is_none() {
                m
            } else {
                Tensor::cat(&[&m, &residual], 1)?
            };
            let mut reply = backend.round(round + 1, &input)?;
            if reply.is_empty() {
                unpack::<1>(round + 1, Vec::new())?;
            }
            let h = (residual + reply.remove(0))?;
            let inverse = inverse_std(&h, eps)?;
            behind = reply
                .into_iter()
                .map(|product| Ok(product.broadcast_mul(&inverse)?))
                .collect::<Result<_>>()?;
            x = layer.output_norm.apply(&h)?;
        }
        let logits = match &self.classifier_bias {
            None => None,
            Some(bias) => {
                let [logits] = unpack(FUSED_ROUNDS * self.layers.len(), behind)?;
                Some(logits.broadcast_add(bias)?)
            }
        };
        Ok(Encoded { hidden: x, logits })
    }
}

/// Where each sequence's tokens are when all are laid end to end.
fn ranges(sequences: &[&[u32]]) -> Vec<Range<usize>> {
    let mut start = 0;
    sequences
        .iter()
        .map(|ids| {
            let range = start..start + ids.len();
            start = range.end;
            range
        })
        .collect()
}
