//! Text to tokens and back.

use crate::chat_template::{Piece, Rendered};
use crate::limits::MAX_JSON_BYTES;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

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
///
/// Text never becomes a control token, whatever it spells: only [`encode_template`](Self::encode_template) makes them, of
/// what a template wrote.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    /// Ids of control tokens; that of unknown text is none.
    controls: Arc<HashSet<u32>>,
    /// A copy that takes control tokens for text, made when a text first spells one.
    literal: Arc<OnceLock<tokenizers::Tokenizer>>,
}

impl Tokenizer {
    /// Wraps a tokenizer.
    pub fn new(inner: tokenizers::Tokenizer, special: SpecialTokens) -> Self {
        let unknown = ["<unk>", "[UNK]", "<|unk|>"].map(|text| inner.token_to_id(text));
        let controls = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, token)| token.special && !unknown.contains(&Some(*id)))
            .map(|(id, _)| id)
            .collect();
        Self { inner, special, controls: Arc::new(controls), literal: Arc::default() }
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
        Ok(Self::new(inner, special))
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

    /// The underlying tokenizer, which recognizes control tokens spelled in a text.
    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// A copy of the underlying tokenizer, for encodings with offsets, that takes spelled control tokens for text.
    pub fn text_tokenizer(&self) -> tokenizers::Tokenizer {
        self.literal().clone()
    }

    /// Ids of a text. What it spells is text: it gives no control token.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.recognized(text)?;
        if ids.iter().any(|id| self.controls.contains(id)) { self.encode_literally(text) } else { Ok(ids) }
    }

    /// Ids of a rendered conversation: control tokens where the template wrote them, and nowhere else.
    ///
    /// # Errors
    /// If the tokenizer lacks a control token or refuses the text.
    pub fn encode_template(&self, rendered: &Rendered) -> Result<Vec<u32>> {
        let control = |spelling: &str| {
            let id = self.inner.token_to_id(spelling).filter(|id| self.controls.contains(id));
            id.ok_or_else(|| Error::Tokenizer { reason: format!("{spelling:?} is no control token") })
        };
        let mut controls = Vec::new();
        for piece in rendered.pieces() {
            if let Piece::Control(spelling) = piece {
                controls.push(control(spelling)?);
            }
        }
        // All at once, as the model was trained; texts that spell a control token would give more of them.
        let ids = self.recognized(&rendered.text())?;
        if ids.iter().filter(|id| self.controls.contains(id)).eq(&controls) {
            return Ok(ids);
        }
        let mut ids = Vec::new();
        for piece in rendered.pieces() {
            match piece {
                Piece::Control(spelling) => ids.push(control(spelling)?),
                Piece::Text(text) => ids.extend(self.encode_literally(text)?),
            }
        }
        Ok(ids)
    }

    /// Ids of a text between the tokens that begin and end a sequence of an encoder, cut to `longest` in all.
    ///
    /// # Errors
    /// If the tokenizer has no such tokens or refuses the text.
    pub fn encode_sequence(&self, text: &str, longest: usize) -> Result<Vec<u32>> {
        let (first, last) = self.sequence_ends()?;
        let mut ids = vec![first];
        ids.extend(self.encode(text)?);
        ids.truncate(longest.saturating_sub(1).max(1));
        ids.push(last);
        Ok(ids)
    }

    /// What the tokenizer puts around a sequence: by its own rule, or, without one, the first of the usual names.
    fn sequence_ends(&self) -> Result<(u32, u32)> {
        let around = self.inner.encode_fast("", true).map_err(tokenizer_error)?;
        if let [first, last] = around.get_ids() {
            return Ok((*first, *last));
        }
        let named = |names: [&str; 2]| names.iter().find_map(|name| self.inner.token_to_id(name));
        match (named(["[CLS]", "<s>"]), named(["[SEP]", "</s>"])) {
            (Some(first), Some(last)) => Ok((first, last)),
            _ => Err(Error::Tokenizer {
                reason: "the encoder has no tokens that begin and end a sequence".to_owned(),
            }),
        }
    }

    /// Ids of a text with the control tokens that it spells.
    fn recognized(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// Ids of a text with what it spells taken for text.
    fn encode_literally(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.literal().encode_fast(text, false).map_err(tokenizer_error)?.get_ids().to_vec())
    }

    fn literal(&self) -> &tokenizers::Tokenizer {
        self.literal.get_or_init(|| {
            let mut copy = self.inner.clone();
            copy.set_encode_special_tokens(true);
            copy
        })
    }

    /// Spellings of the control tokens, longest first.
    pub(crate) fn control_spellings(&self) -> Vec<String> {
        let mut spellings: Vec<_> = self.controls.iter().filter_map(|&id| self.token_text(id)).collect();
        spellings.retain(|spelling| !spelling.is_empty());
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings
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
        Ok(begun.get_ids().first() == Some(&token) && self.recognized("a")?.first() != Some(&token))
    }

    /// The text of one special or ordinary token as the vocabulary spells it.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }
}

/// Each id once, in order of first appearance.
pub(crate) fn in_order(mut ids: Vec<u32>) -> Vec<u32> {
    let mut seen = HashSet::new();
    ids.retain(|&id| seen.insert(id));
    ids
}

pub(crate) fn tokenizer_error(source: impl std::fmt::Display) -> Error {
    Error::Tokenizer { reason: source.to_string() }
}

/// Reads a file of up to `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
    if length > limit {
        return Err(Error::Limit { what: "bytes of a text file", got: length, limit });
    }
    std::fs::read(path).map_err(|source| Error::io(path, source))
}
