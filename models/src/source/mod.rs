//! A model before it is split: configuration, weights, tokenizer, template.

mod hugging_face;

use crate::chat_template::ChatTemplate;
use crate::families::names::Canonical;
use crate::families::{ModelConfig, ModelKind, config_from_gguf};
use crate::formats::gguf::GgufFile;
use crate::formats::{WeightSource, with_extension};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::path::Path;

/// Everything a model file or directory holds.
pub struct ModelSource {
    /// A short name, from the file or directory.
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
    /// Opens a `.gguf` file, or a directory with `config.json`, `tokenizer.json` and weights as safetensors or ONNX
    /// (or with a single `.gguf` file).
    ///
    /// # Errors
    /// If the model is missing, damaged or of an unsupported architecture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
        if !metadata.is_dir() {
            return Self::from_gguf(GgufFile::open(path)?);
        }
        let found = with_extension(path, "gguf")?;
        // Repositories of GGUF files often hold a one-line config.json next to them.
        let described = path.join(hugging_face::CONFIG).is_file();
        if described && (found.len() != 1 || hugging_face::has_weights(path)?) {
            return Self::from_directory(path);
        }
        match found.as_slice() {
            [file] => Self::from_gguf(GgufFile::open(file)?),
            files => Err(Error::malformed(
                path,
                "directory",
                format!("expected config.json or one .gguf file, found {} of the latter", files.len()),
            )),
        }
    }

    /// The model of an opened GGUF file.
    ///
    /// # Errors
    /// If its architecture is not supported or its metadata is incomplete.
    pub fn from_gguf(file: GgufFile) -> Result<Self> {
        let mut config = config_from_gguf(&file)?;
        let tokenizer = file.tokenizer()?;
        let chat_template = file.string("tokenizer.chat_template")?.map(str::to_owned);
        let name = match file.path().file_stem() {
            Some(stem) => stem.to_string_lossy().into_owned(),
            None => config.family.to_string(),
        };
        let names = config.family.family().gguf_names();
        let mut weights = Canonical::new(Box::new(file), names, &config);
        if config.kind() == ModelKind::Decoder && !config.tied_head {
            config.tied_head = weights.unite_tied_head()?;
        }
        Ok(Self { name, config, weights: Box::new(weights), tokenizer, chat_template })
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
    ChatTemplate::new(source, tokenizer)
}
