//! Shapes of a GPT-2 decoder.

use crate::layers::attention::Heads;
use crate::limits::{MAX_BLOCKS, MAX_CONTEXT, MAX_VOCABULARY, MAX_WIDTH};
use crate::weights::gguf::GgufFile;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Configuration of a GPT-2 model; the head is tied to the embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub blocks: usize,
    /// Attention heads; divides `hidden_size`.
    pub heads: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Added to the variance before the root.
    pub layer_norm_eps: f64,
}

/// `config.json` as Hugging Face writes it.
#[derive(Deserialize)]
struct HuggingFace {
    model_type: Option<String>,
    vocab_size: usize,
    n_embd: usize,
    n_inner: Option<usize>,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    #[serde(default = "eps")]
    layer_norm_epsilon: f64,
    activation_function: Option<String>,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    scale_attn_weights: Option<bool>,
    #[serde(default)]
    add_cross_attention: bool,
}

fn eps() -> f64 {
    1e-5
}

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// If it is not that of a GPT-2 model, asks for a variant that this crate does not have, or values are missing
    /// or out of range.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let file: HuggingFace =
            serde_json::from_slice(json).map_err(|source| Error::config("config.json", source))?;
        if let Some(other) = file.model_type.filter(|name| name != "gpt2") {
            return Err(Error::UnsupportedArchitecture {
                got: other,
                supported: crate::config::Family::SUPPORTED,
            });
        }
        if file.activation_function.is_some_and(|name| name != "gelu_new") {
            return Err(Error::config("activation_function", "only gelu_new is supported"));
        }
        if file.tie_word_embeddings == Some(false) {
            return Err(Error::config("tie_word_embeddings", "only tied heads are supported"));
        }
        if file.scale_attn_by_inverse_layer_idx {
            return Err(Error::config("scale_attn_by_inverse_layer_idx", "is not supported"));
        }
        if file.scale_attn_weights == Some(false) {
            return Err(Error::config("scale_attn_weights", "unscaled attention is not supported"));
        }
        if file.add_cross_attention {
            return Err(Error::config("add_cross_attention", "is not supported"));
        }
        let config = Self {
            vocab_size: file.vocab_size,
            hidden_size: file.n_embd,
            intermediate_size: file.n_inner.unwrap_or(file.n_embd.saturating_mul(4)),
            blocks: file.n_layer,
            heads: file.n_head,
            context_length: file.n_positions,
            layer_norm_eps: file.layer_norm_epsilon,
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads a GGUF file's metadata.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type or an unusable value.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let uint = |name: &str| -> Result<usize> {
            let key = format!("gpt2.{name}");
            file.require(&key, file.uint(&key)?)
        };
        let eps_key = "gpt2.attention.layer_norm_epsilon";
        let config = Self {
            vocab_size: file.vocabulary_size()?,
            hidden_size: uint("embedding_length")?,
            intermediate_size: uint("feed_forward_length")?,
            blocks: uint("block_count")?,
            heads: uint("attention.head_count")?,
            context_length: uint("context_length")?,
            layer_norm_eps: file.require(eps_key, file.float(eps_key)?)?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that all values are in range and agree with each other.
    ///
    /// # Errors
    /// If one does not.
    pub fn validate(&self) -> Result<()> {
        let check = |field, value: usize, limit: usize| {
            if value == 0 || value > limit {
                return Err(Error::config(field, format!("expected 1 to {limit}, got {value}")));
            }
            Ok(())
        };
        check("vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        check("n_embd", self.hidden_size, MAX_WIDTH)?;
        check("n_inner", self.intermediate_size, MAX_WIDTH)?;
        check("n_layer", self.blocks, MAX_BLOCKS)?;
        check("n_head", self.heads, self.hidden_size)?;
        check("n_positions", self.context_length, MAX_CONTEXT)?;
        if !self.hidden_size.is_multiple_of(self.heads) {
            return Err(Error::config("n_head", "does not divide n_embd"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(Error::config("layer_norm_epsilon", "expected a number between 0 and 1"));
        }
        Ok(())
    }

    pub(super) fn attention(&self) -> Heads {
        Heads { query: self.heads, kv: self.heads, dim: self.hidden_size / self.heads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_that_are_not_computed_are_refused() {
        let json = r#"{"vocab_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 4}"#;
        assert_eq!(Config::from_json(json.as_bytes()).unwrap().intermediate_size, 32);
        for extra in [
            r#""model_type": "gptj""#,
            r#""activation_function": "relu""#,
            r#""tie_word_embeddings": false"#,
            r#""scale_attn_by_inverse_layer_idx": true"#,
            r#""scale_attn_weights": false"#,
            r#""add_cross_attention": true"#,
            r#""layer_norm_epsilon": 0"#,
        ] {
            let json = json.replacen('{', &format!("{{{extra},"), 1);
            assert!(Config::from_json(json.as_bytes()).is_err(), "{extra}");
        }
    }
}
