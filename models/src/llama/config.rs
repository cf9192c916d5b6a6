//! Shapes and constants of a decoder of the Llama family.

use crate::config::Family;
use crate::layers::attention::Heads;
use crate::layers::rope::{RopeConfig, RopeScaling};
use crate::limits::{MAX_BLOCKS, MAX_CONTEXT, MAX_VOCABULARY, MAX_WIDTH};
use crate::weights::WeightSource;
use crate::weights::gguf::GgufFile;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Configuration of a Llama, Qwen2 or Qwen3 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`Family::Llama`], [`Family::Qwen2`] or [`Family::Qwen3`].
    pub architecture: Family,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Added to the mean square before the root.
    pub rms_eps: f64,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether q, k and v have biases (Qwen2).
    pub qkv_bias: bool,
    /// Whether the heads of q and k are normed (Qwen3).
    pub qk_norm: bool,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
}

impl Config {
    /// Reads a GGUF file's metadata.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type or an unusable value.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let architecture = file.require("general.architecture", file.string("general.architecture")?)?;
        let family: Family = architecture.parse()?;
        let key = |name: &str| format!("{architecture}.{name}");
        let uint = |name: &str| -> Result<usize> { file.require(&key(name), file.uint(&key(name))?) };
        let hidden_size = uint("embedding_length")?;
        let heads = uint("attention.head_count")?;
        if heads == 0 {
            return Err(Error::config("heads", "expected at least 1, got 0"));
        }
        let head_dim = match file.uint(&key("attention.key_length"))? {
            Some(head_dim) => head_dim,
            None => hidden_size / heads,
        };
        if file.uint(&key("rope.dimension_count"))?.is_some_and(|rotated| rotated != head_dim) {
            return Err(Error::config("rope.dimension_count", format!("expected head_dim {head_dim}")));
        }
        if file.uint(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
            return Err(Error::config("expert_count", "mixtures of experts are not supported"));
        }
        if let Some(bias) = UNSUPPORTED_BIASES.iter().find(|name| file.contains(name)) {
            return Err(Error::config("biases", format!("{bias} is not supported")));
        }
        let vocab_size = file.vocabulary_size()?;
        // A window as long as the context is no window; beyond it the model would need one.
        let window = file.uint(&key("attention.sliding_window"))?.filter(|&window| window > 0);
        let config = Self {
            architecture: family,
            vocab_size,
            hidden_size,
            intermediate_size: uint("feed_forward_length")?,
            blocks: uint("block_count")?,
            heads,
            kv_heads: file.uint(&key("attention.head_count_kv"))?.unwrap_or(heads),
            head_dim,
            context_length: window.unwrap_or(usize::MAX).min(uint("context_length")?),
            rms_eps: file.require(
                &key("attention.layer_norm_rms_epsilon"),
                file.float(&key("attention.layer_norm_rms_epsilon"))?,
            )?,
            rope: RopeConfig {
                theta: file.float(&key("rope.freq_base"))?.unwrap_or(10_000.0),
                scaling: gguf_scaling(file, &key("rope"))?,
            },
            qkv_bias: file.contains("blk.0.attn_q.bias"),
            qk_norm: file.contains("blk.0.attn_q_norm.weight"),
            tied_head: !file.contains("output.weight"),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks ranges and consistency.
    ///
    /// # Errors
    /// If the configuration (which may come from a file) is not usable.
    pub fn validate(&self) -> Result<()> {
        if !matches!(self.architecture, Family::Llama | Family::Qwen2 | Family::Qwen3) {
            return Err(Error::UnsupportedArchitecture {
                got: self.architecture.as_str().to_owned(),
                supported: "llama, qwen2, qwen3",
            });
        }
        let ranges = [
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("blocks", self.blocks, MAX_BLOCKS),
            ("heads", self.heads, MAX_WIDTH),
            ("kv_heads", self.kv_heads, self.heads),
            ("head_dim", self.head_dim, MAX_WIDTH),
            ("heads * head_dim", self.heads.saturating_mul(self.head_dim), MAX_WIDTH),
            ("context_length", self.context_length, MAX_CONTEXT),
        ];
        for (field, got, limit) in ranges {
            if got == 0 || got > limit {
                return Err(Error::config(field, format!("expected 1..={limit}, got {got}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::config(
                "kv_heads",
                format!("{} does not divide {} heads", self.kv_heads, self.heads),
            ));
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return Err(Error::config("rms_eps", format!("expected 0 or more, got {}", self.rms_eps)));
        }
        self.rope.frequencies(self.head_dim).map(|_| ())
    }

    /// Heads of the attention.
    pub fn attention_heads(&self) -> Heads {
        Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim }
    }

    /// Width of q, and of the attention's output.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of k and of v.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Biases that some models of the `llama` architecture have and this crate does not add.
const UNSUPPORTED_BIASES: [&str; 5] = [
    "blk.0.attn_output.bias",
    "blk.0.ffn_gate.bias",
    "blk.0.ffn_up.bias",
    "blk.0.ffn_down.bias",
    "output.bias",
];

/// The scaling under `prefix`: its type with a factor, in old files the factor alone; or the divisors of a tensor.
fn gguf_scaling(file: &GgufFile, prefix: &str) -> Result<RopeScaling> {
    let factor_key = format!("{prefix}.scaling.factor");
    let named = match file.string(&format!("{prefix}.scaling.type"))? {
        None => match file.float(&format!("{prefix}.scale_linear"))? {
            None | Some(1.0) => RopeScaling::None,
            Some(factor) => RopeScaling::Linear { factor },
        },
        Some("none") => RopeScaling::None,
        Some("linear") => {
            RopeScaling::Linear { factor: file.require(&factor_key, file.float(&factor_key)?)? }
        }
        Some(other) => return Err(Error::config("rope scaling", format!("{other:?} is not supported"))),
    };
    if !file.contains("rope_freqs.weight") {
        return Ok(named);
    }
    if named != RopeScaling::None {
        return Err(Error::config(
            "rope scaling",
            "rope_freqs.weight and a factor together are not supported",
        ));
    }
    let divisors = file.get("rope_freqs.weight")?.flatten_all()?.to_vec1::<f32>()?;
    Ok(RopeScaling::Factors { divisors: divisors.into_iter().map(f64::from).collect() })
}
