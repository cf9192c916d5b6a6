//! Decoders: an embedding, the blocks, a head.

use super::block::{NewTokens, Tokens};
use super::pass::{Output, Stack, Wanted};
use crate::families::config::{ModelConfig, Positions};
use crate::formats::WeightSource;
use crate::linear::LinearBackend;
use crate::local_ops::embedding::Embedding;
use crate::local_ops::head::{Head, HeadPrecision};
use crate::local_ops::kv_cache::KvCache;
use crate::model::{CausalModel, PrefixCache, Rows, TextPass, check_ids};
use crate::split::plan::PlanKind;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// A decoder with its key-value cache.
pub struct Decoder {
    embedding: Embedding,
    /// `[positions, hidden]`, where positions are learned.
    positions: Option<Tensor>,
    /// The head, if it is the embedding.
    head: Option<Head>,
    stack: Stack,
    caches: Vec<KvCache>,
    len: usize,
}

impl Decoder {
    /// A decoder of a plan's local tensors ([`ModelConfig::local_tensors`]) and the embedding.
    ///
    /// `precision` is that of a tied head's copy in memory.
    ///
    /// # Errors
    /// If the configuration is unusable or a tensor is missing or misshapen.
    pub fn new(
        config: ModelConfig,
        kind: PlanKind,
        local: &dyn WeightSource,
        embedding: Embedding,
        precision: HeadPrecision,
    ) -> Result<Self> {
        if config.encoder.is_some() {
            return Err(Error::config(
                "family",
                format!("{} is an encoder, it generates no text", config.family),
            ));
        }
        embedding.check(config.vocab_size, config.hidden_size)?;
        let positions = match &config.positions {
            Positions::Rotary { .. } => None,
            Positions::Learned => {
                Some(local.get_shaped("position_embd.weight", &[config.context_length, config.hidden_size])?)
            }
        };
        let head = if config.tied_head { Some(embedding.head(precision)?) } else { None };
        let caches = (0..config.blocks)
            .map(|_| KvCache::new(config.kv_heads, config.head_dim))
            .collect::<Result<_>>()?;
        Ok(Self { embedding, positions, head, stack: Stack::new(config, kind, local)?, caches, len: 0 })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.stack.config
    }

    fn run(&mut self, ids: &[u32], backend: &mut dyn LinearBackend, rows: Rows) -> Result<Tensor> {
        let mut own = PrefixCache::default();
        self.swap_cache(&mut own)?;
        let logits = self.forward_texts(&mut [TextPass { ids, cache: &mut own, rows }], backend);
        self.swap_cache(&mut own)?;
        logits?.pop().ok_or_else(|| Error::config("tokens", "a pass needs at least one"))
    }

    /// Scaled and positioned embeddings of new tokens at positions from `start` on.
    fn embed(&self, ids: &[u32], start: usize) -> Result<Tensor> {
        let mut h = self.embedding.rows(ids)?;
        let scale = self.stack.config.scales.embedding;
        if scale != 1.0 {
            h = (h * scale)?;
        }
        if let Some(positions) = &self.positions {
            h = (h + positions.narrow(0, start, ids.len())?)?;
        }
        Ok(h)
    }

    fn logits(&self, output: Output) -> Result<Tensor> {
        let config = &self.stack.config;
        let mut logits = match (&self.head, output.head) {
            (Some(head), _) => head.logits(&output.hidden)?,
            (None, Some(logits)) => logits,
            (None, None) => return Err(Error::config("tied_head", "the model has no head")),
        };
        if config.scales.logits != 1.0 {
            logits = (logits * config.scales.logits)?;
        }
        if let Some(cap) = config.logit_cap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        Ok(logits)
    }
}

impl CausalModel for Decoder {
    fn forward(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        Ok(self.run(ids, backend, Rows::Last(1))?.flatten_all()?)
    }

    fn forward_all(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        self.run(ids, backend, Rows::Last(ids.len()))
    }

    fn forward_texts(
        &mut self,
        texts: &mut [TextPass<'_>],
        backend: &mut dyn LinearBackend,
    ) -> Result<Vec<Tensor>> {
        let config = &self.stack.config;
        let mut embedded = Vec::with_capacity(texts.len());
        // Rows that are wanted of the pass, and how many of them each text has.
        let (mut rows, mut counts, mut first) = (Vec::new(), Vec::new(), 0);
        for text in texts.iter_mut() {
            check_ids(text.ids, config.vocab_size, text.cache.len(), config.context_length)?;
            text.cache.prepare(config.blocks, config.kv_heads, config.head_dim)?;
            embedded.push(self.embed(text.ids, text.cache.len())?);
            let count = text.rows.count().min(text.ids.len());
            let end = first + text.ids.len();
            rows.extend((end - count) as u32..end as u32);
            counts.push(count);
            first = end;
        }
        if embedded.is_empty() {
            return Err(Error::config("tokens", "a pass needs at least one"));
        }
        let nothing = rows.is_empty();
        if nothing {
            // The rounds after the last attention carry a token all the same.
            rows.push(first as u32 - 1);
        }
        let h = Tensor::cat(&embedded, 0)?;
        let end = texts.iter().map(|text| text.cache.len() + text.ids.len()).max().unwrap_or(0);
        self.stack.reserve(end);
        let mut new: Vec<NewTokens<'_>> = texts
            .iter_mut()
            .map(|text| {
                let (start, caches) = text.cache.parts_mut();
                NewTokens { start, count: text.ids.len(), caches }
            })
            .collect();
        let output = self.stack.run(h, Tokens::Cached(&mut new), backend, Wanted::Rows(&rows))?;
        for text in texts.iter_mut() {
            text.cache.append(text.ids.len());
        }
        if nothing {
            return Ok(vec![Tensor::zeros((0, self.vocab_size()), DType::F32, &Device::Cpu)?; texts.len()]);
        }
        let logits = self.logits(output)?;
        let mut first = 0;
        let split = counts.into_iter().map(|count| {
            first += count;
            Ok(logits.narrow(0, first - count, count)?)
        });
        split.collect()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn clear(&mut self) {
        self.len = 0;
        self.caches.iter_mut().for_each(KvCache::clear);
    }

    fn swap_cache(&mut self, other: &mut PrefixCache) -> Result<()> {
        other.swap(self.caches.iter_mut(), &mut self.len)
    }

    fn context_length(&self) -> usize {
        self.stack.config.context_length
    }

    fn vocab_size(&self) -> usize {
        self.stack.config.vocab_size
    }
}
