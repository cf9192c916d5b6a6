//! Restoring an answer that comes in pieces.

use super::Scope;
use super::placeholder::{self, Reading};
use super::restore::{Escaping, Restored};
use super::targets::TargetTracker;

/// Restores a stream: what may still become a placeholder is held back, so that half of one is never passed on. The
/// pieces together are what [`Scope::restore`] makes of the whole, however it was split. No more than
/// [`placeholder::MAX_BYTES`] are held back.
#[derive(Debug, Default)]
pub struct StreamRestorer {
    held: String,
    escaping: Escaping,
    tracker: TargetTracker,
    /// Placeholders replaced so far.
    pub replaced: usize,
    /// Placeholders the scope did not hold, so far.
    pub unknown: Vec<String>,
    /// Placeholders left in targets of links and pictures, so far.
    pub withheld: Vec<String>,
}

impl StreamRestorer {
    /// At the beginning of a stream.
    pub fn new(escaping: Escaping) -> Self {
        Self { escaping, ..Self::default() }
    }

    /// What of the stream is certain now that `piece` has come.
    pub fn push(&mut self, scope: &Scope, piece: &str) -> String {
        self.held.push_str(piece);
        self.advance(scope, false)
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self, scope: &Scope) -> String {
        self.advance(scope, true)
    }

    fn advance(&mut self, scope: &Scope, at_end: bool) -> String {
        let held = std::mem::take(&mut self.held);
        let mut out = Restored::default();
        let (mut done, mut at) = (0, 0);
        while let Some(next) = held[at..].find(placeholder::OPENERS) {
            let start = at + next;
            match placeholder::read(&held, start) {
                Reading::Placeholder(found) => {
                    self.copy(scope, &held[done..start], &mut out);
                    self.put(scope, &held, &found, &mut out);
                    (done, at) = (found.range.end, found.range.end);
                }
                Reading::Unfinished if !at_end => {
                    self.copy(scope, &held[done..start], &mut out);
                    held[start..].clone_into(&mut self.held);
                    (done, at) = (held.len(), held.len());
                }
                _ => at = start + held[start..].chars().next().map_or(1, char::len_utf8),
            }
        }
        // A name without brackets may go on, too.
        let rest = &held[done..];
        let open = if at_end || !self.held.is_empty() { 0 } else { placeholder::unfinished_bare(rest) };
        let (certain, open) = rest.split_at(rest.len() - open);
        self.copy(scope, certain, &mut out);
        self.held.push_str(open);
        self.replaced += out.replaced;
        self.unknown.append(&mut out.unknown);
        self.withheld.append(&mut out.withheld);
        out.text
    }

    /// Passes on text between placeholders, in which some may have lost their brackets.
    fn copy(&mut self, scope: &Scope, text: &str, out: &mut Restored) {
        let mut done = 0;
        for found in placeholder::find_bare(text) {
            let joined = found.range.start == 0 && self.tracker.ends_in_word();
            if !joined && scope.knows_bare(&found) {
                self.pass(&text[done..found.range.start], out);
                done = found.range.end;
                self.put(scope, text, &found, out);
            }
        }
        self.pass(&text[done..], out);
    }

    fn pass(&mut self, text: &str, out: &mut Restored) {
        self.tracker.push(text);
        out.text.push_str(text);
    }

    fn put(&mut self, scope: &Scope, held: &str, found: &placeholder::Found, out: &mut Restored) {
        let known = scope.vault().lookup(&found.label, found.number).is_some();
        if known && self.tracker.in_target() && !scope.allows(&self.tracker, found) {
            let verbatim = &held[found.range.clone()];
            out.withheld.push(verbatim.to_owned());
            return self.pass(verbatim, out);
        }
        let before = out.text.len();
        scope.vault().put(held, found, self.escaping, out);
        let canonical = placeholder::canonical(&found.label, found.number);
        self.tracker.push_value(&out.text[before..], &canonical);
    }
}
