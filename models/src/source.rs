//! A model before it is split: configuration, weights, tokenizer, template.

use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::tokenizer::Tokenizer;
use crate::weights::WeightSource;
use crate::weights::gguf::GgufFile;
use crate::weights::names::llama::{Canonical, Convention};
use crate::{Error, Result, llama};
use std::path::Path;

/// Everything a model file or directory holds.
pub struct ModelSource {
    /// A short name, from the file.
    pub name: String,
    /// The configuration.
    pub config: ModelConfig,
    /// The weights, under the names of the family's code.
    pub weights: Box<dyn WeightSource>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, if the model has one.
    pub chat_template: Option<String>,
}

impl ModelSource {
    /// Opens a `.gguf` file or a directory with `config.json`.
    ///
    /// # Errors
    /// If the model is missing, damaged or of an unsupported architecture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_gguf(GgufFile::open(path)?)
    }

    /// The model of an opened GGUF file.
    ///
    /// # Errors
    /// If its architecture is not supported or its metadata is incomplete.
    pub fn from_gguf(file: GgufFile) -> Result<Self> {
        let config = llama::Config::from_gguf(&file)?;
        let tokenizer = file.tokenizer()?;
        let chat_template = file.string("tokenizer.chat_template")?.map(str::to_owned);
        let name = match file.path().file_stem() {
            Some(stem) => stem.to_string_lossy().into_owned(),
            None => config.architecture.to_string(),
        };
        let convention = if config.architecture == crate::config::Family::Llama {
            Convention::GgufInterleaved { heads: config.heads, kv_heads: config.kv_heads }
        } else {
            Convention::Gguf
        };
        let weights = Box::new(Canonical::new(Box::new(file), convention));
        Ok(Self { name, config: ModelConfig::Llama(config), weights, tokenizer, chat_template })
    }

    /// The chat template, parsed.
    ///
    /// # Errors
    /// If the model has none or it is not valid.
    pub fn template(&self) -> Result<ChatTemplate> {
        parse_template(self.chat_template.as_deref(), &self.tokenizer)
    }
}

/// Parses a model's template with the texts of its special tokens.
pub(crate) fn parse_template(source: Option<&str>, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
    let source = source.ok_or_else(|| Error::ChatTemplate { reason: "the model has none".to_owned() })?;
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    let special = tokenizer.special();
    ChatTemplate::new(source, &text(special.bos), &text(special.eos.first().copied()))
}
