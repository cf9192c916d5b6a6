//! Gemma, Gemma 2 and Gemma 3: norms stored as their difference from 1, scaled embeddings, a gate of GELU; from Gemma 2 on
//! norms of what is added to the residual stream, and sliding windows; Gemma 2 bounds scores and logits, Gemma 3 norms the
//! heads of queries and keys and rotates them in windows by other frequencies.

use super::Family;
use super::config::{BlockAttention, Form, ModelConfig, Positions, QkNorm};
use super::names::{self, LLAMA_OUTER, Names, Rule::Is};
use super::reading::{GgufFields, JsonFields};
use crate::local_ops::activation::Activation;
use crate::local_ops::rope::RopeConfig;
use crate::{Error, Result};

/// Gemma.
pub struct Gemma;

/// Gemma 2.
pub struct Gemma2;

/// Gemma 3, text only.
pub struct Gemma3;

static FIRST_NAMES: Names = Names { norm_offset: 1.0, ..names::llama() };

static NAMES: Names = Names {
    roots: &["model.", "language_model.model.", "model.language_model."],
    block: &[
        ("attn_norm", Is("input_layernorm")),
        ("attn_q", Is("self_attn.q_proj")),
        ("attn_k", Is("self_attn.k_proj")),
        ("attn_v", Is("self_attn.v_proj")),
        ("attn_output", Is("self_attn.o_proj")),
        ("attn_q_norm", Is("self_attn.q_norm")),
        ("attn_k_norm", Is("self_attn.k_norm")),
        ("post_attention_norm", Is("post_attention_layernorm")),
        ("ffn_norm", Is("pre_feedforward_layernorm")),
        ("post_ffw_norm", Is("post_feedforward_layernorm")),
        ("ffn_gate", Is("mlp.gate_proj")),
        ("ffn_up", Is("mlp.up_proj")),
        ("ffn_down", Is("mlp.down_proj")),
    ],
    blocks: "layers.",
    outer: LLAMA_OUTER,
    norm_offset: 1.0,
    ..names::EMPTY
};

/// Base of the frequencies in windows where a file does not say it.
const LOCAL_THETA: f64 = 10_000.0;

/// What all three have in common.
fn gemma(mut config: ModelConfig, form: Form) -> ModelConfig {
    config.form = form;
    // Files of the first models say "gelu" and mean its approximation.
    config.activation = Activation::GeluTanh;
    config.scales.embedding = (config.hidden_size as f64).sqrt();
    config
}

fn scored(mut config: ModelConfig, scalar: f64) -> Result<ModelConfig> {
    if scalar <= 0.0 {
        return Err(Error::out_of_range("query_pre_attn_scalar", "above 0", scalar));
    }
    config.score_scale = 1.0 / scalar.sqrt();
    Ok(config)
}

/// Windows where `slides` says so.
fn windowed(mut config: ModelConfig, window: Option<usize>, slides: impl Fn(usize) -> bool) -> ModelConfig {
    let local = match &config.positions {
        Positions::Rotary { tables, .. } => tables.len().saturating_sub(1),
        Positions::Learned => 0,
    };
    let block = |i: usize| match slides(i) {
        true => BlockAttention {
            window: window.filter(|&window| window < config.context_length),
            rope: Some(local),
        },
        false => BlockAttention { window: None, rope: Some(0) },
    };
    config.block_attention = (0..config.blocks.min(crate::limits::MAX_BLOCKS)).map(block).collect();
    config
}

fn add_local_table(config: &mut ModelConfig, theta: f64) {
    if let Positions::Rotary { tables, .. } = &mut config.positions {
        tables.push(RopeConfig::plain(theta));
    }
}

fn slides(file: &JsonFields, i: usize, otherwise: bool) -> Result<bool> {
    Ok(match file.layer_types()? {
        Some(kinds) => kinds.get(i) == Some(&"sliding_attention"),
        None => otherwise,
    })
}

impl Family for Gemma {
    fn name(&self) -> &'static str {
        "gemma"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gemma"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["gemma"]
    }

    fn names(&self) -> &'static Names {
        &FIRST_NAMES
    }

    fn gguf_names(&self) -> &'static Names {
        &names::GGUF
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("use_bidirectional_attention", true)?;
        Ok(gemma(file.decoder(self, true)?, Form::Pre))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        Ok(gemma(file.decoder(self)?, Form::Pre))
    }
}

impl Family for Gemma2 {
    fn name(&self) -> &'static str {
        "gemma2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gemma2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["gemma2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("use_bidirectional_attention", true)?;
        let mut config = gemma(file.decoder(self, true)?, Form::Sandwich);
        config.score_cap = file.float("attn_logit_softcapping")?;
        config.logit_cap = file.float("final_logit_softcapping")?;
        let scalar = file.float("query_pre_attn_scalar")?.unwrap_or(config.head_dim as f64);
        let kinds: Vec<bool> =
            (0..config.blocks).map(|i| slides(file, i, i % 2 == 0)).collect::<Result<_>>()?;
        Ok(windowed(scored(config, scalar)?, file.uint("sliding_window")?, |i| kinds[i]))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = gemma(file.decoder(self)?, Form::Sandwich);
        config.score_cap = file.float("attn_logit_softcapping")?;
        config.logit_cap = file.float("final_logit_softcapping")?;
        // As llama.cpp tells the 27B model, whose scale is not that of its heads.
        let scalar = match config.blocks {
            46 => config.hidden_size as f64 / config.heads.max(1) as f64,
            _ => config.head_dim as f64,
        };
        Ok(windowed(scored(config, scalar)?, file.uint("attention.sliding_window")?, |i| i % 2 == 0))
    }
}

impl Family for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gemma3_text", "gemma3"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["gemma3"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("use_bidirectional_attention", true)?;
        let mut config = gemma(file.decoder(self, true)?, Form::Sandwich);
        config.qk_norm = QkNorm::PerHead;
        config.score_cap = file.float("attn_logit_softcapping")?;
        config.logit_cap = file.float("final_logit_softcapping")?;
        let newer = file
            .value("rope_parameters")
            .and_then(|all| all.get("sliding_attention")?.get("rope_theta")?.as_f64());
        let local = file.float("rope_local_base_freq")?.or(newer).unwrap_or(LOCAL_THETA);
        add_local_table(&mut config, local);
        let scalar = file.float("query_pre_attn_scalar")?.unwrap_or(config.head_dim as f64);
        let pattern = file.uint("sliding_window_pattern")?.unwrap_or(6).max(1);
        let kinds: Vec<bool> = (0..config.blocks)
            .map(|i| slides(file, i, !(i + 1).is_multiple_of(pattern)))
            .collect::<Result<_>>()?;
        Ok(windowed(scored(config, scalar)?, file.uint("sliding_window")?, |i| kinds[i]))
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let mut config = gemma(file.decoder(self)?, Form::Sandwich);
        add_local_table(&mut config, LOCAL_THETA);
        let scalar = match config.blocks {
            62 => config.hidden_size as f64 / config.heads.max(1) as f64,
            _ => config.head_dim as f64,
        };
        Ok(windowed(scored(config, scalar)?, file.uint("attention.sliding_window")?, |i| (i + 1) % 6 != 0))
    }
}
