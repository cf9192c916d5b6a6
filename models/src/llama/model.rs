//! The decoder: local operations around the rounds of a plan.

use super::Config;
use super::block::{Block, Step};
use super::plan::{FUSED_ROUNDS, PLAIN_ROUNDS};
use crate::Result;
use crate::layers::attention::causal_bias;
use crate::layers::gate::silu_gate;
use crate::layers::head::{Head, HeadPrecision};
use crate::layers::norm::{RmsNorm, inverse_rms, scale_rows};
use crate::layers::rope::Rope;
use crate::linear::LinearBackend;
use crate::model::{CausalModel, check_ids, last_row, unpack};
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::{Device, Tensor};

/// A Llama, Qwen2 or Qwen3 decoder.
pub struct Llama {
    config: Config,
    /// `[vocab, hidden]`.
    embedding: Tensor,
    blocks: Vec<Block>,
    variant: Variant,
    rope: Rope,
    len: usize,
}

/// What differs between the plans.
enum Variant {
    /// Norms run on the client; without a tied head, the head is the last round.
    Plain {
        /// Of each block, before the attention and before the feed-forward layer.
        norms: Vec<[RmsNorm; 2]>,
        out_norm: RmsNorm,
        head: Option<Head>,
    },
    /// Gains are folded into the server's matrices, except that of a tied head.
    Fused { out: Option<(RmsNorm, Head)> },
}

/// Which positions' logits a pass returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logits {
    All,
    Last,
}

/// What the steps of one pass share.
struct Pass<'a> {
    blocks: &'a mut [Block],
    rope: &'a Rope,
    step: Step,
    backend: &'a mut dyn LinearBackend,
    logits: Logits,
    rms_eps: f64,
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
        let norm = |name: String| RmsNorm::new(&local.get_shaped(&name, &[hidden])?, config.rms_eps);
        let head = if config.tied_head { Some(Head::new(&embedding, precision)?) } else { None };
        let variant = match kind {
            PlanKind::Plain => Variant::Plain {
                norms: (0..config.blocks)
                    .map(|i| {
                        Ok([
                            norm(format!("blk.{i}.attn_norm.weight"))?,
                            norm(format!("blk.{i}.ffn_norm.weight"))?,
                        ])
                    })
                    .collect::<Result<_>>()?,
                out_norm: norm("output_norm.weight".into())?,
                head,
            },
            PlanKind::Fused => Variant::Fused {
                out: match head {
                    Some(head) => Some((norm("output_norm.weight".into())?, head)),
                    None => None,
                },
            },
        };
        let blocks = (0..config.blocks).map(|i| Block::new(&config, i, local)).collect::<Result<Vec<_>>>()?;
        let rope = Rope::new(&config.rope, config.head_dim)?;
        Ok(Self { config, embedding, blocks, variant, rope, len: 0 })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn run(&mut self, ids: &[u32], backend: &mut dyn LinearBackend, logits: Logits) -> Result<Tensor> {
        check_ids(ids, self.config.vocab_size, self.len, self.config.context_length)?;
        let tokens = ids.len();
        self.rope.reserve(self.len + tokens);
        let h = self.embedding.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        let step = Step { start: self.len, tokens, bias: causal_bias(self.len, tokens)? };
        let pass = Pass {
            blocks: &mut self.blocks,
            rope: &self.rope,
            step,
            backend,
            logits,
            rms_eps: self.config.rms_eps,
        };
        let logits = match &self.variant {
            Variant::Plain { norms, out_norm, head } => pass.plain(h, norms, out_norm, head.as_ref())?,
            Variant::Fused { out } => pass.fused(h, out.as_ref())?,
        };
        self.len += tokens;
        Ok(logits)
    }
}

impl Pass<'_> {
    fn plain(
        mut self,
        mut h: Tensor,
        norms: &[[RmsNorm; 2]],
        out_norm: &RmsNorm,
        head: Option<&Head>,
    ) -> Result<Tensor> {
        for (i, [attn_norm, ffn_norm]) in norms.iter().enumerate() {
            let round = PLAIN_ROUNDS * i;
            let qkv = unpack(round, self.backend.round(round, &attn_norm.apply(&h)?)?)?;
            let a;
            (a, h) = self.attend(i, qkv, h)?;
            let [out] = unpack(round + 1, self.backend.round(round + 1, &a)?)?;
            h = (h + out)?;
            let [gate, up] = unpack(round + 2, self.backend.round(round + 2, &ffn_norm.apply(&h)?)?)?;
            let [down] = unpack(round + 3, self.backend.round(round + 3, &silu_gate(&gate, &up)?)?)?;
            h = (h + down)?;
        }
        let normed = out_norm.apply(&h)?;
        match head {
            Some(head) => head.logits(&normed),
            None => {
                let round = PLAIN_ROUNDS * norms.len();
                let [logits] = unpack(round, self.backend.round(round, &normed)?)?;
                Ok(logits)
            }
        }
    }

    fn fused(mut self, mut h: Tensor, out: Option<&(RmsNorm, Head)>) -> Result<Tensor> {
        let last = self.blocks.len() - 1;
        let mut behind = self.backend.round(0, &h)?;
        for i in 0..=last {
            let round = 1 + FUSED_ROUNDS * i;
            let a;
            let qkv = self.divided(round - 1, behind, &h)?;
            (a, h) = self.attend(i, qkv, h)?;
            let mut reply = self.backend.round(round, &Tensor::cat(&[&a, &h], 1)?)?;
            h = (h + take_first(round, &mut reply)?)?;
            let [gate, up] = self.divided(round, reply, &h)?;
            let m = silu_gate(&gate, &up)?;
            let input = if i == last && out.is_some() { m } else { Tensor::cat(&[&m, &h], 1)? };
            behind = self.backend.round(round + 1, &input)?;
            h = (h + take_first(round + 1, &mut behind)?)?;
        }
        match out {
            Some((norm, head)) => head.logits(&norm.apply(&h)?),
            None => {
                let [logits] = self.divided(FUSED_ROUNDS * (last + 1), behind, &h)?;
                Ok(logits)
            }
        }
    }

    /// Attention of block `i`; behind the last one only the rows go on whose logits are wanted.
    ///
    /// Returns the attention's output and the residual.
    fn attend(&mut self, i: usize, qkv: [Tensor; 3], h: Tensor) -> Result<(Tensor, Tensor)> {
        let last = i + 1 == self.blocks.len();
        let a = self.blocks[i].attend(&self.step, self.rope, qkv)?;
        if last && self.logits == Logits::Last && self.step.tokens > 1 {
            return Ok((last_row(&a)?, last_row(&h)?));
        }
        Ok((a, h))
    }

    /// The products of a round behind a folded norm, divided by the rms of what the norm is applied to.
    fn divided<const N: usize>(
        &self,
        round: usize,
        products: Vec<Tensor>,
        h: &Tensor,
    ) -> Result<[Tensor; N]> {
        let factors = inverse_rms(h, self.rms_eps)?;
        let scaled = products.iter().map(|product| scale_rows(product, &factors));
        unpack(round, scaled.collect::<Result<Vec<_>>>()?)
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

/// Removes the first product of a reply.
fn take_first(round: usize, reply: &mut Vec<Tensor>) -> Result<Tensor> {
    if reply.is_empty() {
        unpack::<1>(round, Vec::new())?;
    }
    Ok(reply.remove(0))
}
