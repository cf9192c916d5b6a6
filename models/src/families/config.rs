//! The configuration of a transformer, whatever its family.

use super::{FamilyId, ModelKind};
use crate::limits::{MAX_BLOCKS, MAX_CONTEXT, MAX_LABELS, MAX_VOCABULARY, MAX_WIDTH};
use crate::local_ops::activation::Activation;
use crate::local_ops::attention::{Heads, Scores};
use crate::local_ops::norm::NormKind;
use crate::local_ops::rope::RopeConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Shapes and variants of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The family.
    pub family: FamilyId,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Positions the model was trained for; for an encoder special tokens included.
    pub context_length: usize,
    /// Norms of the residual stream.
    pub norm: NormConfig,
    /// Where the norms are, and how attention and feed-forward layer follow each other.
    pub form: Form,
    /// The nonlinear function of the feed-forward layer.
    pub activation: Activation,
    /// Whether the feed-forward layer multiplies the function's value by a second product.
    pub gated: bool,
    /// Which linear layers have biases.
    #[serde(default)]
    pub biases: Biases,
    /// Multiplies the products of queries and keys; usually `1 / sqrt(head_dim)`.
    pub score_scale: f64,
    /// Bounds attention scores: `cap * tanh(score / cap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_cap: Option<f64>,
    /// Norms of queries and keys.
    #[serde(default)]
    pub qk_norm: QkNorm,
    /// How tokens know their positions.
    pub positions: Positions,
    /// For each block what its attention sees and how it is rotated; empty if all blocks see everything and are rotated
    /// by the first table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block_attention: Vec<BlockAttention>,
    /// Constant factors.
    #[serde(default)]
    pub scales: Scales,
    /// Bounds the logits: `cap * tanh(logit / cap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_cap: Option<f64>,
    /// Whether the output head is the embedding matrix; false for encoders.
    pub tied_head: bool,
    /// What only encoders have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderConfig>,
}

/// Norms of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormConfig {
    /// What they divide by.
    pub kind: NormKind,
    /// Added before the root.
    pub eps: f64,
    /// Whether they have biases.
    pub bias: bool,
}

/// The form of a block; `A` is attention with its output layer, `F` the feed-forward layer, `N` a separate norm each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `h += A(N h)`, `h += F(N h)`.
    Pre,
    /// `h += N A(h)`, `h += N F(h)` (OLMo 2).
    Post,
    /// `h += N A(N h)`, `h += N F(N h)` (Gemma 2).
    Sandwich,
    /// `h = N (h + A h)`, `h = N (h + F h)` (BERT).
    Residual,
    /// `h += A(n) + F(n)`, `n = N h` (Phi, Cohere).
    Parallel,
    /// `h += A(N h) + F(N h)` (GPT-NeoX).
    ParallelTwoNorms,
}

impl Form {
    /// Whether attention and feed-forward layer read the same residual.
    pub fn is_parallel(self) -> bool {
        matches!(self, Self::Parallel | Self::ParallelTwoNorms)
    }

    /// Whether what a layer adds to the residual stream is normed first.
    pub fn norms_branches(self) -> bool {
        matches!(self, Self::Post | Self::Sandwich)
    }
}

/// Which linear layers have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// The attention's output.
    pub attn_out: bool,
    /// The feed-forward layer's first matrices.
    pub inner: bool,
    /// The feed-forward layer's last matrix.
    pub down: bool,
    /// The output head or classifier.
    pub head: bool,
}

impl Biases {
    /// All but the head's.
    pub const BLOCKS: Self = Self { qkv: true, attn_out: true, inner: true, down: true, head: false };
}

/// Norms of queries and keys, always of root-mean-square kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    /// None.
    #[default]
    None,
    /// Each head by itself.
    PerHead,
    /// All heads together.
    Whole,
}

/// How tokens know their positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Positions {
    /// An embedding per position is added.
    Learned,
    /// Queries and keys are rotated.
    Rotary {
        /// Values of a head that are rotated, the first ones.
        dim: usize,
        /// Tables of frequencies; blocks name theirs.
        tables: Vec<RopeConfig>,
    },
}

/// What the attention of one block sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAttention {
    /// Positions seen, the token's own included; in an encoder the neighbours seen on either side. `None` for all.
    pub window: Option<usize>,
    /// Index of the rotary table, or no rotation.
    pub rope: Option<usize>,
}

/// Constant factors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scales {
    /// Multiplies embeddings.
    pub embedding: f64,
    /// Multiplies what attention and feed-forward layer add to the residual stream.
    pub residual: f64,
    /// Multiplies logits.
    pub logits: f64,
}

impl Default for Scales {
    fn default() -> Self {
        Self { embedding: 1.0, residual: 1.0, logits: 1.0 }
    }
}

/// What only encoders have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Segment embeddings, of which the first is added; 0 if there are none.
    pub token_types: usize,
    /// Labels of the token classifier, by index; empty without one.
    pub labels: Vec<String>,
    /// Which hidden states make a sentence's embedding.
    pub pooling: Pooling,
    /// Whether the first block's attention reads the embeddings as they are, without a norm (ModernBERT).
    #[serde(default)]
    pub first_block_unnormed: bool,
}

/// How hidden states become a sentence's embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean, special tokens included.
    #[default]
    Mean,
    /// That of the first token, `[CLS]`.
    First,
}

impl Pooling {
    /// Reads the `1_Pooling/config.json` of sentence-transformers; without a file (null) it is the mean.
    ///
    /// # Errors
    /// If the file asks for another pooling.
    pub fn from_json(file: &serde_json::Value) -> Result<Self> {
        // One name, or, in older files, a flag for each of several.
        let named = file.get("pooling_mode").and_then(serde_json::Value::as_str);
        let flags = file.as_object().into_iter().flatten().filter(|(_, set)| set.as_bool() == Some(true));
        let flagged = flags.filter_map(|(name, _)| name.strip_prefix("pooling_mode_"));
        match named.into_iter().chain(flagged).collect::<Vec<_>>()[..] {
            ["mean" | "mean_tokens"] => Ok(Self::Mean),
            ["cls" | "cls_token"] => Ok(Self::First),
            [] if file.is_null() => Ok(Self::Mean),
            _ => Err(Error::config("pooling_mode", "only the mean or the first token can be taken")),
        }
    }
}

impl ModelConfig {
    /// What the model does.
    pub fn kind(&self) -> ModelKind {
        self.family.kind()
    }

    /// Width of q, and of the attention's output.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of k and of v.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Heads of the attention.
    pub fn attention_heads(&self) -> Heads {
        Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim }
    }

    /// How attention scores become weights.
    pub fn scores(&self) -> Scores {
        Scores { scale: self.score_scale as f32, cap: self.score_cap.map(|cap| cap as f32) }
    }

    /// What the attention of block `i` sees.
    pub fn block_attention(&self, i: usize) -> BlockAttention {
        let rope = match self.positions {
            Positions::Learned => None,
            Positions::Rotary { .. } => Some(0),
        };
        self.block_attention.get(i).copied().unwrap_or(BlockAttention { window: None, rope })
    }

    /// Labels of the token classifier; none for a model without one.
    pub fn labels(&self) -> &[String] {
        self.encoder.as_ref().map_or(&[], |encoder| &encoder.labels)
    }

    /// Rows and width of the head that is the embedding matrix, which the client then holds; `None` where there is no
    /// such head.
    pub fn tied_head(&self) -> Option<(usize, usize)> {
        self.tied_head.then_some((self.vocab_size, self.hidden_size))
    }

    /// Checks that all values are in range and agree with each other.
    ///
    /// # Errors
    /// If one does not; a configuration may come from a file.
    pub fn validate(&self) -> Result<()> {
        let count = |what, got: usize, limit: usize| match got {
            1.. if got <= limit => Ok(()),
            _ => Err(Error::out_of_range(what, format!("1 to {limit}"), got)),
        };
        count("vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        count("hidden_size", self.hidden_size, MAX_WIDTH)?;
        count("intermediate_size", self.intermediate_size, MAX_WIDTH)?;
        count("blocks", self.blocks, MAX_BLOCKS)?;
        count("heads", self.heads, MAX_WIDTH)?;
        count("kv_heads", self.kv_heads, self.heads)?;
        count("head_dim", self.head_dim, MAX_WIDTH)?;
        count("heads * head_dim", self.heads.saturating_mul(self.head_dim), MAX_WIDTH)?;
        count("context_length", self.context_length, MAX_CONTEXT)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::config(
                "kv_heads",
                format!("{} does not divide {} heads", self.kv_heads, self.heads),
            ));
        }
        if !(self.norm.eps >= 0.0 && self.norm.eps < 1.0) {
            return Err(Error::out_of_range("norm eps", "from 0 to below 1", self.norm.eps));
        }
        let factors = [
            ("score_scale", self.score_scale),
            ("score_cap", self.score_cap.unwrap_or(1.0)),
            ("logit_cap", self.logit_cap.unwrap_or(1.0)),
            ("embedding scale", self.scales.embedding),
            ("residual scale", self.scales.residual),
            ("logit scale", self.scales.logits),
        ];
        for (what, factor) in factors {
            if !(factor.is_finite() && factor > 0.0) {
                return Err(Error::out_of_range(what, "a positive number", factor));
            }
        }
        self.validate_positions()?;
        self.validate_encoder()
    }

    fn validate_positions(&self) -> Result<()> {
        let tables = match &self.positions {
            Positions::Learned => 0,
            Positions::Rotary { dim, tables } => {
                if *dim > self.head_dim {
                    let range = format!("2 to the width of a head, {}", self.head_dim);
                    return Err(Error::out_of_range("rotary dim", range, dim));
                }
                tables.iter().try_for_each(|table| table.frequencies(*dim).map(drop))?;
                tables.len()
            }
        };
        if !self.block_attention.is_empty() && self.block_attention.len() != self.blocks {
            let (got, blocks) = (self.block_attention.len(), self.blocks);
            return Err(Error::config("block_attention", format!("has {got} entries for {blocks} blocks")));
        }
        for attention in (0..self.blocks).map(|i| self.block_attention(i)) {
            if attention.window == Some(0) || attention.rope.is_some_and(|table| table >= tables) {
                return Err(Error::config("block_attention", format!("{attention:?} is not usable")));
            }
        }
        Ok(())
    }

    fn validate_encoder(&self) -> Result<()> {
        if self.encoder.is_some() != (self.kind() == ModelKind::Encoder) {
            return Err(Error::config("encoder", format!("does not fit the family {}", self.family)));
        }
        let Some(encoder) = &self.encoder else { return Ok(()) };
        if self.tied_head {
            return Err(Error::config("tied_head", "an encoder has no head over the vocabulary"));
        }
        if encoder.token_types > MAX_VOCABULARY {
            return Err(Error::out_of_range(
                "token_types",
                format!("0 to {MAX_VOCABULARY}"),
                encoder.token_types,
            ));
        }
        if encoder.labels.len() > MAX_LABELS {
            return Err(Error::out_of_range("labels", format!("0 to {MAX_LABELS}"), encoder.labels.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_is_the_mean_or_the_first_token() {
        let pooling = |json: &str| Pooling::from_json(&serde_json::from_str(json).unwrap());
        assert_eq!(pooling("null").unwrap(), Pooling::Mean);
        let mean = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#;
        assert_eq!(pooling(mean).unwrap(), Pooling::Mean);
        let first = r#"{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}"#;
        assert_eq!(pooling(first).unwrap(), Pooling::First);
        assert_eq!(pooling(r#"{"pooling_mode": "cls"}"#).unwrap(), Pooling::First);
        assert!(pooling(r#"{"pooling_mode_lasttoken": true}"#).is_err());
        assert!(pooling("{}").is_err());
        assert!(pooling(r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#).is_err());
    }
}
