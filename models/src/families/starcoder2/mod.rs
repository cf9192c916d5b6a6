//! StarCoder2: rotary positions, layer norms, biases everywhere and a feed-forward layer without a gate.

use super::Family;
use super::config::{Biases, ModelConfig};
use super::names::{EMPTY, LLAMA_OUTER, Names, Rule::Is};
use super::reading::{GgufFields, JsonFields};
use crate::Result;
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;

/// StarCoder2.
pub struct StarCoder2;

static NAMES: Names = Names {
    roots: &["model."],
    blocks: "layers.",
    block: &[
        ("attn_norm", Is("input_layernorm")),
        ("attn_q", Is("self_attn.q_proj")),
        ("attn_k", Is("self_attn.k_proj")),
        ("attn_v", Is("self_attn.v_proj")),
        ("attn_output", Is("self_attn.o_proj")),
        ("ffn_norm", Is("post_attention_layernorm")),
        ("ffn_up", Is("mlp.c_fc")),
        ("ffn_down", Is("mlp.c_proj")),
    ],
    outer: LLAMA_OUTER,
    ..EMPTY
};

fn starcoder2(mut config: ModelConfig) -> ModelConfig {
    config.gated = false;
    config.norm.kind = NormKind::Layer;
    config.norm.bias = true;
    config
}

impl Family for StarCoder2 {
    fn name(&self) -> &'static str {
        "starcoder2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["starcoder2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["starcoder2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        let mut config = starcoder2(file.decoder(self, true)?);
        if file.flag("use_bias", true)? {
            config.biases = Biases::BLOCKS;
        }
        Ok(config)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = starcoder2(file.decoder(self)?);
        config.activation = Activation::GeluTanh;
        Ok(config)
    }
}
