//! The caches of the last few conversations, so that a web page's request for a title does not evict the chat.

use sotto_models::model::PrefixCache;
use sotto_protocol::error::Result;

/// Conversations kept besides the current one.
const MAX_KEPT: usize = 8;

/// Memory of all kept caches, in bytes.
const MAX_KEPT_BYTES: usize = 1 << 30;

/// Below this many tokens, a lost prefix is cheaper to run again than to keep.
pub(super) const WORTH_KEEPING: usize = 32;

struct Kept {
    tokens: Vec<u32>,
    cache: PrefixCache,
}

/// The caches of earlier conversations, most recent last.
#[derive(Default)]
pub(super) struct Prefixes {
    kept: Vec<Kept>,
}

impl Prefixes {
    /// Makes `cache` hold as much of `wanted` as any conversation has; `current` are the tokens it holds now.
    /// Returns how many tokens of `wanted` it holds then, all but the last one at most, so that there is one to run.
    pub(super) fn adopt(
        &mut self,
        cache: &mut PrefixCache,
        current: &[u32],
        wanted: &[u32],
    ) -> Result<usize> {
        let current = &current[..current.len().min(cache.len())];
        let own = common_prefix(current, wanted);
        let best = self.best(wanted);
        let switch = best.filter(|&(common, _)| common > own).map(|(_, index)| index);
        // A turn taken back keeps most of the conversation; another conversation shares its beginning at most.
        let loses_conversation = current.len() - own >= WORTH_KEEPING && own < current.len() / 2;
        match (switch, loses_conversation) {
            (Some(index), _) => {
                let next = self.kept.remove(index);
                let last = std::mem::replace(cache, next.cache);
                self.keep(current, last);
            }
            (None, true) => {
                let shared = cache.copy_of_first(own)?;
                let last = std::mem::replace(cache, shared);
                self.keep(current, last);
            }
            (None, false) => {}
        }
        let common = match switch {
            Some(_) => best.map_or(own, |(common, _)| common),
            None => own,
        };
        let common = common.min(wanted.len().saturating_sub(1));
        cache.truncate(common);
        Ok(common)
    }

    /// A cache with as much of `wanted` as any kept conversation has. A conversation that goes on gives its cache away; of
    /// another one only the beginning is copied.
    pub(super) fn take(&mut self, wanted: &[u32]) -> Result<PrefixCache> {
        let Some((common, index)) = self.best(wanted).filter(|&(common, _)| common > 0) else {
            return Ok(PrefixCache::default());
        };
        let usable = common.min(wanted.len().saturating_sub(1));
        let kept = &self.kept[index];
        if kept.tokens.len() - common >= WORTH_KEEPING && common < kept.tokens.len() / 2 {
            return Ok(kept.cache.copy_of_first(usable)?);
        }
        let mut cache = self.kept.remove(index).cache;
        cache.truncate(usable);
        Ok(cache)
    }

    /// How many tokens of `wanted` some kept conversation has.
    pub(super) fn longest(&self, wanted: &[u32]) -> usize {
        self.best(wanted).map_or(0, |(common, _)| common)
    }

    fn best(&self, wanted: &[u32]) -> Option<(usize, usize)> {
        self.kept
            .iter()
            .enumerate()
            .map(|(index, kept)| (common_prefix(&kept.tokens, wanted), index))
            .max_by_key(|&(common, index)| (common, index))
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Keeps the cache of a conversation, and forgets the oldest ones beyond the limits.
    pub(super) fn keep(&mut self, tokens: &[u32], cache: PrefixCache) {
        if tokens.len() >= WORTH_KEEPING {
            self.kept.push(Kept { tokens: tokens.to_vec(), cache });
        }
        let bytes = |kept: &[Kept]| kept.iter().map(|kept| kept.cache.bytes()).sum::<usize>();
        while self.kept.len() > MAX_KEPT || bytes(&self.kept) > MAX_KEPT_BYTES {
            self.kept.remove(0);
        }
    }
}

pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_beginnings() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
    }
}
