//! Granite: a Llama with constant factors on embeddings, attention scores, the residual stream and logits.

use super::Family;
use super::config::ModelConfig;
use super::names::{self, Names};
use super::reading::{GgufFields, JsonFields};
use crate::Result;

/// Granite.
pub struct Granite;

impl Family for Granite {
    fn name(&self) -> &'static str {
        "granite"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["granite"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["granite"]
    }

    fn names(&self) -> &'static Names {
        &names::LLAMA
    }

    fn gguf_names(&self) -> &'static Names {
        &names::GGUF_INTERLEAVED
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("mlp_bias", true)?;
        let mut config = file.decoder(self, false)?;
        config.scales.embedding = file.float("embedding_multiplier")?.unwrap_or(1.0);
        config.scales.residual = file.float("residual_multiplier")?.unwrap_or(1.0);
        config.scales.logits = 1.0 / file.float("logits_scaling")?.unwrap_or(1.0);
        config.score_scale = file.float("attention_multiplier")?.unwrap_or(1.0);
        Ok(config)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = file.decoder(self)?;
        config.scales.embedding = file.float("embedding_scale")?.unwrap_or(1.0);
        config.scales.residual = file.float("residual_scale")?.unwrap_or(1.0);
        config.scales.logits = 1.0 / file.float("logit_scale")?.unwrap_or(1.0);
        config.score_scale = file.float("attention.scale")?.unwrap_or(config.score_scale);
        Ok(config)
    }
}
