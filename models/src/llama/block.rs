//! The local operations of one block's attention.

use super::Config;
use crate::layers::attention::{Heads, attend};
use crate::layers::kv_cache::KvCache;
use crate::layers::norm::RmsNorm;
use crate::layers::rope::Rope;
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// What the tokens of one pass share.
pub(super) struct Step {
    /// Position of the pass's first token.
    pub(super) start: usize,
    /// Tokens of the pass.
    pub(super) tokens: usize,
    /// `[tokens, positions]`, or nothing for a single token.
    pub(super) bias: Option<Tensor>,
}

/// The attention of one block: biases, norms of heads and cache. The linear layers are elsewhere.
pub(super) struct Block {
    /// Biases of q, k and v.
    biases: Option<[Vec<f32>; 3]>,
    /// Norms of q's and k's heads.
    head_norms: Option<[RmsNorm; 2]>,
    pub(super) cache: KvCache,
    heads: Heads,
}

impl Block {
    pub(super) fn new(config: &Config, i: usize, local: &dyn WeightSource) -> Result<Self> {
        let vector = |name: &str, width: usize| local.get_shaped(&format!("blk.{i}.{name}"), &[width]);
        let bias = |name: &str, width: usize| -> Result<Vec<f32>> { Ok(vector(name, width)?.to_vec1()?) };
        let norm = |name: &str| RmsNorm::new(&vector(name, config.head_dim)?, config.rms_eps);
        let biases = if config.qkv_bias {
            Some([
                bias("attn_q.bias", config.q_width())?,
                bias("attn_k.bias", config.kv_width())?,
                bias("attn_v.bias", config.kv_width())?,
            ])
        } else {
            None
        };
        let head_norms = if config.qk_norm {
            Some([norm("attn_q_norm.weight")?, norm("attn_k_norm.weight")?])
        } else {
            None
        };
        Ok(Self {
            biases,
            head_norms,
            cache: KvCache::new(config.kv_heads, config.head_dim)?,
            heads: config.attention_heads(),
        })
    }

    /// Attention over the cache and the new tokens, whose keys and values are written to the cache.
    ///
    /// `qkv`: the three products, `[tokens, rows]`; returns `[tokens, heads * head_dim]`.
    pub(super) fn attend(&mut self, step: &Step, rope: &Rope, qkv: [Tensor; 3]) -> Result<Tensor> {
        let Heads { query, kv, dim } = self.heads;
        let tokens = step.tokens;
        let [q, k, v] = qkv;
        let q = self.positioned(step, rope, &q, 0, query)?;
        let k = self.positioned(step, rope, &k, 1, kv)?;
        let v = self.biased(&v, 2, kv)?;
        let q = Tensor::from_vec(q, (tokens, query * dim), &Device::Cpu)?;
        let k = Tensor::from_vec(k, (tokens, kv, dim), &Device::Cpu)?.transpose(0, 1)?.contiguous()?;
        let v = Tensor::from_vec(v, (tokens, kv, dim), &Device::Cpu)?.transpose(0, 1)?.contiguous()?;
        let (k, v) = self.cache.write(step.start, &k, &v)?;
        attend(self.heads, &q, &k, &v, step.bias.as_ref())
    }

    /// q (`which` 0) or k (1) with its bias (Qwen2), normed heads (Qwen3) and rotation.
    fn positioned(
        &self,
        step: &Step,
        rope: &Rope,
        x: &Tensor,
        which: usize,
        heads: usize,
    ) -> Result<Vec<f32>> {
        let mut values = self.biased(x, which, heads)?;
        if let Some(norms) = &self.head_norms {
            norms[which].apply_slice(&mut values);
        }
        rope.rotate(&mut values, heads * self.heads.dim, step.start);
        Ok(values)
    }

    /// The values of one of q, k, v with its bias.
    fn biased(&self, x: &Tensor, which: usize, heads: usize) -> Result<Vec<f32>> {
        let (tokens, width) = x.dims2()?;
        if width != heads * self.heads.dim {
            return Err(Error::TensorShape {
                name: ["q", "k", "v"][which].into(),
                expected: vec![tokens, heads * self.heads.dim],
                got: vec![tokens, width],
            });
        }
        let mut values = x.flatten_all()?.to_vec1::<f32>()?;
        if let Some(biases) = &self.biases {
            for row in values.chunks_exact_mut(width) {
                for (value, bias) in row.iter_mut().zip(&biases[which]) {
                    *value += bias;
                }
            }
        }
        Ok(values)
    }
}
