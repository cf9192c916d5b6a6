//! Llama-family tensors under GGUF's names, whatever the file.

use super::Names;
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;

/// How the underlying source names and orders its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// GGUF names, rows in the model's own order.
    Gguf,
    /// GGUF names, q and k rows permuted within each head for interleaved RoPE (architecture `llama`).
    GgufInterleaved {
        /// Query heads.
        heads: usize,
        /// Key heads.
        kv_heads: usize,
    },
    /// Names of Hugging Face's transformers.
    HuggingFace,
}

/// A source that serves GGUF's names with rows in half-split RoPE order.
pub struct Canonical {
    inner: Box<dyn WeightSource>,
    convention: Convention,
}

const NAMES: Names = Names {
    blocks: "model.layers.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    outer: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
};

/// The transformers name of a GGUF name.
pub fn to_hugging_face(name: &str) -> Option<String> {
    NAMES.to_hugging_face(name)
}

/// The GGUF name of a transformers name.
pub fn from_hugging_face(name: &str) -> Option<String> {
    NAMES.to_gguf(name)
}

impl Canonical {
    /// Wraps a source.
    pub fn new(inner: Box<dyn WeightSource>, convention: Convention) -> Self {
        Self { inner, convention }
    }

    fn theirs(&self, name: &str) -> Option<String> {
        match self.convention {
            Convention::HuggingFace => to_hugging_face(name),
            _ => Some(name.to_owned()),
        }
    }

    /// Heads by which the rows of `name` are permuted in the source.
    fn permuted_heads(&self, name: &str) -> Option<usize> {
        let Convention::GgufInterleaved { heads, kv_heads } = self.convention else { return None };
        let (stem, _) = name.strip_prefix("blk.")?.split_once('.')?.1.rsplit_once('.')?;
        match stem {
            "attn_q" => Some(heads),
            "attn_k" => Some(kv_heads),
            _ => None,
        }
    }
}

impl WeightSource for Canonical {
    fn names(&self) -> Vec<String> {
        let names = self.inner.names();
        match self.convention {
            Convention::HuggingFace => {
                let mut ours: Vec<_> = names.iter().filter_map(|name| from_hugging_face(name)).collect();
                ours.sort();
                ours
            }
            _ => names,
        }
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(&self.theirs(name)?)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let theirs = self.theirs(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let tensor = self.inner.get(&theirs)?;
        match self.permuted_heads(name) {
            Some(heads) => half_split(&tensor, heads),
            None => Ok(tensor),
        }
    }
}

/// Reorders rows of every head from interleaved pairs (`2i`, `2i + 1`) to halves (`i`, `i + dim/2`).
fn half_split(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    if heads == 0 || rows % (2 * heads) != 0 {
        return Err(Error::config("heads", format!("{heads} heads do not divide {rows} rows into pairs")));
    }
    let rest = tensor.elem_count() / rows;
    let pairs = tensor.reshape((heads, rows / heads / 2, 2, rest))?;
    Ok(pairs.transpose(1, 2)?.contiguous()?.reshape(tensor.shape())?)
}
