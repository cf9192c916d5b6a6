//! Several conversations that share passes.
//!
//! A round trip takes as long for one token as for one of each conversation. Conversations join and leave between passes;
//! each pass carries the next token of all that answer, and some of the prompts of those that are being read.

use std::sync::Arc;
use std::time::Instant;

use sotto_client::accounting::Accounting;

use super::core::Core;
use super::generation::Generation;
use super::prefixes::{Prefixes, WORTH_KEEPING, common_prefix};
use super::{Answer, GenerateOptions, MAX_PASS_TOKENS, Progress};
use crate::backend::Backend;
use sotto_protocol::error::{Error, Result};

/// Conversations in a pass.
pub const MAX_TOGETHER: usize = 16;

/// The least of a prompt that a pass carries while others answer.
const LEAST_OF_PROMPT: usize = 16;

/// What happened to a conversation in a pass.
pub enum Event<'a> {
    /// It goes on.
    Progress(Progress<'a>),
    /// It is over, and has left.
    Ended(Result<Box<Answer>>),
}

struct Running {
    id: u64,
    generation: Generation,
}

/// The conversations of one model.
pub struct Conversations {
    core: Core,
    prefixes: Prefixes,
    running: Vec<Running>,
    /// Whose prompt is next when not all fit.
    turn: usize,
}

impl Conversations {
    pub(super) fn new(core: Core, prefixes: Prefixes) -> Self {
        Self { core, prefixes, running: Vec::new(), turn: 0 }
    }

    /// The backend.
    pub fn backend(&self) -> &Backend {
        &self.core.backend
    }

    /// Goes on with another backend for the same model; costs are counted anew.
    pub fn replace_backend(&mut self, backend: Backend, accounting: Arc<Accounting>) {
        self.core.backend = backend;
        self.core.accounting = accounting;
    }

    /// Those that are being answered, with the tokens that each would like to have in the next pass.
    pub fn running(&self) -> impl Iterator<Item = (u64, usize)> {
        self.running.iter().map(|running| (running.id, running.generation.wanted().min(MAX_PASS_TOKENS)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether a conversation with this prompt should join now: there is room, and no other one is reading a beginning that
    /// both have, which it could take over soon.
    pub fn has_room_for(&self, prompt: &[u32]) -> bool {
        if self.running.len() >= MAX_TOGETHER {
            return false;
        }
        let available = self.available(prompt);
        let being_read = self.running.iter().filter(|running| running.generation.is_reading());
        let soon = being_read.map(|running| common_prefix(running.generation.tokens(), prompt)).max();
        soon.unwrap_or(0) < available + WORTH_KEEPING
    }

    fn available(&self, prompt: &[u32]) -> usize {
        let cached = |running: &Running| {
            common_prefix(running.generation.tokens(), prompt).min(running.generation.cache().len())
        };
        self.running.iter().map(cached).max().unwrap_or(0).max(self.prefixes.longest(prompt))
    }

    /// Adds a conversation under an `id` of the caller's.
    ///
    /// # Errors
    /// [`Error::ContextExceeded`] if `prompt` leaves no room for a token; what is wrong with the options.
    pub fn join(&mut self, id: u64, prompt: &[u32], options: &GenerateOptions) -> Result<()> {
        let limit = self.core.context_limit;
        if prompt.len() + 1 > limit {
            return Err(Error::ContextExceeded { tokens: prompt.len(), limit, reserved: 1 });
        }
        if prompt.is_empty() {
            return Err(Error::Usage("the prompt is empty".to_owned()));
        }
        let constraint = self.core.constraint(options.grammar.as_ref())?;
        let mut cache = self.prefixes.take(prompt)?;
        let best = self
            .running
            .iter()
            .map(|running| {
                let common = common_prefix(running.generation.tokens(), prompt);
                (common.min(running.generation.cache().len()).min(prompt.len() - 1), running)
            })
            .max_by_key(|&(common, _)| common);
        if let Some((common, other)) = best.filter(|&(common, _)| common > cache.len()) {
            cache = other.generation.cache().copy_of_first(common)?;
        }
        let drafter = self.core.drafter();
        let generation = self.core.begin(prompt.to_vec(), cache, options, constraint, drafter, 0)?;
        self.running.push(Running { id, generation });
        Ok(())
    }

    /// Takes a conversation out; what it read stays for others that begin alike.
    pub fn leave(&mut self, id: u64) {
        if let Some(place) = self.running.iter().position(|running| running.id == id) {
            let running = self.running.remove(place);
            self.keep(running.generation);
        }
    }

    fn keep(&mut self, generation: Generation) -> Answer {
        let (answer, tokens, cache, _) = generation.into_parts();
        self.prefixes.keep(&tokens[..tokens.len().min(cache.len())], cache);
        answer
    }

    /// How many tokens each conversation has in the next pass, in their order; 0 for none.
    fn shares(&mut self) -> Vec<usize> {
        let reading = |running: &Running| running.generation.is_reading();
        let answering: usize = self
            .running
            .iter()
            .filter(|running| !reading(running))
            .map(|running| running.generation.wanted())
            .sum();
        let prompts: usize = self
            .running
            .iter()
            .filter(|running| reading(running))
            .map(|running| running.generation.wanted())
            .sum();
        // While others answer, reading takes no more of a pass than its round trips do.
        let cost = self.core.drafting.cost();
        let fair = match answering {
            0 => MAX_PASS_TOKENS,
            _ if cost.per_token > 0.0 => ((cost.fixed / cost.per_token) as usize).max(LEAST_OF_PROMPT),
            _ => LEAST_OF_PROMPT,
        };
        let most = prompts.min(fair).min(MAX_PASS_TOKENS.saturating_sub(answering).max(LEAST_OF_PROMPT));
        let mut left = match most {
            0 => 0,
            most => {
                let ready = self.core.backend.pass_tokens(answering + most);
                ready.saturating_sub(answering).max(LEAST_OF_PROMPT).min(most)
            }
        };
        let mut shares = vec![0; self.running.len()];
        let readers = self.running.iter().filter(|running| reading(running)).count();
        let each = left.div_ceil(readers.max(1)).max(LEAST_OF_PROMPT);
        let count = self.running.len();
        for (share, running) in shares.iter_mut().zip(&self.running) {
            if !reading(running) {
                *share = running.generation.wanted();
            }
        }
        // Twice around: an even share each, then what the short ones left.
        for step in 0..2 * count {
            let place = (self.turn + step) % count;
            if reading(&self.running[place]) {
                let wanted = self.running[place].generation.wanted() - shares[place];
                let share = if step < count { wanted.min(each) } else { wanted }.min(left);
                shares[place] += share;
                left -= share;
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        shares
    }

    /// One pass. Every conversation that goes on or ends is told.
    ///
    /// # Errors
    /// What the pass fails with: it failed for all that were in it, they are as they were before, and can run it again.
    pub fn pass(&mut self, watch: &mut dyn FnMut(u64, Event<'_>)) -> Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let shares = self.shares();
        let mut failed = Vec::new();
        for (running, &share) in self.running.iter_mut().zip(&shares) {
            if share > 0 {
                running.generation.report(&mut |progress| watch(running.id, Event::Progress(progress)));
                if let Err(error) = running.generation.prepare(share) {
                    failed.push((running.id, error));
                }
            }
        }
        let takes_part = |id: u64, share: usize| share > 0 && failed.iter().all(|(other, _)| *other != id);
        let mut members: Vec<&mut Running> = self
            .running
            .iter_mut()
            .zip(&shares)
            .filter(|(running, share)| takes_part(running.id, **share))
            .map(|(running, _)| running)
            .collect();
        if !members.is_empty() {
            let mut parts: Vec<_> =
                members.iter_mut().map(|running| running.generation.text_pass()).collect();
            let (logits, _) = self.core.pass(&mut parts)?;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            for (running, logits) in members.into_iter().zip(&logits) {
                let id = running.id;
                let mut tell = |progress: Progress<'_>| watch(id, Event::Progress(progress));
                if let Err(error) = running.generation.absorb(logits, ms, &mut tell) {
                    failed.push((id, error));
                }
            }
        }
        for (id, error) in failed {
            self.leave(id);
            watch(id, Event::Ended(Err(error)));
        }
        while let Some(place) = self.running.iter().position(|running| running.generation.is_ended()) {
            let running = self.running.remove(place);
            let id = running.id;
            let answer = self.keep(running.generation);
            watch(id, Event::Ended(Ok(Box::new(answer))));
        }
        Ok(())
    }
}
