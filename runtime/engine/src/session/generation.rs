//! One answer under way, whichever passes carry it.
//!
//! A generation says what it wants in the next pass ([`Generation::prepare`]), lends its cache to it, and takes the logits
//! ([`Generation::absorb`]). It does not know whether other conversations are in the same pass.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use sotto_models::generate::sampler::{Sampler, argmax};
use sotto_models::generate::stop::{StopReason, TextStream};
use sotto_models::model::{PrefixCache, Rows, TextPass};
use sotto_models::tokenizer::Tokenizer;

use super::drafting::Drafter;
use super::logits::LogProbabilities;
use super::{Answer, Finish, GenerateOptions, Padding, Progress};
use crate::constrain::Constraint;
use sotto_protocol::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The prompt is read.
    Prompt,
    /// Tokens are chosen.
    Answer,
    /// So many dummy passes remain.
    Padding(usize),
    Ended,
}

/// Where a generation ends besides where its text says so.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Positions that the conversation may fill.
    pub(super) context: usize,
    /// Positions that the model has.
    pub(super) model: usize,
    pub(super) padding: Padding,
}

/// One answer under way.
pub(super) struct Generation {
    tokens: Vec<u32>,
    cache: PrefixCache,
    options: GenerateOptions,
    limits: Limits,
    phase: Phase,
    sampler: Sampler,
    constraint: Option<Constraint>,
    stream: TextStream<Arc<Tokenizer>>,
    pub(super) drafter: Drafter,
    answer: Answer,
    /// Log-probabilities that were reported already.
    reported: usize,
    start: Instant,
    /// Passes of the answer, the prompt's counted as one.
    passes: usize,
    /// Dummies after the prompt.
    dummies: usize,
    /// Tokens of the prompt that were cached when it began.
    cached: usize,
    /// Of the prompt's last token, if its pass was not the last one.
    first_logits: Option<Vec<f32>>,
    /// What the pass under way carries.
    ids: Vec<u32>,
    rows: Rows,
    drafted: usize,
}

impl Generation {
    /// Notes how many messages were left out of the prompt for want of room.
    pub(super) fn with_dropped_messages(mut self, count: usize) -> Self {
        self.answer.dropped_messages = count;
        self
    }

    pub(super) fn new(
        tokens: Vec<u32>,
        cache: PrefixCache,
        options: GenerateOptions,
        limits: Limits,
        constraint: Option<Constraint>,
        tokenizer: Arc<Tokenizer>,
        mut drafter: Drafter,
    ) -> Result<Self> {
        let sampler = Sampler::new(options.sampler.clone(), options.seed)?;
        let mut stop_ids = if options.ignore_eos { Vec::new() } else { tokenizer.special().eos.clone() };
        stop_ids.extend_from_slice(&options.stop_ids);
        let stream = TextStream::new(tokenizer, &stop_ids, &options.stop);
        let (prompt_tokens, cached) = (tokens.len(), cache.len());
        if prompt_tokens == 0 || cached >= prompt_tokens {
            return Err(Error::Internal("no token to run".to_owned()));
        }
        let wanted = (prompt_tokens - cached).next_multiple_of(limits.padding.prompt.max(1));
        let dummies = (wanted - (prompt_tokens - cached)).min(limits.model.saturating_sub(prompt_tokens));
        let phase = if options.max_tokens == 0 { Phase::Ended } else { Phase::Prompt };
        drafter.begin(&tokens);
        let answer = Answer {
            text: String::new(),
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Length,
            stop_text: None,
            prompt_tokens,
            prefilled_tokens: prompt_tokens - cached,
            dropped_messages: 0,
            time_to_first_token_ms: 0.0,
            prefill_ms: 0.0,
            decode_ms: 0.0,
            decode_passes: 0,
            decode_tokens: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            padding_passes: 0,
            cost: Default::default(),
        };
        Ok(Self {
            tokens,
            cache,
            options,
            limits,
            phase,
            sampler,
            constraint,
            stream,
            drafter,
            answer,
            reported: 0,
            start: Instant::now(),
            passes: 0,
            dummies,
            cached,
            first_logits: None,
            ids: Vec::new(),
            rows: Rows::None,
            drafted: 0,
        })
    }

    pub(super) fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether the prompt is still being read.
    pub(super) fn is_reading(&self) -> bool {
        self.phase == Phase::Prompt
    }

    /// The conversation's tokens so far.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What of them was run.
    pub(super) fn cache(&self) -> &PrefixCache {
        &self.cache
    }

    /// Tokens that the next pass should carry at most.
    pub(super) fn wanted(&self) -> usize {
        match self.phase {
            Phase::Prompt => self.tokens.len() + self.dummies - self.cache.len(),
            Phase::Answer | Phase::Padding(_) => 1 + self.draft_room(),
            Phase::Ended => 0,
        }
    }

    /// How far the prompt is, once per pass of several tokens.
    pub(super) fn report(&self, watch: &mut dyn FnMut(Progress<'_>)) {
        let total = self.tokens.len() + self.dummies - self.cached;
        if self.is_reading() && total > 1 {
            watch(Progress::Prompt { done: self.cache.len() - self.cached, total });
        }
    }

    fn draft_room(&self) -> usize {
        self.drafter.length().min(self.limits.model.saturating_sub(self.cache.len() + 1))
    }

    /// Chooses the tokens of the next pass, `limit` of the prompt at most.
    ///
    /// # Errors
    /// What a draft model reports.
    pub(super) fn prepare(&mut self, limit: usize) -> Result<()> {
        self.drafted = 0;
        let last = self.tokens.last().copied().unwrap_or_default();
        match self.phase {
            Phase::Prompt => {
                let (from, real) = (self.cache.len(), self.tokens.len());
                let end = (real + self.dummies).min(from + limit.max(1));
                self.ids = (from..end).map(|at| self.tokens.get(at).copied().unwrap_or(last)).collect();
                // The head runs for every token of the passes that can hold the last real one, whichever that is: where
                // it is a round of its own, running it for one token would show the server which pass that was.
                let multiple = self.limits.padding.prompt;
                let all_from = (real + self.dummies).saturating_sub(multiple);
                self.rows = match (multiple > 1 && end > all_from, end == real) {
                    (true, _) => Rows::Last(self.ids.len()),
                    (false, true) => Rows::Last(1),
                    (false, false) => Rows::None,
                };
            }
            Phase::Answer => {
                let room = self.draft_room();
                let draft = self.drafter.draft(&self.tokens, room)?;
                self.drafted = draft.len();
                self.ids = vec![last];
                self.ids.extend(draft);
                self.rows = Rows::Last(self.ids.len());
            }
            Phase::Padding(_) => {
                self.ids = vec![last; 1 + self.draft_room()];
                self.rows = Rows::Last(self.ids.len());
            }
            Phase::Ended => return Err(Error::Internal("a pass after the end of an answer".to_owned())),
        }
        Ok(())
    }

    /// The part in the pass that was prepared.
    pub(super) fn text_pass(&mut self) -> TextPass<'_> {
        TextPass { ids: &self.ids, cache: &mut self.cache, rows: self.rows }
    }

    /// Takes the logits of its rows, `[rows, vocabulary]`, of a pass that took `ms`.
    ///
    /// # Errors
    /// What choosing a token fails with; the generation is of no use then.
    pub(super) fn absorb(
        &mut self,
        logits: &Tensor,
        ms: f64,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        match self.phase {
            Phase::Prompt => {
                self.answer.prefill_ms += ms;
                let (end, real) = (self.cache.len(), self.tokens.len());
                let rows = match self.rows {
                    Rows::None => 0,
                    Rows::Last(rows) => rows,
                };
                if (end - rows..end).contains(&(real - 1)) {
                    self.first_logits = Some(logits.get(real - 1 - (end - rows))?.to_vec1()?);
                }
                if end < real + self.dummies {
                    return Ok(());
                }
                self.cache.truncate(real);
                self.passes = 1;
                self.phase = Phase::Answer;
                let mut first = self
                    .first_logits
                    .take()
                    .ok_or_else(|| Error::Internal("no logits of the prompt's end".to_owned()))?;
                self.drafter.note(self.tokens[real - 1], argmax(&first));
                self.choose(&mut first, watch)?;
                self.answer.time_to_first_token_ms = self.start.elapsed().as_secs_f64() * 1e3;
            }
            Phase::Answer => {
                self.answer.decode_ms += ms;
                self.answer.decode_passes += 1;
                self.passes += 1;
                let known = self.tokens.len();
                let mut accepted = 0;
                for row in 0..=self.drafted {
                    let mut row_logits = logits.get(row)?.to_vec1()?;
                    self.drafter.note(self.ids[row], argmax(&row_logits));
                    let id = self.choose(&mut row_logits, watch)?;
                    self.answer.decode_tokens += 1;
                    let right = row < self.drafted && id == self.ids[row + 1];
                    // A token that ends the text is not part of it, drafted or not.
                    accepted += usize::from(right && self.tokens.len() == known + row + 1);
                    if !right || self.phase != Phase::Answer {
                        break;
                    }
                }
                self.answer.drafted_tokens += self.drafted;
                self.answer.accepted_tokens += accepted;
                self.drafter.checked(self.drafted, accepted);
                self.cache.truncate(known + accepted);
            }
            Phase::Padding(left) => {
                self.cache.truncate(self.cache.len() - self.ids.len());
                self.answer.padding_passes += 1;
                self.phase = if left > 1 { Phase::Padding(left - 1) } else { Phase::Ended };
            }
            Phase::Ended => {}
        }
        Ok(())
    }

    /// Chooses one token from its logits.
    fn choose(&mut self, logits: &mut [f32], watch: &mut dyn FnMut(Progress<'_>)) -> Result<u32> {
        let probabilities = self.options.logprobs.map(|top| (LogProbabilities::new(logits), top));
        self.options.adjustments.apply(logits, &self.answer.token_ids);
        if let Some(constraint) = &mut self.constraint {
            constraint.exclude(logits)?;
        }
        // The penalty on repeats regards the answer alone: an answer that takes its form or its words from the prompt
        // repeats them rightly.
        let id = self.sampler.sample(logits, &self.answer.token_ids);
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(id)?;
        }
        let text = self.stream.push(id)?;
        if self.stream.stopped() != Some(&StopReason::EndOfText) {
            self.answer.token_ids.push(id);
            self.tokens.push(id);
            self.drafter.extend(&[id]);
            self.answer.logprobs.extend(probabilities.map(|(all, top)| all.entry(id, top)));
        }
        if !text.is_empty() {
            watch(Progress::Text { text: &text, tokens: &self.answer.logprobs[self.reported..] });
            self.reported = self.answer.logprobs.len();
            self.answer.text.push_str(&text);
        }
        if self.stream.stopped().is_some() || self.constraint.as_ref().is_some_and(|form| form.is_complete())
        {
            self.answer.finish = Finish::Stop;
            self.end(watch)?;
        } else if self.tokens.len() >= self.limits.context
            || self.answer.token_ids.len() >= self.options.max_tokens
        {
            self.end(watch)?;
        }
        Ok(id)
    }

    /// The text is over: dummy passes may follow, up to a multiple, but no more than an answer of the greatest length takes.
    fn end(&mut self, watch: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        self.finish_text(watch)?;
        let longest =
            self.options.max_tokens.min(self.limits.context.saturating_sub(self.answer.prompt_tokens));
        let wanted = self.passes.next_multiple_of(self.limits.padding.answer.max(1)).min(longest);
        let dummies = wanted.saturating_sub(self.passes);
        self.phase = if dummies > 0 { Phase::Padding(dummies) } else { Phase::Ended };
        Ok(())
    }

    fn finish_text(&mut self, watch: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let rest = self.stream.finish()?;
        if !rest.is_empty() {
            watch(Progress::Text { text: &rest, tokens: &self.answer.logprobs[self.reported..] });
            self.reported = self.answer.logprobs.len();
            self.answer.text.push_str(&rest);
        }
        if let Some(StopReason::StopString(text)) = self.stream.stopped() {
            self.answer.stop_text = Some(text.clone());
        }
        Ok(())
    }

    /// Ends it early. What was chosen stays; dummy passes that are left out show the server that the answer was over.
    ///
    /// # Errors
    /// What decoding the rest of the text fails with.
    pub(super) fn cancel(&mut self, watch: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        if matches!(self.phase, Phase::Prompt | Phase::Answer) {
            self.answer.finish = Finish::Cancelled;
            self.finish_text(watch)?;
        }
        self.phase = Phase::Ended;
        Ok(())
    }

    /// The answer, and what remains for the next turn: tokens, cache and drafter.
    pub(super) fn into_parts(self) -> (Answer, Vec<u32>, PrefixCache, Drafter) {
        (self.answer, self.tokens, self.cache, self.drafter)
    }
}
