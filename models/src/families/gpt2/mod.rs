//! GPT-2: learned positions, layer norms, biases everywhere, a tied head.

use super::config::{Biases, Form, ModelConfig, NormConfig, Positions, QkNorm, Scales};
use super::names::{EMPTY, Names, Rule::Is, Rule::Of, Share};
use super::reading::{GgufFields, JsonFields};
use super::{Family, FamilyId};
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;
use crate::{Error, Result};

/// GPT-2.
pub struct Gpt2;

static NAMES: Names = Names {
    roots: &["transformer.", ""],
    blocks: "h.",
    block: &[
        ("attn_norm", Is("ln_1")),
        ("attn_q", Of("attn.c_attn", Share::Q)),
        ("attn_k", Of("attn.c_attn", Share::K)),
        ("attn_v", Of("attn.c_attn", Share::V)),
        ("attn_output", Is("attn.c_proj")),
        ("ffn_norm", Is("ln_2")),
        ("ffn_up", Is("mlp.c_fc")),
        ("ffn_down", Is("mlp.c_proj")),
    ],
    outer: &[("token_embd", Is("wte")), ("position_embd", Is("wpe")), ("output_norm", Is("ln_f"))],
    transposed: true,
    ..EMPTY
};

impl Family for Gpt2 {
    fn name(&self) -> &'static str {
        "gpt2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["gpt2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["gpt2"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_experts()?;
        if file.text("activation_function")?.is_some_and(|name| name != "gelu_new") {
            return Err(Error::config("activation_function", "only gelu_new is supported"));
        }
        file.refuse_flag("tie_word_embeddings", false)?;
        file.refuse_flag("scale_attn_by_inverse_layer_idx", true)?;
        file.refuse_flag("scale_attn_weights", false)?;
        file.refuse_flag("add_cross_attention", true)?;
        let hidden = file.need("n_embd")?;
        let shapes = Shapes {
            vocab: file.need("vocab_size")?,
            hidden,
            inner: file.uint("n_inner")?.unwrap_or(hidden.saturating_mul(4)),
            blocks: file.need("n_layer")?,
            heads: file.need("n_head")?,
            context: file.need("n_positions")?,
            eps: file.float("layer_norm_epsilon")?.unwrap_or(1e-5),
        };
        shapes.config()
    }

    /// A separate head in the file is left out: the converter writes a copy of the embedding there.
    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        let shapes = Shapes {
            vocab: file.file.vocabulary_size()?,
            hidden: file.need("embedding_length")?,
            inner: file.need("feed_forward_length")?,
            blocks: file.need("block_count")?,
            heads: file.need("attention.head_count")?,
            context: file.need("context_length")?,
            eps: file.need_float("attention.layer_norm_epsilon")?,
        };
        shapes.config()
    }
}

struct Shapes {
    vocab: usize,
    hidden: usize,
    inner: usize,
    blocks: usize,
    heads: usize,
    context: usize,
    eps: f64,
}

impl Shapes {
    fn config(self) -> Result<ModelConfig> {
        let Self { vocab, hidden, inner, blocks, heads, context, eps } = self;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(Error::config("n_head", "does not divide n_embd"));
        }
        if eps <= 0.0 {
            return Err(Error::out_of_range("layer_norm_epsilon", "above 0", eps));
        }
        let head_dim = hidden / heads;
        Ok(ModelConfig {
            family: FamilyId::of(&Gpt2),
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            blocks,
            heads,
            kv_heads: heads,
            head_dim,
            context_length: context,
            norm: NormConfig { kind: NormKind::Layer, eps, bias: true },
            form: Form::Pre,
            activation: Activation::GeluTanh,
            gated: false,
            biases: Biases::BLOCKS,
            score_scale: 1.0 / (head_dim.max(1) as f64).sqrt(),
            score_cap: None,
            qk_norm: QkNorm::None,
            positions: Positions::Learned,
            block_attention: Vec::new(),
            scales: Scales::default(),
            logit_cap: None,
            tied_head: true,
            encoder: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::families::config_from_json;

    #[test]
    fn variants_that_are_not_computed_are_refused() {
        let json = r#"{"model_type": "gpt2", "vocab_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 2,
            "n_positions": 4}"#;
        assert_eq!(config_from_json(json.as_bytes()).unwrap().intermediate_size, 32);
        for extra in [
            r#""activation_function": "relu""#,
            r#""tie_word_embeddings": false"#,
            r#""scale_attn_by_inverse_layer_idx": true"#,
            r#""scale_attn_weights": false"#,
            r#""add_cross_attention": true"#,
            r#""layer_norm_epsilon": 0"#,
        ] {
            let json = json.replacen('{', &format!("{{{extra},"), 1);
            assert!(config_from_json(json.as_bytes()).is_err(), "{extra}");
        }
    }
}
