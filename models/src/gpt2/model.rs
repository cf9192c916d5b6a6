//! The decoder: what the client computes between the rounds.

use super::Config;
use super::block::Block;
use super::plan::{FUSED_ROUNDS, PLAIN_ROUNDS};
use crate::Result;
use crate::layers::attention::causal_bias;
use crate::layers::gelu::{Gelu, biased_gelu};
use crate::layers::head::{Head, HeadPrecision};
use crate::layers::layer_norm::{LayerNorm, inverse_std};
use crate::linear::LinearBackend;
use crate::model::{CausalModel, check_ids, last_row, unpack};
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::{Device, Tensor};

/// A GPT-2 decoder.
pub struct Gpt2 {
    config: Config,
    kind: PlanKind,
    /// `[vocab, hidden]`.
    words: Tensor,
    /// `[positions, hidden]`.
    positions: Tensor,
    norm: LayerNorm,
    head: Head,
    blocks: Vec<Block>,
    len: usize,
}

/// Which positions' logits a pass gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logits {
    Last,
    All,
}

impl Gpt2 {
    /// A model of the local tensors of a plan of this kind (`local_tensors` of [`Config`]).
    ///
    /// # Errors
    /// If the configuration is unusable or a tensor is missing or misshapen.
    pub fn new(
        config: Config,
        kind: PlanKind,
        local: &dyn WeightSource,
        precision: HeadPrecision,
    ) -> Result<Self> {
        config.validate()?;
        let hidden = config.hidden_size;
        let words = local.get_shaped("wte.weight", &[config.vocab_size, hidden])?;
        Ok(Self {
            head: Head::new(&words, precision)?,
            words,
            positions: local.get_shaped("wpe.weight", &[config.context_length, hidden])?,
            norm: LayerNorm::load(local, "ln_f", hidden, config.layer_norm_eps)?,
            blocks: (0..config.blocks)
                .map(|i| Block::new(&config, kind, i, local))
                .collect::<Result<Vec<_>>>()?,
            len: 0,
            config,
            kind,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn run(&mut self, ids: &[u32], backend: &mut dyn LinearBackend, logits: Logits) -> Result<Tensor> {
        check_ids(ids, self.config.vocab_size, self.len, self.config.context_length)?;
        let words = self.words.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        let h = (words + self.positions.narrow(0, self.len, ids.len())?)?;
        let h = match self.kind {
            PlanKind::Plain => self.run_plain(h, backend, logits)?,
            PlanKind::Fused => self.run_fused(h, backend, logits)?,
        };
        let logits = self.head.logits(&self.norm.apply(&h)?)?;
        self.len += ids.len();
        Ok(logits)
    }

    fn run_plain(
        &mut self,
        mut h: Tensor,
        backend: &mut dyn LinearBackend,
        logits: Logits,
    ) -> Result<Tensor> {
        let (tokens, _) = h.dims2()?;
        let bias = causal_bias(self.len, tokens)?;
        let last = self.blocks.len() - 1;
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let round = PLAIN_ROUNDS * i;
            let [attention_norm, inner_norm] =
                block.norms.clone().unwrap_or_else(|| unreachable!("loaded in the plain plan"));
            let [qkv] = unpack(round, backend.round(round, &attention_norm.apply(&h)?)?)?;
            let mut a = block.attend(self.len, bias.as_ref(), &qkv)?;
            if i == last && logits == Logits::Last {
                (a, h) = (last_row(&a)?, last_row(&h)?);
            }
            let [out] = unpack(round + 1, backend.round(round + 1, &a)?)?;
            h = (h + out)?.broadcast_add(&block.attention_output_bias)?;
            let [inner] = unpack(round + 2, backend.round(round + 2, &inner_norm.apply(&h)?)?)?;
            let m = biased_gelu(Gelu::Tanh, &inner, None, &block.inner_bias)?;
            let [out] = unpack(round + 3, backend.round(round + 3, &m)?)?;
            h = (h + out)?.broadcast_add(&block.output_bias)?;
        }
        Ok(h)
    }

    fn run_fused(
        &mut self,
        mut h: Tensor,
        backend: &mut dyn LinearBackend,
        logits: Logits,
    ) -> Result<Tensor> {
        let eps = self.config.layer_norm_eps;
        let (tokens, _) = h.dims2()?;
        let bias = causal_bias(self.len, tokens)?;
        let last = self.blocks.len() - 1;
        let [mut behind] = unpack(0, backend.round(0, &h)?)?;
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let round = 1 + FUSED_ROUNDS * i;
            let mut a =
                block.attend(self.len, bias.as_ref(), &behind.broadcast_mul(&inverse_std(&h, eps)?)?)?;
            if i == last && logits == Logits::Last {
                (a, h) = (last_row(&a)?, last_row(&h)?);
            }
            h = h.broadcast_add(&block.attention_output_bias)?;
            let [out, inner] = unpack(round, backend.round(round, &Tensor::cat(&[&a, &h], 1)?)?)?;
            h = (h + out)?;
            let m = biased_gelu(Gelu::Tanh, &inner, Some(&inverse_std(&h, eps)?), &block.inner_bias)?;
            h = h.broadcast_add(&block.output_bias)?;
            let out = if i == last {
                let [out] = unpack(round + 1, backend.round(round + 1, &m)?)?;
                out
            } else {
                let reply = backend.round(round + 1, &Tensor::cat(&[&m, &h], 1)?)?;
                let [out, next] = unpack(round + 1, reply)?;
                behind = next;
                out
            };
            h = (h + out)?;
        }
        Ok(h)
    }
}

impl CausalModel for Gpt2 {
    fn forward(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        Ok(self.run(ids, backend, Logits::Last)?.flatten_all()?)
    }

    fn forward_all(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor> {
        self.run(ids, backend, Logits::All)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn clear(&mut self) {
        self.len = 0;
        for block in &mut self.blocks {
            block.cache.clear();
        }
    }

    fn context_length(&self) -> usize {
        self.config.context_length
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }
}
