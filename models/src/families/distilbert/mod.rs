//! DistilBERT: BERT without segments, under other names.

use super::bert::{Shapes, labels, refuse_variants};
use super::config::{ModelConfig, Pooling};
use super::names::{EMPTY, Names, Rule::Is};
use super::reading::{GgufFields, JsonFields};
use super::{Family, FamilyId, ModelKind};
use crate::{Error, Result};

/// DistilBERT.
pub struct DistilBert;

static NAMES: Names = Names {
    roots: &["distilbert.", ""],
    blocks: "transformer.layer.",
    block: &[
        ("attn_q", Is("attention.q_lin")),
        ("attn_k", Is("attention.k_lin")),
        ("attn_v", Is("attention.v_lin")),
        ("attn_output", Is("attention.out_lin")),
        ("attn_output_norm", Is("sa_layer_norm")),
        ("ffn_up", Is("ffn.lin1")),
        ("ffn_down", Is("ffn.lin2")),
        ("layer_output_norm", Is("output_layer_norm")),
    ],
    outer: &[
        ("token_embd", Is("embeddings.word_embeddings")),
        ("position_embd", Is("embeddings.position_embeddings")),
        ("token_embd_norm", Is("embeddings.LayerNorm")),
        ("cls", Is("/classifier")),
    ],
    ..EMPTY
};

impl Family for DistilBert {
    fn name(&self) -> &'static str {
        "distilbert"
    }

    fn kind(&self) -> ModelKind {
        ModelKind::Encoder
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["distilbert"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &[]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        refuse_variants(file)?;
        let shapes = Shapes {
            vocab: file.need("vocab_size")?,
            hidden: file.need("dim")?,
            inner: file.need("hidden_dim")?,
            blocks: file.need("n_layers")?,
            heads: file.need("n_heads")?,
            context: file.need("max_position_embeddings")?,
            token_types: 0,
            // No field says it.
            eps: 1e-12,
        };
        shapes.config(FamilyId::of(self), labels(file)?, Pooling::Mean)
    }

    fn config_from_gguf(&self, _file: &GgufFields<'_>) -> Result<ModelConfig> {
        Err(Error::UnsupportedArchitecture {
            got: "distilbert in GGUF".to_owned(),
            supported: "safetensors".to_owned(),
        })
    }
}
