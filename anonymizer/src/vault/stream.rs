//! Restoring an answer that comes in pieces.

use super::Vault;
use super::placeholder::{self, Reading};
use super::restore::{Escaping, Restored};

/// Restores a stream: what may still become a placeholder is held back, so that half of one is never passed on. The
/// pieces together are what [`Vault::restore`] makes of the whole, however it was split. At most
/// [`placeholder::MAX_BYTES`] are held back.
#[derive(Debug, Default)]
pub struct StreamRestorer {
    held: String,
    escaping: Escaping,
    /// Placeholders replaced so far.
    pub replaced: usize,
    /// Placeholders the vault did not know, so far.
    pub unknown: Vec<String>,
}

impl StreamRestorer {
    /// At the beginning of a stream.
    pub fn new(escaping: Escaping) -> Self {
        Self { escaping, ..Self::default() }
    }

    /// What of the stream is certain now that `piece` has come.
    pub fn push(&mut self, vault: &Vault, piece: &str) -> String {
        self.held.push_str(piece);
        self.advance(vault, false)
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self, vault: &Vault) -> String {
        self.advance(vault, true)
    }

    fn advance(&mut self, vault: &Vault, at_end: bool) -> String {
        let held = std::mem::take(&mut self.held);
        let mut restored = Restored::default();
        let (mut done, mut at) = (0, 0);
        while let Some(next) = held[at..].find(['[', '\\']) {
            let start = at + next;
            match placeholder::read(&held, start) {
                Reading::Placeholder(found) => {
                    restored.text.push_str(&held[done..start]);
                    vault.put(&held, &found, self.escaping, &mut restored);
                    (done, at) = (found.range.end, found.range.end);
                }
                Reading::Unfinished if !at_end => {
                    restored.text.push_str(&held[done..start]);
                    held[start..].clone_into(&mut self.held);
                    (done, at) = (held.len(), held.len());
                }
                _ => at = start + 1,
            }
        }
        restored.text.push_str(&held[done..]);
        self.replaced += restored.replaced;
        self.unknown.append(&mut restored.unknown);
        restored.text
    }
}
