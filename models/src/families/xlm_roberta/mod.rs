//! RoBERTa and XLM-RoBERTa, as E5 and BGE are: BERT whose positions begin at 2.

use super::bert::{Shapes, labels, refuse_variants};
use super::config::{ModelConfig, Pooling};
use super::names::{EMPTY, Names, Rule::Is, Rule::Skip};
use super::reading::{GgufFields, JsonFields};
use super::{Family, FamilyId, ModelKind};
use crate::{Error, Result};

/// XLM-RoBERTa.
pub struct XlmRoberta;

/// Positions begin after that of the padding token, which is 1.
const FIRST: usize = 2;

static NAMES: Names = Names {
    roots: &["roberta.", "xlm_roberta.", ""],
    blocks: "encoder.layer.",
    block: &[
        ("attn_q", Is("attention.self.query")),
        ("attn_k", Is("attention.self.key")),
        ("attn_v", Is("attention.self.value")),
        ("attn_output", Is("attention.output.dense")),
        ("attn_output_norm", Is("attention.output.LayerNorm")),
        ("ffn_up", Is("intermediate.dense")),
        ("ffn_down", Is("output.dense")),
        ("layer_output_norm", Is("output.LayerNorm")),
    ],
    outer: &[
        ("token_embd", Is("embeddings.word_embeddings")),
        ("position_embd", Skip("embeddings.position_embeddings", FIRST)),
        ("token_types", Is("embeddings.token_type_embeddings")),
        ("token_embd_norm", Is("embeddings.LayerNorm")),
        ("cls", Is("/classifier")),
    ],
    ..EMPTY
};

impl Family for XlmRoberta {
    fn name(&self) -> &'static str {
        "xlm-roberta"
    }

    fn kind(&self) -> ModelKind {
        ModelKind::Encoder
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["xlm-roberta", "roberta", "camembert"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &[]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        refuse_variants(file)?;
        if file.uint("pad_token_id")?.is_some_and(|pad| pad + 1 != FIRST) {
            return Err(Error::config("pad_token_id", "only 1 is supported"));
        }
        let shapes = Shapes {
            vocab: file.need("vocab_size")?,
            hidden: file.need("hidden_size")?,
            inner: file.need("intermediate_size")?,
            blocks: file.need("num_hidden_layers")?,
            heads: file.need("num_attention_heads")?,
            context: file.need("max_position_embeddings")?.saturating_sub(FIRST),
            token_types: file.uint("type_vocab_size")?.unwrap_or(1),
            eps: file.need_float("layer_norm_eps")?,
        };
        shapes.config(FamilyId::of(self), labels(file)?, Pooling::Mean)
    }

    fn config_from_gguf(&self, _file: &GgufFields<'_>) -> Result<ModelConfig> {
        Err(Error::UnsupportedArchitecture {
            got: "xlm-roberta in GGUF".to_owned(),
            supported: "safetensors".to_owned(),
        })
    }
}
