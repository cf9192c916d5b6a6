//! How a session drafts: the choice of its options, the link it measured, and the state of each conversation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::draft_model::{DraftMemory, DraftModel};
use super::drafts::{DraftLength, Lookup, PRIOR_MODEL, PRIOR_NGRAM, PassCost, Worth};
use sotto_protocol::error::Result;

/// Where drafts come from.
#[derive(Clone, Default)]
pub(super) enum Source {
    #[default]
    Off,
    /// The text so far and the model's own logits.
    Ngram,
    /// A small model on this machine.
    Model(Arc<Mutex<DraftModel>>),
}

/// What the conversations of a session share.
#[derive(Default)]
pub(super) struct Drafting {
    source: Source,
    length: DraftLength,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    cost: PassCost,
    /// Chosen once, when the first prompt has been read.
    chosen: Option<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drafting {
    pub(super) fn new(source: Source, length: DraftLength) -> Self {
        Self { source, length, shared: Arc::default() }
    }

    /// What the round trips of a pass take.
    pub(super) fn set_round_trips(&mut self, each: Duration, per_pass: usize) {
        lock(&self.shared).cost.fixed = each.as_secs_f64() * per_pass as f64;
    }

    /// Takes note of a pass.
    pub(super) fn measure(&mut self, tokens: usize, took: Duration) {
        lock(&self.shared).cost.measure(tokens, took.as_secs_f64());
    }

    pub(super) fn cost(&self) -> PassCost {
        lock(&self.shared).cost
    }

    /// For a new conversation; `steady` if nothing that the server sees may follow the text: then there are no drafts, since
    /// the number of passes tells how many of them were right.
    pub(super) fn drafter(&self, steady: bool) -> Drafter {
        let source = if steady { Source::Off } else { self.source.clone() };
        Drafter {
            worth: Worth::beginning(matches!(source, Source::Model(_))),
            source,
            length: match self.length {
                // What is padded gives its text away to nobody, so not to a length either.
                DraftLength::Auto if steady => DraftLength::Steady,
                length => length,
            },
            steady,
            shared: Arc::clone(&self.shared),
            lookup: Lookup::default(),
            read: 0,
            memory: DraftMemory::default(),
        }
    }
}

/// Drafts for one conversation.
#[derive(Default)]
pub(super) struct Drafter {
    source: Source,
    length: DraftLength,
    steady: bool,
    shared: Arc<Mutex<Shared>>,
    lookup: Lookup,
    /// Tokens that are in the look-up.
    read: usize,
    memory: DraftMemory,
    worth: Worth,
}

impl Drafter {
    fn is_off(&self) -> bool {
        matches!(self.source, Source::Off)
    }

    /// A prompt begins; a conversation that only grew keeps what was noted about it.
    pub(super) fn begin(&mut self, tokens: &[u32]) {
        if self.is_off() {
            return;
        }
        if !self.lookup.is_beginning_of(tokens) {
            self.lookup.restart();
            self.read = 0;
        }
        self.lookup.extend(&tokens[self.read..]);
        self.read = tokens.len();
    }

    /// Adds to the text.
    pub(super) fn extend(&mut self, ids: &[u32]) {
        if self.is_off() {
            return;
        }
        self.lookup.extend(ids);
        self.read += ids.len();
        if let [id] = ids {
            self.worth.chosen(*id);
        }
    }

    /// After `id`, the model thought `next` the likeliest.
    pub(super) fn note(&mut self, id: u32, next: u32) {
        if !self.is_off() {
            self.lookup.note(id, next);
        }
    }

    /// The most that a pass drafts.
    fn longest(&self) -> usize {
        match (&self.source, self.length) {
            (Source::Off, _) => 0,
            (_, DraftLength::Fixed(length)) => length,
            (source, _) => {
                let prior = if matches!(source, Source::Model(_)) { PRIOR_MODEL } else { PRIOR_NGRAM };
                let mut shared = lock(&self.shared);
                let chosen = shared.cost.best_length(prior);
                *shared.chosen.get_or_insert(chosen)
            }
        }
    }

    /// The tokens that the next pass may draft.
    pub(super) fn length(&self) -> usize {
        match self.length {
            DraftLength::Steady if !self.worth.is_on() => 0,
            _ => self.longest(),
        }
    }

    /// The drafts of a pass, `room` at most.
    ///
    /// # Errors
    /// What a draft model reports.
    pub(super) fn draft(&mut self, text: &[u32], room: usize) -> Result<Vec<u32>> {
        let longest = self.longest();
        if self.length == DraftLength::Steady && self.worth.wants_shadow() && longest > 0 {
            let shadow = self.guess(text, longest)?;
            self.worth.shadow(shadow);
        }
        let length = self.length().min(room);
        if length == 0 { Ok(Vec::new()) } else { self.guess(text, length) }
    }

    /// `length` tokens from the source; fewer where their number may follow the text.
    fn guess(&mut self, text: &[u32], length: usize) -> Result<Vec<u32>> {
        if let Source::Model(model) = &self.source {
            let mut drafted = lock(model).draft(&mut self.memory, text, length)?;
            if drafted.len() < length && self.length != DraftLength::Auto {
                // Its context ended: the length stays what it was.
                let rest = self.lookup.draft(length - drafted.len()).tokens;
                drafted.extend(rest);
            }
            return Ok(drafted);
        }
        let mut found = self.lookup.draft(length);
        if self.length == DraftLength::Auto {
            found.tokens.truncate(found.supported);
        }
        Ok(found.tokens)
    }

    /// Of `drafted` tokens, `accepted` were right.
    pub(super) fn checked(&mut self, drafted: usize, accepted: usize) {
        if self.length != DraftLength::Steady || self.is_off() || self.steady {
            return;
        }
        if drafted > 0 {
            self.worth.sent(accepted);
        }
        let (longest, cost) = (self.longest(), lock(&self.shared).cost.of_draft());
        self.worth.decide(longest, cost);
    }
}
