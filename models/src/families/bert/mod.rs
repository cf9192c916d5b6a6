//! BERT encoders, with or without a token classifier: learned positions, layer norms of the residual itself.

use super::config::{
    Biases, EncoderConfig, Form, ModelConfig, NormConfig, Pooling, Positions, QkNorm, Scales,
};
use super::names::{EMPTY, Names, Rule::Is, gguf};
use super::reading::{GgufFields, JsonFields};
use super::{Family, FamilyId, ModelKind};
use crate::formats::WeightSource;
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;
use crate::{Error, Result};

/// BERT.
pub struct Bert;

static NAMES: Names = Names {
    roots: &["bert.", ""],
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
        ("position_embd", Is("embeddings.position_embeddings")),
        ("token_types", Is("embeddings.token_type_embeddings")),
        ("token_embd_norm", Is("embeddings.LayerNorm")),
        ("cls", Is("/classifier")),
    ],
    ..EMPTY
};

static GGUF_NAMES: Names = gguf();

impl Family for Bert {
    fn name(&self) -> &'static str {
        "bert"
    }

    fn kind(&self) -> ModelKind {
        ModelKind::Encoder
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["bert"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["bert"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn gguf_names(&self) -> &'static Names {
        &GGUF_NAMES
    }

    /// A model whose architecture ends in `ForTokenClassification` has a classifier; any other is taken as an encoder.
    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        refuse_variants(file)?;
        let shapes = Shapes {
            vocab: file.need("vocab_size")?,
            hidden: file.need("hidden_size")?,
            inner: file.need("intermediate_size")?,
            blocks: file.need("num_hidden_layers")?,
            heads: file.need("num_attention_heads")?,
            context: file.need("max_position_embeddings")?,
            token_types: file.uint("type_vocab_size")?.unwrap_or(2),
            eps: file.need_float("layer_norm_eps")?,
        };
        if shapes.token_types == 0 {
            return Err(Error::out_of_range("type_vocab_size", "at least 1", 0));
        }
        shapes.config(FamilyId::of(self), labels(file)?, Pooling::Mean)
    }

    /// An encoder without a classifier.
    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        if file.flag("attention.causal", false)? {
            return Err(Error::config("attention.causal", "only encoders are supported"));
        }
        let types = "token_types.weight";
        let token_types = file.file.shape(types).and_then(|shape| shape.first().copied());
        let shapes = Shapes {
            vocab: file.file.vocabulary_size()?,
            hidden: file.need("embedding_length")?,
            inner: file.need("feed_forward_length")?,
            blocks: file.need("block_count")?,
            heads: file.need("attention.head_count")?,
            context: file.need("context_length")?,
            token_types: token_types.ok_or_else(|| Error::MissingTensor { name: types.to_owned() })?,
            eps: file.need_float("attention.layer_norm_epsilon")?,
        };
        shapes.config(FamilyId::of(self), Vec::new(), gguf_pooling(file)?)
    }
}

/// The pooling that a GGUF file names by number: none, mean, first token, last token, rank.
pub(super) fn gguf_pooling(file: &GgufFields<'_>) -> Result<Pooling> {
    match file.uint("pooling_type")? {
        None | Some(0 | 1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::First),
        Some(other) => Err(Error::config("pooling_type", format!("{other} is not supported"))),
    }
}

/// Refuses what encoders of BERT's kind may be and are not here.
pub(super) fn refuse_variants(file: &JsonFields) -> Result<()> {
    if file.text("hidden_act")?.or(file.text("activation")?).is_some_and(|act| act != "gelu") {
        return Err(Error::config("hidden_act", "only gelu is supported"));
    }
    if file.text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(Error::config("position_embedding_type", "only absolute is supported"));
    }
    file.refuse_flag("is_decoder", true)
}

/// The labels of a token classifier, in order; none if the model is none.
pub(super) fn labels(file: &JsonFields) -> Result<Vec<String>> {
    if !file.architectures().any(|name| name.ends_with("ForTokenClassification")) {
        return Ok(Vec::new());
    }
    let wrong = || Error::config("id2label", "expected the labels 0 to n - 1 of a token classifier");
    let named = file.value("id2label").and_then(serde_json::Value::as_object).ok_or_else(wrong)?;
    let labels: Vec<String> =
        (0..named.len()).map_while(|id| Some(named.get(&id.to_string())?.as_str()?.to_owned())).collect();
    if labels.is_empty() || labels.len() != named.len() { Err(wrong()) } else { Ok(labels) }
}

/// What encoders of BERT's kind differ in.
pub(super) struct Shapes {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) blocks: usize,
    pub(super) heads: usize,
    pub(super) context: usize,
    pub(super) token_types: usize,
    pub(super) eps: f64,
}

impl Shapes {
    pub(super) fn config(
        self,
        family: FamilyId,
        labels: Vec<String>,
        pooling: Pooling,
    ) -> Result<ModelConfig> {
        let Self { vocab, hidden, inner, blocks, heads, context, token_types, eps } = self;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(Error::config("num_attention_heads", "does not divide hidden_size"));
        }
        if eps <= 0.0 {
            return Err(Error::out_of_range("layer_norm_eps", "above 0", eps));
        }
        let head_dim = hidden / heads;
        Ok(ModelConfig {
            family,
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            blocks,
            heads,
            kv_heads: heads,
            head_dim,
            context_length: context,
            norm: NormConfig { kind: NormKind::Layer, eps, bias: true },
            form: Form::Residual,
            activation: Activation::Gelu,
            gated: false,
            biases: Biases { head: !labels.is_empty(), ..Biases::BLOCKS },
            score_scale: 1.0 / (head_dim.max(1) as f64).sqrt(),
            score_cap: None,
            qk_norm: QkNorm::None,
            positions: Positions::Learned,
            block_attention: Vec::new(),
            scales: Scales::default(),
            logit_cap: None,
            tied_head: false,
            encoder: Some(EncoderConfig { token_types, labels, pooling, first_block_unnormed: false }),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::families::{ModelConfig, config_from_json};

    const MINIMAL: &str = r#"{"architectures": ["BertForTokenClassification"], "vocab_size": 9, "hidden_size": 8,
        "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
        "layer_norm_eps": 1e-12, "id2label": {"0": "O", "1": "B-X", "2": "I-X"}}"#;

    #[test]
    fn labels_are_ordered_by_id() {
        let config = config_from_json(MINIMAL.as_bytes()).unwrap();
        assert_eq!(config.labels(), ["O", "B-X", "I-X"]);
        assert_eq!(config.head_dim, 4);
    }

    #[test]
    fn configurations_are_read_as_they_were_written() {
        let config = config_from_json(MINIMAL.as_bytes()).unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<ModelConfig>(json).unwrap(), config);
    }

    #[test]
    fn impossible_values_are_refused() {
        for (from, to) in [
            ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3"),
            ("\"hidden_size\": 8", "\"hidden_size\": 800000"),
            ("\"2\": \"I-X\"", "\"3\": \"I-X\""),
            ("1e-12", "-1"),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"hidden_act\": \"relu\","),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"is_decoder\": true,"),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"type_vocab_size\": 0,"),
            ("\"vocab_size\": 9,", "\"vocab_size\": 9, \"model_type\": \"deberta\","),
        ] {
            assert!(config_from_json(MINIMAL.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
