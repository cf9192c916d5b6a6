//! Text to tokens and back.

use crate::limits::MAX_JSON_BYTES;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Tokens with a role, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Begins a text, if the model has such a token.
    pub bos: Option<u32>,
    /// Any of these ends a turn or text, each once; the first is what chat templates call `eos_token`.
    pub eos: Vec<u32>,
    /// Whether plain text (outside the chat template) is to begin with `bos`.
    pub add_bos: bool,
}

/// A tokenizer with the model's special tokens.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Wraps a tokenizer.
    pub fn new(inner: tokenizers::Tokenizer, special: SpecialTokens) -> Self {
        Self { inner, special }
    }

    /// Parses a `tokenizer.json`.
    ///
    /// # Errors
    /// If it does not describe a tokenizer.
    pub fn from_json(json: &[u8], special: SpecialTokens) -> Result<Self> {
        // The library panics on what is no JSON, down to the characters of its strings.
        drop(serde_json::from_slice::<serde_json::Value>(json).map_err(tokenizer_error)?);
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(tokenizer_error)?;
        // Padding and truncation are decisions of the caller, not of the file.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(tokenizer_error)?;
        Ok(Self { inner, special })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file is missing, too large or does not describe a tokenizer.
    pub fn from_file(path: &Path, special: SpecialTokens) -> Result<Self> {
        Self::from_json(&read_limited(path, MAX_JSON_BYTES)?, special)
    }

    /// The `tokenizer.json` of this tokenizer.
    ///
    /// # Errors
    /// If it cannot be serialized.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(tokenizer_error)
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The underlying tokenizer, for encodings with offsets.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Ids of a text; special tokens written out in it are recognised, none are added.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// Ids of a plain text, begun with `bos` if the model wants that.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let bos = self.special.bos.filter(|_| self.special.add_bos);
        let mut ids: Vec<u32> = bos.into_iter().collect();
        ids.extend(self.encode(text)?);
        Ok(ids)
    }

    /// Text of some ids, special tokens left out.
    ///
    /// # Errors
    /// If an id is unknown.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(tokenizer_error)
    }

    /// Whether the tokenizer itself, as files of Llama 3 have it, begins a text with `token`.
    ///
    /// # Errors
    /// If the tokenizer refuses a letter.
    pub(crate) fn begins_with(&self, token: u32) -> Result<bool> {
        let begun = self.inner.encode_fast("a", true).map_err(tokenizer_error)?;
        Ok(begun.get_ids().first() == Some(&token) && self.encode("a")?.first() != Some(&token))
    }

    /// The text of one special or ordinary token as it stands in the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as it stands in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }
}

/// Each id once, in order of first appearance.
pub(crate) fn in_order(mut ids: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    ids.retain(|&id| seen.insert(id));
    ids
}

pub(crate) fn tokenizer_error(source: impl std::fmt::Display) -> Error {
    Error::Tokenizer { reason: source.to_string() }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
    if length > limit {
        return Err(Error::Limit { what: "bytes of a text file", got: length, limit });
    }
    std::fs::read(path).map_err(|source| Error::io(path, source))
}
