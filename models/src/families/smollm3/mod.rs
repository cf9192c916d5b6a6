//! SmolLM3: a Llama some of whose blocks do not rotate queries and keys.

use super::Family;
use super::config::{BlockAttention, ModelConfig};
use super::names::{self, Names};
use super::reading::{GgufFields, JsonFields};
use crate::{Error, Result};

/// SmolLM3.
pub struct SmolLm3;

/// Every fourth block is not rotated where a file does not say which.
const INTERVAL: usize = 4;

fn without_rotation(mut config: ModelConfig, rotates: impl Fn(usize) -> bool) -> ModelConfig {
    let block = |i: usize| BlockAttention { rope: rotates(i).then_some(0), ..config.block_attention(i) };
    config.block_attention = (0..config.blocks.min(crate::limits::MAX_BLOCKS)).map(block).collect();
    config
}

impl Family for SmolLm3 {
    fn name(&self) -> &'static str {
        "smollm3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["smollm3"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["smollm3"]
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
        let config = file.decoder(self, true)?;
        let interval = file.uint("no_rope_layer_interval")?.unwrap_or(INTERVAL).max(1);
        let Some(listed) = file.value("no_rope_layers") else {
            return Ok(without_rotation(config, |i| !(i + 1).is_multiple_of(interval)));
        };
        // 1 for a block that is rotated, whatever the field's name says.
        let listed: Option<Vec<bool>> =
            listed.as_array().and_then(|all| all.iter().map(|flag| Some(flag.as_u64()? != 0)).collect());
        match listed {
            Some(rotated) if rotated.len() == config.blocks => Ok(without_rotation(config, |i| rotated[i])),
            _ => Err(Error::config("no_rope_layers", "expected 0 or 1 for each block")),
        }
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        Ok(without_rotation(file.decoder(self)?, |i| (i + 1) % INTERVAL != 0))
    }
}
