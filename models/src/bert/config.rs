//! Shapes and labels of a BERT encoder.

use crate::layers::attention::Heads;
use crate::limits::{MAX_BLOCKS, MAX_CONTEXT, MAX_VOCABULARY, MAX_WIDTH};
use crate::weights::WeightSource;
use crate::weights::gguf::GgufFile;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels of a token classifier; the largest tag sets in use have a few hundred.
const MAX_LABELS: usize = 4096;

/// Configuration of a BERT encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub heads: usize,
    /// Positions the model was trained for, special tokens included.
    pub max_positions: usize,
    /// Segment embeddings; only the first is used.
    pub token_types: usize,
    /// Added to the variance before the root.
    pub layer_norm_eps: f64,
    /// Labels of the token classifier, by index; empty for an encoder without one.
    pub labels: Vec<String>,
    /// What of a sentence's hidden states is its embedding. Not written where it is the mean, as older splits have it.
    #[serde(default, skip_serializing_if = "Pooling::is_mean")]
    pub pooling: Pooling,
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

    fn is_mean(&self) -> bool {
        *self == Self::Mean
    }
}

/// `config.json` as Hugging Face writes it; other fields do not change the computation.
#[derive(Deserialize)]
struct HuggingFace {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
}

fn two() -> usize {
    2
}

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// A model whose architecture is `BertForTokenClassification` has a classifier; any other is taken as an encoder.
    ///
    /// # Errors
    /// If it is not that of a BERT model, or values are missing or out of range.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let file: HuggingFace =
            serde_json::from_slice(json).map_err(|source| Error::config("config.json", source))?;
        match file.model_type.as_deref() {
            None | Some("bert") => {}
            Some(other) => {
                return Err(Error::UnsupportedArchitecture {
                    got: other.to_owned(),
                    supported: crate::config::Family::SUPPORTED,
                });
            }
        }
        if file.hidden_act.as_deref().is_some_and(|act| act != "gelu") {
            return Err(Error::config("hidden_act", "only gelu is supported"));
        }
        if file.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            return Err(Error::config("position_embedding_type", "only absolute is supported"));
        }
        if file.is_decoder {
            return Err(Error::config("is_decoder", "only encoders are supported"));
        }
        let classifies = file.architectures.iter().any(|name| name == "BertForTokenClassification");
        let config = Self {
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            max_positions: file.max_position_embeddings,
            token_types: file.type_vocab_size,
            layer_norm_eps: file.layer_norm_eps,
            labels: if classifies { ordered_labels(file.id2label)? } else { Vec::new() },
            pooling: Pooling::Mean,
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads a GGUF file's metadata, of an encoder without a classifier.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type or an unusable value.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let uint = |name: &str| -> Result<usize> {
            let key = format!("bert.{name}");
            file.require(&key, file.uint(&key)?)
        };
        if file.flag("bert.attention.causal")? == Some(true) {
            return Err(Error::config("attention.causal", "only encoders are supported"));
        }
        let types = "token_types.weight";
        let token_types = file.shape(types).and_then(|shape| shape.first().copied());
        let eps_key = "bert.attention.layer_norm_epsilon";
        let config = Self {
            vocab_size: file.vocabulary_size()?,
            hidden_size: uint("embedding_length")?,
            intermediate_size: uint("feed_forward_length")?,
            layers: uint("block_count")?,
            heads: uint("attention.head_count")?,
            max_positions: uint("context_length")?,
            token_types: token_types.ok_or_else(|| Error::MissingTensor { name: types.to_owned() })?,
            layer_norm_eps: file.require(eps_key, file.float(eps_key)?)?,
            labels: Vec::new(),
            // GGUF numbers them: none, mean, first token, last token, rank.
            pooling: match file.uint("bert.pooling_type")? {
                None | Some(0 | 1) => Pooling::Mean,
                Some(2) => Pooling::First,
                Some(other) => {
                    return Err(Error::config("pooling_type", format!("{other} is not supported")));
                }
            },
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
        check("hidden_size", self.hidden_size, MAX_WIDTH)?;
        check("intermediate_size", self.intermediate_size, MAX_WIDTH)?;
        check("num_hidden_layers", self.layers, MAX_BLOCKS)?;
        check("num_attention_heads", self.heads, self.hidden_size)?;
        check("max_position_embeddings", self.max_positions, MAX_CONTEXT)?;
        check("type_vocab_size", self.token_types, MAX_VOCABULARY)?;
        if !self.hidden_size.is_multiple_of(self.heads) {
            return Err(Error::config("num_attention_heads", "does not divide hidden_size"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(Error::config("layer_norm_eps", "expected a number between 0 and 1"));
        }
        if self.labels.len() > MAX_LABELS {
            return Err(Error::config("id2label", format!("more than {MAX_LABELS} labels")));
        }
        Ok(())
    }

    /// Whether the model ends in a token classifier.
    pub fn classifies(&self) -> bool {
        !self.labels.is_empty()
    }

    pub(super) fn attention(&self) -> Heads {
        Heads { query: self.heads, kv: self.heads, dim: self.hidden_size / self.heads }
    }
}

/// The labels `0 .. n` of `id2label`.
fn ordered_labels(id2label: BTreeMap<String, String>) -> Result<Vec<String>> {
    let count = id2label.len();
    let labels: Vec<String> = (0..count).map_while(|id| id2label.get(&id.to_string()).cloned()).collect();
    if count == 0 || labels.len() != count {
        return Err(Error::config("id2label", "expected the labels 0 to n - 1 of a token classifier"));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"architectures": ["BertForTokenClassification"], "vocab_size": 9, "hidden_size": 8,
        "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
        "layer_norm_eps": 1e-12, "id2label": {"0": "O", "1": "B-X", "2": "I-X"}}"#;

    #[test]
    fn labels_are_ordered_by_id() {
        let config = Config::from_json(MINIMAL.as_bytes()).unwrap();
        assert_eq!(config.labels, ["O", "B-X", "I-X"]);
        assert_eq!(config.attention().dim, 4);
    }

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

    #[test]
    fn configurations_of_older_splits_are_read_and_written_as_before() {
        let config = Config::from_json(MINIMAL.as_bytes()).unwrap();
        let mut json = serde_json::to_value(&config).unwrap();
        assert_eq!(json.get("pooling"), None);
        assert_eq!(serde_json::from_value::<Config>(json.clone()).unwrap(), config);
        json["pooling"] = "first".into();
        assert_eq!(serde_json::from_value::<Config>(json).unwrap().pooling, Pooling::First);
    }

    #[test]
    fn impossible_values_are_refused() {
        for (from, to) in [
            ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3"),
            ("\"hidden_size\": 8", "\"hidden_size\": 800000"),
            ("\"2\": \"I-X\"", "\"3\": \"I-X\""),
            ("1e-12", "-1"),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"hidden_act\": \"relu\","),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"is_decoder\": true,"),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"model_type\": \"roberta\","),
        ] {
            assert!(Config::from_json(MINIMAL.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
