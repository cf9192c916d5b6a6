//! Drafts of a small model that runs here, in clear.

use sotto_models::generate::sampler::argmax;
use sotto_models::linear::run_pass;
use sotto_models::model::{CausalModel, PrefixCache, Rows, TextPass};
use sotto_models::tokenizer::Tokenizer;

use super::prefixes::common_prefix;
use crate::backend::{Backend, backend_error};
use crate::token_bytes::TokenBytes;
use sotto_protocol::error::{Error, Result};

/// Tokens of a text that it reads at once.
const READ_AT_ONCE: usize = 256;

/// A small model with the tokenizer of the large one. It runs on this machine alone.
pub struct DraftModel {
    model: Box<dyn CausalModel>,
    backend: Backend,
}

/// What the draft model has read of one conversation.
#[derive(Default)]
pub(super) struct DraftMemory {
    tokens: Vec<u32>,
    cache: PrefixCache,
}

impl DraftModel {
    /// A draft model; `own` is its tokenizer, `other` that of the model whose tokens it guesses.
    ///
    /// # Errors
    /// [`Error::Usage`] if the tokenizers differ.
    pub(crate) fn new(
        model: Box<dyn CausalModel>,
        backend: Backend,
        own: &Tokenizer,
        other: &Tokenizer,
        vocabulary: usize,
    ) -> Result<Self> {
        let (own, other) = (TokenBytes::new(own), TokenBytes::new(other));
        let shared = model.vocab_size().min(vocabulary) as u32;
        if let Some(id) = (0..shared).find(|&id| own.of(id) != other.of(id)) {
            return Err(Error::Usage(format!(
                "--draft: the model has another tokenizer than the one served (token {id} differs)"
            )));
        }
        Ok(Self { model, backend })
    }

    /// The likeliest continuation of `text` by `length` tokens; shorter where its context ends.
    ///
    /// # Errors
    /// What the model reports.
    pub(super) fn draft(
        &mut self,
        memory: &mut DraftMemory,
        text: &[u32],
        length: usize,
    ) -> Result<Vec<u32>> {
        let vocabulary = self.model.vocab_size() as u32;
        let room = self.model.context_length().saturating_sub(text.len());
        if text.is_empty() || room == 0 || text.iter().any(|&id| id >= vocabulary) {
            return Ok(Vec::new());
        }
        let common = common_prefix(&memory.tokens, text).min(text.len() - 1).min(memory.cache.len());
        memory.cache.truncate(common);
        memory.tokens = text.to_vec();
        let mut drafted = Vec::with_capacity(length);
        let mut next = text[common..].to_vec();
        while drafted.len() < length.min(room) {
            let logits = self.read(&mut memory.cache, &next)?;
            let id = argmax(&logits);
            drafted.push(id);
            memory.tokens.push(id);
            next = vec![id];
        }
        // The last one was not read.
        memory.tokens.truncate(memory.cache.len());
        Ok(drafted)
    }

    fn read(&mut self, cache: &mut PrefixCache, ids: &[u32]) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        for ids in ids.chunks(READ_AT_ONCE) {
            let model = &mut self.model;
            let rows = run_pass(&mut self.backend, ids.len(), |backend| {
                model.forward_texts(&mut [TextPass { ids, cache: &mut *cache, rows: Rows::Last(1) }], backend)
            })
            .map_err(backend_error)?;
            logits = rows[0].flatten_all()?.to_vec1()?;
        }
        Ok(logits)
    }
}
