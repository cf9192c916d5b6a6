//! GPT-NeoX and Pythia: attention and feed-forward layer in parallel, each with a separate norm; a part of each head is
//! rotated.

use super::Family;
use super::config::{Biases, Form, ModelConfig};
use super::names::{EMPTY, Names, Rule::Is, Rule::PerHead};
use super::reading::{GgufFields, JsonFields};
use crate::Result;
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;

/// GPT-NeoX.
pub struct GptNeoX;

static NAMES: Names = Names {
    roots: &["gpt_neox.", ""],
    blocks: "layers.",
    block: &[
        ("attn_norm", Is("input_layernorm")),
        ("attn_q", PerHead("attention.query_key_value", 0)),
        ("attn_k", PerHead("attention.query_key_value", 1)),
        ("attn_v", PerHead("attention.query_key_value", 2)),
        ("attn_output", Is("attention.dense")),
        ("ffn_norm", Is("post_attention_layernorm")),
        ("ffn_up", Is("mlp.dense_h_to_4h")),
        ("ffn_down", Is("mlp.dense_4h_to_h")),
    ],
    outer: &[
        ("token_embd", Is("embed_in")),
        ("output_norm", Is("final_layer_norm")),
        ("output", Is("/embed_out")),
        ("output", Is("/lm_head")),
    ],
    ..EMPTY
};

fn neox(mut config: ModelConfig, parallel: bool) -> ModelConfig {
    config.form = if parallel { Form::ParallelTwoNorms } else { Form::Pre };
    config.gated = false;
    config.norm.kind = NormKind::Layer;
    config.norm.bias = true;
    config
}

impl Family for GptNeoX {
    fn name(&self) -> &'static str {
        "gpt_neox"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gpt_neox"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["gptneox"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        let mut config = neox(file.decoder(self, false)?, file.flag("use_parallel_residual", true)?);
        let attention = file.flag("attention_bias", true)?;
        config.biases = Biases { qkv: attention, attn_out: attention, ..Biases::BLOCKS };
        Ok(config)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = neox(file.decoder(self)?, file.flag("use_parallel_residual", true)?);
        config.activation = Activation::Gelu;
        Ok(config)
    }
}
