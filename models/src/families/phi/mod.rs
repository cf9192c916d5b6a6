//! Phi-3 and Phi-4, Llamas with q, k, v and gate, up in one tensor each; and Phi-1.5 and Phi-2, whose attention and
//! feed-forward layer read the same normed residual.

use super::Family;
use super::config::{Biases, Form, ModelConfig};
use super::names::{EMPTY, LLAMA_OUTER, Names, Rule::Is, Rule::Of, Share, gguf};
use super::reading::{GgufFields, JsonFields};
use crate::Result;
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;

/// Phi-1.5 and Phi-2.
pub struct Phi;

/// Phi-3 and Phi-4.
pub struct Phi3;

static NAMES: Names = Names {
    roots: &["model."],
    blocks: "layers.",
    block: &[
        ("attn_norm", Is("input_layernorm")),
        ("attn_q", Is("self_attn.q_proj")),
        ("attn_k", Is("self_attn.k_proj")),
        ("attn_v", Is("self_attn.v_proj")),
        ("attn_output", Is("self_attn.dense")),
        ("ffn_up", Is("mlp.fc1")),
        ("ffn_down", Is("mlp.fc2")),
    ],
    outer: &[
        ("token_embd", Is("embed_tokens")),
        ("output_norm", Is("final_layernorm")),
        ("output", Is("/lm_head")),
    ],
    ..EMPTY
};

static NAMES_3: Names = Names {
    roots: &["model."],
    blocks: "layers.",
    block: &[
        ("attn_norm", Is("input_layernorm")),
        ("attn_q", Of("self_attn.qkv_proj", Share::Q)),
        ("attn_k", Of("self_attn.qkv_proj", Share::K)),
        ("attn_v", Of("self_attn.qkv_proj", Share::V)),
        ("attn_output", Is("self_attn.o_proj")),
        ("ffn_norm", Is("post_attention_layernorm")),
        ("ffn_gate", Of("mlp.gate_up_proj", Share::First)),
        ("ffn_up", Of("mlp.gate_up_proj", Share::Second)),
        ("ffn_down", Is("mlp.down_proj")),
    ],
    outer: LLAMA_OUTER,
    ..EMPTY
};

static GGUF_3: Names = Names {
    block: &[
        ("attn_q", Of("attn_qkv", Share::Q)),
        ("attn_k", Of("attn_qkv", Share::K)),
        ("attn_v", Of("attn_qkv", Share::V)),
        ("ffn_gate", Of("ffn_up", Share::First)),
        ("ffn_up", Of("ffn_up", Share::Second)),
    ],
    ..gguf()
};

fn phi(mut config: ModelConfig) -> ModelConfig {
    config.form = Form::Parallel;
    config.gated = false;
    config.norm.kind = NormKind::Layer;
    config.norm.bias = true;
    config.activation = Activation::GeluTanh;
    config.biases = Biases { head: !config.tied_head, ..Biases::BLOCKS };
    config
}

impl Family for Phi {
    fn name(&self) -> &'static str {
        "phi"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["phi"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["phi2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("qk_layernorm", true)?;
        if file
            .text("hidden_act")?
            .is_some_and(|name| Activation::from_name(name).ok() != Some(Activation::GeluTanh))
        {
            return Err(crate::Error::config("hidden_act", "only gelu_new is supported"));
        }
        file.refuse_flag("tie_word_embeddings", true)?;
        Ok(phi(file.decoder(self, false)?))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        Ok(phi(file.decoder(self)?))
    }
}

impl Family for Phi3 {
    fn name(&self) -> &'static str {
        "phi3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["phi3"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["phi3"]
    }

    fn names(&self) -> &'static Names {
        &NAMES_3
    }

    fn gguf_names(&self) -> &'static Names {
        &GGUF_3
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.decoder(self, false)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = file.decoder(self)?;
        // The frequencies for contexts up to the original one are taken; beyond it all keys would have to be rotated anew.
        if file.has_factors()
            && let Some(original) = file.uint("rope.scaling.original_context_length")?
        {
            config.context_length = config.context_length.min(original);
        }
        Ok(config)
    }
}
