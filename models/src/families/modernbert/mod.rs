//! ModernBERT: an encoder with rotary positions, norms before the layers, gates, and attention to neighbours in most blocks.

use super::bert::Shapes;
use super::config::{Biases, BlockAttention, Form, ModelConfig, Pooling, Positions};
use super::names::{EMPTY, Names, Rule::Is, Rule::Of, Share};
use super::reading::{GgufFields, JsonFields};
use super::{Family, FamilyId, ModelKind};
use crate::local_ops::activation::Activation;
use crate::local_ops::rope::RopeConfig;
use crate::{Error, Result};

/// ModernBERT.
pub struct ModernBert;

static NAMES: Names = Names {
    roots: &["model.", ""],
    blocks: "layers.",
    block: &[
        ("attn_norm", Is("attn_norm")),
        ("attn_q", Of("attn.Wqkv", Share::Q)),
        ("attn_k", Of("attn.Wqkv", Share::K)),
        ("attn_v", Of("attn.Wqkv", Share::V)),
        ("attn_output", Is("attn.Wo")),
        ("ffn_norm", Is("mlp_norm")),
        ("ffn_gate", Of("mlp.Wi", Share::First)),
        ("ffn_up", Of("mlp.Wi", Share::Second)),
        ("ffn_down", Is("mlp.Wo")),
    ],
    outer: &[
        ("token_embd", Is("embeddings.tok_embeddings")),
        ("token_embd_norm", Is("embeddings.norm")),
        ("output_norm", Is("final_norm")),
    ],
    ..EMPTY
};

/// The base of the frequencies for a kind of attention, from the newer or the older field.
fn theta(file: &JsonFields, kind: &str, older: &'static str, otherwise: f64) -> Result<f64> {
    let newer = file.value("rope_parameters").and_then(|all| all.get(kind)?.get("rope_theta")?.as_f64());
    Ok(newer.or(file.float(older)?).unwrap_or(otherwise))
}

impl Family for ModernBert {
    fn name(&self) -> &'static str {
        "modernbert"
    }

    fn kind(&self) -> ModelKind {
        ModelKind::Encoder
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["modernbert"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &[]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        for (flag, unsupported) in [("attention_bias", true), ("mlp_bias", true), ("norm_bias", true)] {
            file.refuse_flag(flag, unsupported)?;
        }
        if file.architectures().any(|name| name.ends_with("ForTokenClassification")) {
            return Err(Error::config("architectures", "ModernBERT's token classifier is not supported"));
        }
        let shapes = Shapes {
            vocab: file.need("vocab_size")?,
            hidden: file.need("hidden_size")?,
            inner: file.need("intermediate_size")?,
            blocks: file.need("num_hidden_layers")?,
            heads: file.need("num_attention_heads")?,
            context: file.need("max_position_embeddings")?,
            token_types: 0,
            eps: file.need_float("norm_eps")?,
        };
        let mut config = shapes.config(FamilyId::of(self), Vec::new(), Pooling::Mean)?;
        config.form = Form::Pre;
        config.gated = true;
        config.norm.bias = false;
        config.biases = Biases::default();
        config.activation = Activation::from_name(file.text("hidden_activation")?.unwrap_or("gelu"))?;
        let global = theta(file, "full_attention", "global_rope_theta", 160_000.0)?;
        let local = theta(file, "sliding_attention", "local_rope_theta", 10_000.0)?;
        let tables = vec![RopeConfig::plain(global), RopeConfig::plain(local)];
        config.positions = Positions::Rotary { dim: config.head_dim, tables };
        let interval = file.uint("global_attn_every_n_layers")?.unwrap_or(3).max(1);
        let kinds = file.layer_types()?;
        let reach = file.uint("local_attention")?.unwrap_or(128) / 2;
        let block = |i: usize| {
            let slides = match &kinds {
                Some(kinds) => kinds.get(i) == Some(&"sliding_attention"),
                None => !i.is_multiple_of(interval),
            };
            match slides {
                true => BlockAttention { window: Some(reach), rope: Some(1) },
                false => BlockAttention { window: None, rope: Some(0) },
            }
        };
        config.block_attention = (0..config.blocks.min(crate::limits::MAX_BLOCKS)).map(block).collect();
        if let Some(encoder) = &mut config.encoder {
            encoder.first_block_unnormed = true;
        }
        Ok(config)
    }

    fn config_from_gguf(&self, _file: &GgufFields<'_>) -> Result<ModelConfig> {
        Err(Error::UnsupportedArchitecture {
            got: "modernbert in GGUF".to_owned(),
            supported: "safetensors".to_owned(),
        })
    }
}
