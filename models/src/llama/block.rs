//! The local operations of one transformer block.

use super::Config;
use crate::Result;
use crate::layers::attention::{Heads, attend};
use crate::layers::kv_cache::KvCache;
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::Tensor;
use candle_nn::{ops, rotary_emb};

/// What the tokens of one pass share.
pub(super) struct Step {
    /// Position of the pass's first token.
    pub(super) start: usize,
    /// `[tokens, head_dim/2]` each.
    pub(super) rotation: (Tensor, Tensor),
    /// `[tokens, positions]`, or nothing for a single token.
    pub(super) bias: Option<Tensor>,
}

/// One block: its norms, biases and cache. Its linear layers are elsewhere.
pub(super) struct Block {
    /// Gains of the two norms; in the fused plan they are folded into the server's matrices.
    pub(super) gains: Option<[Tensor; 2]>,
    /// Biases of q, k and v.
    biases: Option<[Tensor; 3]>,
    /// Gains of the norms of q's and k's heads.
    head_gains: Option<[Tensor; 2]>,
    pub(super) cache: KvCache,
    heads: Heads,
    rms_eps: f32,
}

impl Block {
    pub(super) fn new(config: &Config, kind: PlanKind, i: usize, local: &dyn WeightSource) -> Result<Self> {
        let vector = |name: &str, width: usize| local.get_shaped(&format!("blk.{i}.{name}"), &[width]);
        let hidden = config.hidden_size;
        let gains = match kind {
            PlanKind::Plain => {
                Some([vector("attn_norm.weight", hidden)?, vector("ffn_norm.weight", hidden)?])
            }
            PlanKind::Fused => None,
        };
        let biases = if config.qkv_bias {
            Some([
                vector("attn_q.bias", config.q_width())?,
                vector("attn_k.bias", config.kv_width())?,
                vector("attn_v.bias", config.kv_width())?,
            ])
        } else {
            None
        };
        let head_gains = if config.qk_norm {
            Some([
                vector("attn_q_norm.weight", config.head_dim)?,
                vector("attn_k_norm.weight", config.head_dim)?,
            ])
        } else {
            None
        };
        Ok(Self {
            gains,
            biases,
            head_gains,
            cache: KvCache::new(config.kv_heads, config.head_dim)?,
            heads: config.attention_heads(),
            rms_eps: config.rms_eps as f32,
        })
    }

    /// Attention over the cache and the new tokens, whose keys and values are written to the cache.
    ///
    /// `qkv`: the three products, `[tokens, rows]`; returns `[tokens, heads * head_dim]`.
    pub(super) fn attend(&mut self, step: &Step, qkv: [Tensor; 3]) -> Result<Tensor> {
        let [q, k, v] = match &self.biases {
            None => qkv,
            Some([bq, bk, bv]) => {
                let [q, k, v] = qkv;
                [q.broadcast_add(bq)?, k.broadcast_add(bk)?, v.broadcast_add(bv)?]
            }
        };
        let Heads { query, kv, dim } = self.heads;
        let (tokens, width) = q.dims2()?;
        let q = self.rotate(step, &q, query, 0)?.reshape((tokens, width))?;
        let k = self.rotate(step, &k, kv, 1)?.reshape((tokens, kv, dim))?.transpose(0, 1)?.contiguous()?;
        let v = v.reshape((tokens, kv, dim))?.transpose(0, 1)?.contiguous()?;
        let (k, v) = self.cache.write(step.start, &k, &v)?;
        attend(self.heads, &q, &k, &v, step.bias.as_ref())
    }

    /// Norms (Qwen3) and rotates the heads of q (`which` 0) or k (1).
    fn rotate(&self, step: &Step, x: &Tensor, heads: usize, which: usize) -> Result<Tensor> {
        let (tokens, _) = x.dims2()?;
        let mut x = x.reshape((1, tokens, heads, self.heads.dim))?;
        if let Some(gains) = &self.head_gains {
            x = ops::rms_norm(&x, &gains[which], self.rms_eps)?;
        }
        Ok(rotary_emb::rope_thd(&x, &step.rotation.0, &step.rotation.1)?)
    }
}

/// `silu(gate) * up`.
pub(super) fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((ops::silu(gate)? * up)?)
}
