//! What runs passes, for one conversation or for several that share them.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use sotto_client::accounting::{Accounting, Phase};
use sotto_models::model::{CausalModel, PrefixCache, TextPass};
use sotto_models::tokenizer::Tokenizer;

use super::drafting::{Drafter, Drafting};
use super::generation::{Generation, Limits};
use super::{GenerateOptions, MAX_PASS_TOKENS, Padding, Progress};
use crate::backend::{Backend, backend_error};
use crate::constrain::{Constrainer, Constraint, Grammar};
use crate::prompt::Prompter;
use sotto_protocol::error::{Error, Result};

/// A model with its backend.
pub(super) struct Core {
    pub(super) model: Box<dyn CausalModel>,
    pub(super) backend: Backend,
    pub(super) prompter: Prompter,
    pub(super) accounting: Arc<Accounting>,
    pub(super) padding: Padding,
    pub(super) drafting: Drafting,
    /// Positions to use of those the model has.
    pub(super) context_limit: usize,
    tokenizer: Arc<Tokenizer>,
    /// Made when an answer must have a form for the first time.
    constrainer: Option<Constrainer>,
}

impl Core {
    pub(super) fn new(
        model: Box<dyn CausalModel>,
        backend: Backend,
        prompter: Prompter,
        accounting: Arc<Accounting>,
    ) -> Self {
        Self {
            context_limit: model.context_length(),
            tokenizer: Arc::new(prompter.tokenizer().clone()),
            model,
            backend,
            prompter,
            accounting,
            padding: Padding::NONE,
            drafting: Drafting::default(),
            constrainer: None,
        }
    }

    /// What holds an answer to `grammar`.
    pub(super) fn constraint(&mut self, grammar: Option<&Grammar>) -> Result<Option<Constraint>> {
        let Some(grammar) = grammar else { return Ok(None) };
        let constrainer = match self.constrainer.take() {
            Some(constrainer) => constrainer,
            None => Constrainer::new(self.prompter.tokenizer(), self.model.vocab_size())?,
        };
        self.constrainer.insert(constrainer).constraint(grammar).map(Some)
    }

    /// A drafter for a new conversation.
    pub(super) fn drafter(&self) -> Drafter {
        self.drafting.drafter(self.padding != Padding::NONE)
    }

    /// Begins an answer to `tokens`, of which `cache` holds a beginning.
    pub(super) fn begin(
        &self,
        tokens: Vec<u32>,
        cache: PrefixCache,
        options: &GenerateOptions,
        constraint: Option<Constraint>,
        drafter: Drafter,
        dropped_messages: usize,
    ) -> Result<Generation> {
        let limits =
            Limits { context: self.context_limit, model: self.model.context_length(), padding: self.padding };
        let tokenizer = Arc::clone(&self.tokenizer);
        Generation::new(tokens, cache, options.clone(), limits, constraint, tokenizer, drafter)
            .map(|generation| generation.with_dropped_messages(dropped_messages))
    }

    /// One pass for all of `parts`, which have prepared it. Returns the logits of each, and the time that it took without
    /// the wait for masks, in milliseconds.
    pub(super) fn pass(&mut self, parts: &mut [TextPass<'_>]) -> Result<(Vec<Tensor>, f64)> {
        let tokens = parts.iter().map(|part| part.ids.len()).sum();
        let start = Instant::now();
        self.backend.reset_busy();
        let mut begun = start;
        let model = &mut self.model;
        let result = sotto_models::linear::run_pass(&mut self.backend, tokens, |backend| {
            begun = Instant::now();
            model.forward_texts(parts, backend)
        });
        let took = begun.elapsed();
        self.accounting.add(Phase::ClientClear, start.elapsed().saturating_sub(self.backend.busy()));
        let logits = result.map_err(backend_error)?;
        self.drafting.measure(tokens, took);
        Ok((logits, took.as_secs_f64() * 1e3))
    }

    /// Runs one generation to its end.
    ///
    /// # Errors
    /// What a pass fails with; the generation holds what was completed.
    pub(super) fn run_alone(
        &mut self,
        generation: &mut Generation,
        cancelled: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        while !generation.is_ended() {
            if cancelled() {
                return generation.cancel(watch);
            }
            generation.report(watch);
            let start = Instant::now();
            let limit = match generation.is_reading() {
                true => self.backend.pass_tokens(generation.wanted().min(MAX_PASS_TOKENS)),
                false => usize::MAX,
            };
            generation.prepare(limit)?;
            match self.pass(&mut [generation.text_pass()]) {
                Ok((logits, _)) => {
                    let logits =
                        logits.first().ok_or_else(|| Error::Internal("no logits of a pass".to_owned()))?;
                    generation.absorb(logits, start.elapsed().as_secs_f64() * 1e3, watch)?;
                }
                Err(Error::Cancelled) => return generation.cancel(watch),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
