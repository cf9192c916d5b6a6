//! The decoder: local operations around the rounds of a plan.

use super::Config;
use super::block::{Block, Step, gated};
use super::plan::{FUSED_ROUNDS, PLAIN_ROUNDS};
use crate::Result;
use crate::layers::attention::causal_bias;
use crate::layers::head::{Head, HeadPrecision};
use crate::layers::norm::inverse_rms;
use crate::layers::rope::Rope;
use crate::linear::LinearBackend;
use crate::model::{CausalModel, check_ids, last_row, unpack};
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::{Device, Tensor};
use candle_nn::ops::rms_norm;

/// A Llama, Qwen2 or Qwen3 decoder.
pub struct Llama {
    config: Config,
    kind: PlanKind,
    /// `[vocab, hidden]`.
    embedding: Tensor,
    /// Gain of the last norm, and the head if it is tied to the embedding.
    out_gain: Option<Tensor>,
    head: Option<Head>,
    blocks: Vec<Block>,
    rope: Rope,
    len: usize,
}

/// Which positions' logits a pass returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logits {
    All,
    Last,
}

impl Llama {
    /// A decoder from the client's tensors (see [`crate::config::SplitFamily::local_tensors`]).
    ///
    /// `precision` is that of a tied head's copy in memory.
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
        let embedding = local.get_shaped("token_embd.weight", &[config.vocab_size, hidden])?;
        let out_gain = if kind == PlanKind::Plain || config.tied_head {
            Some(local.get_shaped("output_norm.weight", &[hidden])?)
        } else {
            None
        };
        let head = if config.tied_head { Some(Head::new(&embedding, precision)?) } else { None };
        let blocks =
            (0..config.blocks).map(|i| Block::new(&config, kind, i, local)).collect::<Result<Vec<_>>>()?;
        let rope = Rope::new(&config.rope, config.head_dim)?;
        Ok(Self { config, kind, embedding, out_gain, head, blocks, rope, len: 0 })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn run(&mut self, ids: &[u32], backend: &mut dyn LinearBackend, logits: Logits) -> Result<Tensor> {
        check_ids(ids, self.config.vocab_size, self.len, self.config.context_length)?;
        let step = Step {
            start: self.len,
            rotation: self.rope.at(self.len, ids.len())?,
            bias: causal_bias(self.len, ids.len())?,
        };
        let h = self.embedding.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        let logits = match self.kind {
            PlanKind::Plain => self.run_plain(h, &step, backend, logits)?,
            PlanKind::Fused => self.run_fused(h, &step, backend, logits)?,
        };
        self.len += ids.len();
        Ok(logits)
    }

    fn run_plain(
        &mut self,
        mut h: Tensor,
        step: &Step,
        backend: &mut dyn LinearBackend,
        logits: Logits,
    ) -> Result<Tensor> {
        let eps = self.config.rms_eps as f32;
        let last = self.blocks.len() - 1;
        let mut round = 0;
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let [attn_gain, ffn_gain] = block.gains.clone().unwrap_or_else(|| unreachable!("plain plan"));
            let qkv = backend.round(round, &rms_norm(&h, &attn_gain, eps)?)?;
            let mut a = block.attend(step, unpack(round, qkv)?)?;
            if i == last && logits == Logits::Last {
                (a, h) = (last_row(&a)?, last_row(&h)?);
            }
            let [out] = unpack(round + 1, backend.round(round + 1, &a)?)?;
            h = (h + out)?;
            let gate_up = backend.round(round + 2, &rms_norm(&h, &ffn_gain, eps)?)?;
            let [gate, up] = unpack(round + 2, gate_up)?;
            let [down] = unpack(round + 3, backend.round(round + 3, &gated(&gate, &up)?)?)?;
            h = (h + down)?;
            round += PLAIN_ROUNDS;
        }
        let normed = self.out_norm(&h)?;
        match &self.head {
            Some(head) => head.logits(&normed),
            None => {
                let [logits] = unpack(round, backend.round(round, &normed)?)?;
                Ok(logits)
            }
        }
    }

    fn run_fused(
        &mut self,
        mut h: Tensor,
        step: &Step,
        backend: &mut dyn LinearBackend,
        logits: Logits,
    ) -> Result<Tensor> {
        let eps = self.config.rms_eps;
        let last = self.blocks.len() - 1;
        let mut behind = backend.round(0, &h)?;
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let round = 1 + FUSED_ROUNDS * i;
            let qkv: [Tensor; 3] = unpack(round - 1, scaled(behind, &inverse_rms(&h, eps)?)?)?;
            let mut a = block.attend(step, qkv)?;
            if i == last && logits == Logits::Last {
                (a, h) = (last_row(&a)?, last_row(&h)?);
            }
            let mut reply = backend.round(round, &Tensor::cat(&[&a, &h], 1)?)?;
            h = (h + take_first(round, &mut reply)?)?;
            let [gate, up] = unpack(round, scaled(reply, &inverse_rms(&h, eps)?)?)?;
            let m = gated(&gate, &up)?;
            let input = if i == last && self.head.is_some() { m } else { Tensor::cat(&[&m, &h], 1)? };
            behind = backend.round(round + 1, &input)?;
            h = (h + take_first(round + 1, &mut behind)?)?;
        }
        match &self.head {
            Some(head) => head.logits(&self.out_norm(&h)?),
            None => {
                let [logits] =
                    unpack(FUSED_ROUNDS * self.blocks.len(), scaled(behind, &inverse_rms(&h, eps)?)?)?;
                Ok(logits)
            }
        }
    }

    fn out_norm(&self, h: &Tensor) -> Result<Tensor> {
        let gain = self.out_gain.as_ref().unwrap_or_else(|| unreachable!("loaded wherever it is used"));
        Ok(rms_norm(h, gain, self.config.rms_eps as f32)?)
    }
}

impl CausalModel for Llama {
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

/// Multiplies every product `[tokens, rows]` by a factor per token, `[tokens, 1]`.
fn scaled(products: Vec<Tensor>, factor: &Tensor) -> Result<Vec<Tensor>> {
    products.iter().map(|product| Ok(product.broadcast_mul(factor)?)).collect()
}

/// Removes the first product of a reply.
fn take_first(round: usize, reply: &mut Vec<Tensor>) -> Result<Tensor> {
    if reply.is_empty() {
        unpack::<1>(round, Vec::new())?;
    }
    Ok(reply.remove(0))
}
