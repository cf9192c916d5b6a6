//! The local operations of one transformer block.

use super::Config;
use super::plan::{ATTENTION, ATTENTION_OUTPUT, INNER, NORMS, OUTPUT, bias_name, in_block};
use crate::Result;
use crate::layers::attention::{Heads, attend};
use crate::layers::kv_cache::KvCache;
use crate::layers::layer_norm::LayerNorm;
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::Tensor;

/// One block: its norms, biases and cache. Its linear layers are elsewhere.
pub(super) struct Block {
    /// The two norms; in the fused plan they are folded into the server's matrices.
    pub(super) norms: Option<[LayerNorm; 2]>,
    attention_bias: Tensor,
    pub(super) attention_output_bias: Tensor,
    pub(super) inner_bias: Tensor,
    pub(super) output_bias: Tensor,
    pub(super) cache: KvCache,
    heads: Heads,
}

impl Block {
    pub(super) fn new(config: &Config, kind: PlanKind, i: usize, local: &dyn WeightSource) -> Result<Self> {
        let hidden = config.hidden_size;
        let fused = kind == PlanKind::Fused;
        let bias = |name: &str, width: usize, folded: bool| {
            local.get_shaped(&bias_name(&in_block(i, name), folded), &[width])
        };
        let norm = |name| LayerNorm::load(local, &in_block(i, name), hidden, config.layer_norm_eps);
        let heads = config.attention();
        Ok(Self {
            norms: if fused { None } else { Some([norm(NORMS[0])?, norm(NORMS[1])?]) },
            attention_bias: bias(ATTENTION, 3 * hidden, fused)?,
            attention_output_bias: bias(ATTENTION_OUTPUT, hidden, false)?,
            inner_bias: bias(INNER, config.intermediate_size, fused)?,
            output_bias: bias(OUTPUT, hidden, false)?,
            cache: KvCache::new(heads.kv, heads.dim)?,
            heads,
        })
    }

    /// Attention of the pass's tokens, which begin at position `start`: `qkv` `[tokens, 3 * hidden]` without biases;
    /// returns `[tokens, hidden]`.
    pub(super) fn attend(&mut self, start: usize, bias: Option<&Tensor>, qkv: &Tensor) -> Result<Tensor> {
        let qkv = qkv.broadcast_add(&self.attention_bias)?;
        let (tokens, width) = qkv.dims2()?;
        let hidden = width / 3;
        let heads = self.heads;
        let per_head = |part: usize| -> Result<Tensor> {
            let x = qkv.narrow(1, part * hidden, hidden)?;
            Ok(x.reshape((tokens, heads.kv, heads.dim))?.transpose(0, 1)?.contiguous()?)
        };
        let q = qkv.narrow(1, 0, hidden)?.contiguous()?;
        let (k, v) = self.cache.write(start, &per_head(1)?, &per_head(2)?)?;
        attend(heads, &q, &k, &v, bias)
    }
}
