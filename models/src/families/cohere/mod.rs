//! Cohere's Command R and Aya: attention and feed-forward layer of the same normed residual, layer norms without biases,
//! rotary pairs next to each other; Command R7B has windows, and rotates in these only.

use super::Family;
use super::config::{BlockAttention, Form, ModelConfig};
use super::names::{self, Names};
use super::reading::{GgufFields, JsonFields};
use crate::Result;
use crate::local_ops::norm::NormKind;

/// Command R and Aya.
pub struct Cohere;

/// Command R7B.
pub struct Cohere2;

static NAMES: Names = Names { interleaved: true, ..names::llama() };

fn cohere(mut config: ModelConfig, logit_scale: Option<f64>) -> ModelConfig {
    config.form = Form::Parallel;
    config.norm.kind = NormKind::Layer;
    config.scales.logits = logit_scale.unwrap_or(0.0625);
    config
}

fn windowed(mut config: ModelConfig, window: Option<usize>, slides: impl Fn(usize) -> bool) -> ModelConfig {
    let block = |i: usize| match slides(i) {
        true => {
            BlockAttention { window: window.filter(|&window| window < config.context_length), rope: Some(0) }
        }
        false => BlockAttention { window: None, rope: None },
    };
    config.block_attention = (0..config.blocks.min(crate::limits::MAX_BLOCKS)).map(block).collect();
    config
}

impl Family for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["cohere"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["command-r"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn gguf_names(&self) -> &'static Names {
        &names::GGUF_INTERLEAVED
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("use_qk_norm", true)?;
        Ok(cohere(file.decoder(self, true)?, file.float("logit_scale")?))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        file.refuse_tensors(&["attn_q_norm.weight", "attn_k_norm.weight"])?;
        Ok(cohere(file.decoder(self)?, file.float("logit_scale")?))
    }
}

impl Family for Cohere2 {
    fn name(&self) -> &'static str {
        "cohere2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["cohere2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["cohere2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn gguf_names(&self) -> &'static Names {
        &names::GGUF_INTERLEAVED
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        let config = cohere(file.decoder(self, true)?, file.float("logit_scale")?);
        let pattern = file.uint("sliding_window_pattern")?.unwrap_or(4).max(1);
        let kinds = file.layer_types()?;
        let slides = |i: usize| match &kinds {
            Some(kinds) => kinds.get(i) == Some(&"sliding_attention"),
            None => !(i + 1).is_multiple_of(pattern),
        };
        Ok(windowed(config, file.uint("sliding_window")?, slides))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let config = cohere(file.decoder(self)?, file.float("logit_scale")?);
        Ok(windowed(config, file.uint("attention.sliding_window")?, |i| (i + 1) % 4 != 0))
    }
}
