//! What decoders of all families have in common.

use crate::linear::LinearBackend;
use crate::{Error, Result};
use candle_core::Tensor;

/// A decoder with its key-value cache.
///
/// Whoever calls `forward` brackets the call with the backend's `begin_pass` and `end_pass`
/// ([`crate::linear::run_pass`] does). After an error the cache is as it was before the call.
pub trait CausalModel: Send {
    /// Runs the model over new tokens, appends them to the cache and returns the logits behind the last one,
    /// `[vocab_size]` f32.
    ///
    /// # Errors
    /// If `ids` is empty, holds an id outside the vocabulary or does not fit the context, or the backend fails.
    fn forward(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor>;

    /// As [`forward`](Self::forward), with the logits behind every new token, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// As `forward`.
    fn forward_all(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor>;

    /// Tokens in the cache.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `len` tokens; nothing happens if there are fewer.
    fn truncate(&mut self, len: usize);

    /// Forgets all tokens and frees the cache.
    fn clear(&mut self);

    /// Positions the model was trained for; a pass beyond them is refused.
    fn context_length(&self) -> usize;

    /// Entries of the vocabulary.
    fn vocab_size(&self) -> usize;
}

/// Checks new tokens against a model's vocabulary and the room left in its context.
///
/// # Errors
/// As [`CausalModel::forward`].
pub(crate) fn check_ids(ids: &[u32], vocab: usize, cached: usize, limit: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::config("tokens", "a pass needs at least one"));
    }
    if let Some(&got) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::TokenOutOfRange { got, vocab });
    }
    if cached + ids.len() > limit {
        return Err(Error::ContextFull { limit, cached, requested: ids.len() });
    }
    Ok(())
}

/// The one row of a tensor of several that only the last token's logits need.
pub(crate) fn last_row(x: &Tensor) -> Result<Tensor> {
    let (tokens, _) = x.dims2()?;
    Ok(x.narrow(0, tokens - 1, 1)?.contiguous()?)
}

/// Unpacks the reply of a round into the expected number of tensors.
pub(crate) fn unpack<const N: usize>(round: usize, reply: Vec<Tensor>) -> Result<[Tensor; N]> {
    reply.try_into().map_err(|reply: Vec<Tensor>| Error::RoundShape {
        round,
        expected: format!("{N} products"),
        got: reply.len().to_string(),
    })
}
