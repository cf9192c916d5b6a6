//! Model directories as the Hugging Face hub has them.

use super::ModelSource;
use crate::families::names::Canonical;
use crate::families::{Pooling, config_from_json};
use crate::formats::onnx::OnnxFile;
use crate::formats::safetensors::SafetensorsDirectory;
use crate::formats::{WeightSource, with_extension};
use crate::limits::{MAX_JSON_BYTES, MAX_TEMPLATE_BYTES};
use crate::tokenizer::{SpecialTokens, Tokenizer, in_order, read_limited};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

pub(super) const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const POOLING: &str = "1_Pooling/config.json";
const TEMPLATE: &str = "chat_template.jinja";

impl ModelSource {
    /// Opens a directory with `config.json`, `tokenizer.json` and weights; `generation_config.json`,
    /// `tokenizer_config.json`, `chat_template.jinja` and an encoder's `1_Pooling/config.json` are read if they are there.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the architecture is not supported.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let json = read_limited(&directory.join(CONFIG), MAX_JSON_BYTES)?;
        let mut config = config_from_json(&json)?;
        if let Some(encoder) = &mut config.encoder {
            let pooling = optional_json(&directory.join(POOLING))?;
            if !pooling.is_null() {
                encoder.pooling = Pooling::from_json(&pooling)?;
            }
        }
        let weights =
            Box::new(Canonical::new(open_weights(directory)?, config.family.family().names(), &config));
        let tokenizer_config = optional_json(&directory.join(TOKENIZER_CONFIG))?;
        let path = directory.join(TOKENIZER);
        if !path.is_file() {
            return Err(Error::Tokenizer {
                reason: format!(
                    "{} is missing; it belongs to the model, put it beside the weights",
                    path.display()
                ),
            });
        }
        let bare = Tokenizer::from_file(&path, SpecialTokens::default())?;
        let special = special_tokens(directory, &json, &tokenizer_config, &bare)?;
        let tokenizer = Tokenizer::new(bare.inner().clone(), special);
        let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            name: name.unwrap_or_else(|| config.family.to_string()),
            config,
            weights,
            tokenizer,
            chat_template: chat_template(directory, &tokenizer_config)?,
        })
    }
}

/// Whether a directory has files of weights that [`ModelSource::from_directory`] reads.
pub(super) fn has_weights(directory: &Path) -> Result<bool> {
    Ok(!with_extension(directory, "safetensors")?.is_empty()
        || !with_extension(directory, "onnx")?.is_empty())
}

fn open_weights(directory: &Path) -> Result<Box<dyn WeightSource>> {
    let safetensors = with_extension(directory, "safetensors")?;
    if !safetensors.is_empty() {
        return Ok(Box::new(SafetensorsDirectory::open(directory)?));
    }
    match with_extension(directory, "onnx")?.as_slice() {
        [file] => Ok(Box::new(OnnxFile::open(file)?)),
        files => Err(Error::malformed(
            directory,
            "weights",
            format!(
                "expected .safetensors, one .onnx or one .gguf file, found {} .onnx; convert a pytorch_model.bin to \
                 safetensors first",
                files.len()
            ),
        )),
    }
}

/// A JSON file, or null if there is none.
fn optional_json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&read_limited(path, MAX_JSON_BYTES)?)
        .map_err(|source| Error::malformed_by(path, "JSON", source))
}

/// A token's text, which tokenizer_config.json gives plainly or as an object.
fn token_text<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The id or ids of a field, which is a number or a list of them.
fn token_ids(config: &Value, key: &str) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get(key) {
        Some(Value::Array(values)) => values.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn special_tokens(
    directory: &Path,
    config: &[u8],
    tokenizer_config: &Value,
    tokenizer: &Tokenizer,
) -> Result<SpecialTokens> {
    let config: Value = serde_json::from_slice(config).map_err(|source| Error::config_by(CONFIG, source))?;
    let generation = optional_json(&directory.join(GENERATION_CONFIG))?;
    let named = token_text(tokenizer_config, "eos_token").and_then(|text| tokenizer.token_id(text));
    let mut eos: Vec<u32> = named.into_iter().collect();
    eos.extend(token_ids(&config, "eos_token_id"));
    eos.extend(token_ids(&generation, "eos_token_id"));
    let bos = token_text(tokenizer_config, "bos_token").and_then(|text| tokenizer.token_id(text));
    let bos = bos.or_else(|| token_ids(&config, "bos_token_id").first().copied());
    // Llama's tokenizers add it unless they say otherwise; those of GPT-2's kind do not.
    let llama = tokenizer_config.get("tokenizer_class").and_then(Value::as_str);
    let by_class = llama.is_some_and(|class| class.starts_with("Llama"));
    let add_bos = match (tokenizer_config.get("add_bos_token").and_then(Value::as_bool), bos) {
        (Some(stated), _) => stated,
        (None, Some(bos)) => by_class || tokenizer.begins_with(bos)?,
        (None, None) => false,
    };
    Ok(SpecialTokens { bos, eos: in_order(eos), add_bos })
}

fn chat_template(directory: &Path, tokenizer_config: &Value) -> Result<Option<String>> {
    let path = directory.join(TEMPLATE);
    if path.is_file() {
        let bytes = read_limited(&path, MAX_TEMPLATE_BYTES as u64)?;
        let text = String::from_utf8(bytes).map_err(|source| Error::malformed_by(&path, "text", source))?;
        return Ok(Some(text));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(match tokenizer_config.get("chat_template") {
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template").and_then(text)),
        Some(value) => text(value),
        None => None,
    })
}
