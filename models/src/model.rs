//! What decoders of all families have in common.

use crate::linear::LinearBackend;
use crate::local_ops::kv_cache::KvCache;
use crate::{Error, Result};
use candle_core::Tensor;

/// A decoder with its key-value cache.
///
/// The caller of `forward` brackets the call with the backend's `begin_pass` and `end_pass`
/// ([`crate::linear::run_pass`] does). After an error the cache is as it was before the call.
pub trait CausalModel: Send {
    /// Runs the model over new tokens, appends them to the cache and returns the logits for the last one,
    /// `[vocab_size]` f32.
    ///
    /// # Errors
    /// If `ids` is empty, holds an id outside the vocabulary or does not fit the context, or the backend fails.
    fn forward(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor>;

    /// As [`forward`](Self::forward), with the logits for every new token, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// As `forward`.
    fn forward_all(&mut self, ids: &[u32], backend: &mut dyn LinearBackend) -> Result<Tensor>;

    /// Runs new tokens of several texts in one pass: the rounds carry all of them, and each text attends to its own cache
    /// alone, which takes its tokens up. Returns each text's logits, `[rows, vocab_size]`. The model's own cache is not
    /// touched.
    ///
    /// # Errors
    /// As `forward`, of any of the texts; then no cache has changed.
    fn forward_texts(
        &mut self,
        texts: &mut [TextPass<'_>],
        backend: &mut dyn LinearBackend,
    ) -> Result<Vec<Tensor>>;

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

    /// Exchanges the cache with `other`, so that one model serves several conversations in turn.
    ///
    /// An empty `other` leaves the model without tokens. A cache of another model of the same shape is not noticed.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn swap_cache(&mut self, other: &mut PrefixCache) -> Result<()>;

    /// Positions the model was trained for; a pass beyond them is refused.
    fn context_length(&self) -> usize;

    /// Entries of the vocabulary.
    fn vocab_size(&self) -> usize;
}

/// New tokens of one of the texts that share a pass, see [`CausalModel::forward_texts`].
pub struct TextPass<'a> {
    /// The tokens, at least one.
    pub ids: &'a [u32],
    /// What the text had before them.
    pub cache: &'a mut PrefixCache,
    /// Which of them have logits.
    pub rows: Rows,
}

/// Which tokens of a text have logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None of them.
    None,
    /// So many of the last.
    Last(usize),
}

impl Rows {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Last(count) => count,
        }
    }
}

/// The keys and values of some tokens, taken out of a model by [`CausalModel::swap_cache`].
#[derive(Default)]
pub struct PrefixCache {
    blocks: Vec<KvCache>,
    len: usize,
}

impl PrefixCache {
    /// Tokens it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(KvCache::bytes).sum()
    }

    /// Forgets all but the first `len` tokens; nothing happens if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes sure that there is a cache for each block.
    pub(crate) fn prepare(&mut self, blocks: usize, kv_heads: usize, head_dim: usize) -> Result<()> {
        if self.blocks.is_empty() {
            self.blocks = (0..blocks).map(|_| KvCache::new(kv_heads, head_dim)).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Tokens that it holds, and the blocks.
    pub(crate) fn parts_mut(&mut self) -> (usize, &mut [KvCache]) {
        (self.len, &mut self.blocks)
    }

    /// Counts tokens whose keys and values were written.
    pub(crate) fn append(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// A copy of the first `len` tokens.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn copy_of_first(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len);
        let blocks = self.blocks.iter().map(|block| block.copy_of_first(len)).collect::<Result<_>>()?;
        Ok(Self { blocks, len })
    }

    /// Exchanges this cache with the `blocks` and `len` of a model.
    pub(crate) fn swap<'a>(
        &mut self,
        blocks: impl Iterator<Item = &'a mut KvCache>,
        len: &mut usize,
    ) -> Result<()> {
        let mut saved = std::mem::take(&mut self.blocks).into_iter();
        let mut taken = Vec::new();
        for block in blocks {
            let mut other = match saved.next() {
                Some(other) => other,
                None => block.copy_of_first(0)?,
            };
            std::mem::swap(block, &mut other);
            taken.push(other);
        }
        self.blocks = taken;
        std::mem::swap(&mut self.len, len);
        Ok(())
    }
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

/// Unpacks the reply of a round into the expected number of tensors.
pub(crate) fn unpack<const N: usize>(round: usize, reply: Vec<Tensor>) -> Result<[Tensor; N]> {
    reply.try_into().map_err(|reply: Vec<Tensor>| Error::RoundShape {
        round,
        expected: format!("{N} products"),
        got: reply.len().to_string(),
    })
}
