//! OLMo 2: norms after attention and feed-forward layer only, and of all heads of queries and keys together.

use super::Family;
use super::config::{Form, ModelConfig, QkNorm};
use super::names::{EMPTY, LLAMA_OUTER, Names, Rule::Is};
use super::reading::{GgufFields, JsonFields};
use crate::Result;

/// OLMo 2.
pub struct Olmo2;

static NAMES: Names = Names {
    roots: &["model."],
    blocks: "layers.",
    block: &[
        ("attn_q", Is("self_attn.q_proj")),
        ("attn_k", Is("self_attn.k_proj")),
        ("attn_v", Is("self_attn.v_proj")),
        ("attn_output", Is("self_attn.o_proj")),
        ("attn_q_norm", Is("self_attn.q_norm")),
        ("attn_k_norm", Is("self_attn.k_norm")),
        ("post_attention_norm", Is("post_attention_layernorm")),
        ("post_ffw_norm", Is("post_feedforward_layernorm")),
        ("ffn_gate", Is("mlp.gate_proj")),
        ("ffn_up", Is("mlp.up_proj")),
        ("ffn_down", Is("mlp.down_proj")),
    ],
    outer: LLAMA_OUTER,
    ..EMPTY
};

fn olmo2(mut config: ModelConfig) -> ModelConfig {
    config.form = Form::Post;
    config.qk_norm = QkNorm::Whole;
    config
}

impl Family for Olmo2 {
    fn name(&self) -> &'static str {
        "olmo2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["olmo2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["olmo2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        Ok(olmo2(file.decoder(self, false)?))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        Ok(olmo2(file.decoder(self)?))
    }
}
