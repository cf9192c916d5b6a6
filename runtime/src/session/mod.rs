//! A conversation with a model whose linear layers run elsewhere.
//!
//! The session keeps the tokens of the whole conversation and the key-value cache of those already
//! run. A new turn is tokenized as a continuation wherever the chat template allows it, so that
//! earlier turns are never sent again; whatever differs is cut off the cache and recomputed.

mod context;
pub mod history;

use std::sync::Arc;
use std::time::Instant;

use models::chat_template::{ChatTemplate, Message};
use models::generate::sampler::{Sampler, SamplerConfig};
use models::generate::stop::{StopReason, TextStream};
use models::model::CausalModel;
use models::tokenizer::Tokenizer;

use crate::backend::{Backend, backend_error};
use crate::client::accounting::{Accounting, Phase, Totals};
use crate::error::{Error, Result};

/// Largest number of tokens in one prefill pass.
pub const MAX_PASS_TOKENS: usize = 256;

/// How an answer is generated.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Choice of the next token.
    pub sampler: SamplerConfig,
    /// Seed of the sampler.
    pub seed: u64,
    /// Generate on past the end-of-text token.
    pub ignore_eos: bool,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text appeared.
    Stop,
    /// It reached the wanted length or the end of the context.
    Length,
    /// It was cancelled.
    Cancelled,
}

/// An answer and what it cost.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were not in the cache and had to be run.
    pub prefilled_tokens: usize,
    /// Messages dropped because the context was full.
    pub dropped_messages: usize,
    /// From the start of the turn to the first token, in milliseconds.
    pub time_to_first_token_ms: f64,
    /// Time of the prompt's passes, in milliseconds.
    pub prefill_ms: f64,
    /// Time of the passes behind it, in milliseconds.
    pub decode_ms: f64,
    /// Passes of one token behind the prompt.
    pub decode_passes: usize,
    /// Bytes, milliseconds and round trips of this turn.
    pub cost: Totals,
}

impl Answer {
    /// Prompt tokens run per second; 0 when none were.
    pub fn prompt_tokens_per_s(&self) -> f64 {
        per_second(self.prefilled_tokens, self.prefill_ms)
    }

    /// Tokens generated per second behind the first; 0 when there are none.
    pub fn decode_tokens_per_s(&self) -> f64 {
        per_second(self.decode_passes, self.decode_ms)
    }
}

fn per_second(count: usize, ms: f64) -> f64 {
    if count == 0 || ms <= 0.0 { 0.0 } else { count as f64 * 1e3 / ms }
}

/// A conversation.
pub struct Session {
    model: Box<dyn CausalModel>,
    backend: Backend,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    accounting: Arc<Accounting>,
    messages: Vec<Message>,
    /// Tokens of the conversation as the model saw (or is about to see) them.
    tokens: Vec<u32>,
    /// The text that `tokens` stands for; empty when it is not known.
    rendered: String,
    /// Whether `tokens` come from the messages.
    conversing: bool,
    /// Positions to use of those the model has.
    context_limit: usize,
}

impl Session {
    /// An empty conversation.
    pub fn new(
        model: Box<dyn CausalModel>,
        backend: Backend,
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        accounting: Arc<Accounting>,
    ) -> Self {
        Self {
            context_limit: model.context_length(),
            model,
            backend,
            tokenizer,
            template,
            accounting,
            messages: Vec::new(),
            tokens: Vec::new(),
            rendered: String::new(),
            conversing: false,
        }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Replaces the conversation; what its beginning shares with the old one stays in the cache.
    pub fn set_messages(&mut self, messages: Vec<Message>) {
        self.messages = messages;
    }

    /// Adds a message of the user.
    pub fn push_user(&mut self, text: impl Into<String>) {
        self.messages.push(Message::new("user", text));
    }

    /// Totals of bytes, milliseconds and round trips so far.
    pub fn totals(&self) -> Totals {
        self.accounting.totals()
    }

    /// The backend.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Goes on with another backend for the same model; costs are counted anew.
    pub fn replace_backend(&mut self, backend: Backend, accounting: Arc<Accounting>) {
        self.backend = backend;
        self.accounting = accounting;
    }

    /// Model and backend, for passes outside the conversation; the caller clears the model's cache.
    pub fn parts_mut(&mut self) -> (&mut dyn CausalModel, &mut Backend) {
        (&mut *self.model, &mut self.backend)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Positions the conversation can fill.
    pub fn context_length(&self) -> usize {
        self.context_limit
    }

    /// Uses at most `positions` of the model's context, at least 64: less memory, and old turns are
    /// dropped earlier.
    pub fn limit_context(&mut self, positions: usize) {
        self.context_limit = positions.max(64).min(self.model.context_length());
    }

    /// Tokens in the cache.
    pub fn cached_tokens(&self) -> usize {
        self.model.len()
    }

    /// Forgets everything but the client's connection.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.tokens.clear();
        self.rendered.clear();
        self.model.clear();
    }

    /// Answers the conversation as it stands, calling `on_text` with each piece of text as it
    /// becomes certain, and appends the answer to it.
    ///
    /// After an error or cancellation the user's message is still there, so that asking again is
    /// enough; what the pass took is spent, and the cache holds what was completed.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when the last message alone exceeds the context; otherwise what the backend
    /// or the model report.
    pub fn answer(
        &mut self,
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        let dropped_messages = self.fit_context(options)?;
        self.conversing = true;
        self.generate_or_restore(options, dropped_messages, cancelled, on_text)
    }

    /// Continues plain text, without a chat template; used to compare backends.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer).
    pub fn complete(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        self.messages.clear();
        self.rendered.clear();
        self.tokens = prompt.to_vec();
        self.model.clear();
        self.conversing = false;
        self.generate_or_restore(options, 0, cancelled, on_text)
    }

    /// Generates; after an error the tokens are those of the prompt again.
    fn generate_or_restore(
        &mut self,
        options: &GenerateOptions,
        dropped_messages: usize,
        cancelled: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        let prompt_tokens = self.tokens.len();
        let result = self.generate(options, dropped_messages, cancelled, on_text);
        if result.is_err() {
            self.tokens.truncate(prompt_tokens);
            self.model.truncate(prompt_tokens);
        }
        result
    }

    fn generate(
        &mut self,
        options: &GenerateOptions,
        dropped_messages: usize,
        cancelled: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        let before = self.accounting.totals();
        let start = Instant::now();
        let prompt_tokens = self.tokens.len();
        let mut sampler = Sampler::new(options.sampler.clone(), options.seed)?;
        let tokenizer = self.tokenizer.clone();
        let stop_ids: &[u32] = if options.ignore_eos { &[] } else { &tokenizer.special().eos };
        let mut stream = TextStream::new(&tokenizer, stop_ids, &options.stop);
        let mut answer = Answer {
            text: String::new(),
            token_ids: Vec::new(),
            finish: Finish::Length,
            prompt_tokens,
            prefilled_tokens: prompt_tokens - self.model.len(),
            dropped_messages,
            time_to_first_token_ms: 0.0,
            prefill_ms: 0.0,
            decode_ms: 0.0,
            decode_passes: 0,
            cost: Totals::default(),
        };
        let limit = self.context_limit;
        while answer.token_ids.len() < options.max_tokens {
            if cancelled() {
                answer.finish = Finish::Cancelled;
                break;
            }
            let pass = Instant::now();
            let mut logits = match self.run_pending(cancelled) {
                Ok(logits) => logits,
                Err(Error::Cancelled) => {
                    answer.finish = Finish::Cancelled;
                    break;
                }
                Err(error) => return Err(error),
            };
            let id = sampler.sample(&mut logits, &self.tokens);
            let spent = pass.elapsed().as_secs_f64() * 1e3;
            if answer.token_ids.is_empty() {
                answer.prefill_ms = spent;
                answer.time_to_first_token_ms = start.elapsed().as_secs_f64() * 1e3;
            } else {
                answer.decode_ms += spent;
                answer.decode_passes += 1;
            }
            let text = stream.push(id)?;
            if stream.stopped() != Some(&StopReason::EndOfText) {
                answer.token_ids.push(id);
                self.tokens.push(id);
            }
            if !text.is_empty() {
                on_text(&text);
                answer.text.push_str(&text);
            }
            if stream.stopped().is_some() {
                answer.finish = Finish::Stop;
                break;
            }
            if self.tokens.len() >= limit {
                break;
            }
        }
        let rest = stream.finish()?;
        if !rest.is_empty() {
            on_text(&rest);
            answer.text.push_str(&rest);
        }
        self.keep(&answer, matches!(stream.stopped(), Some(StopReason::StopString(_))));
        answer.cost = self.accounting.totals() - before;
        Ok(answer)
    }

    /// Runs the tokens that are not in the cache yet, in passes; returns the logits behind the last.
    fn run_pending(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Vec<f32>> {
        let mut logits = None;
        while self.model.len() < self.tokens.len() {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let from = self.model.len();
            let size = self.backend.pass_tokens((self.tokens.len() - from).min(MAX_PASS_TOKENS));
            let ids = &self.tokens[from..from + size];
            logits = Some(run_pass(&mut *self.model, &mut self.backend, ids, &self.accounting)?);
        }
        let logits = logits.ok_or_else(|| Error::Internal("no token to run".to_owned()))?;
        Ok(logits.to_vec1()?)
    }

    /// Appends a finished or cancelled answer to the conversation. `cut` tells that the tokens go on
    /// behind the text, which then has to be tokenized again.
    fn keep(&mut self, answer: &Answer, cut: bool) {
        let nothing = answer.token_ids.is_empty() && answer.finish == Finish::Cancelled;
        if !self.conversing || nothing {
            return;
        }
        if cut {
            self.rendered.clear();
        } else {
            self.rendered.push_str(&answer.text);
        }
        self.messages.push(Message::new("assistant", answer.text.clone()));
    }
}

/// One pass of `model` over `ids`, with the time outside the backend counted as the client's own work.
///
/// # Errors
///
/// What model or backend report; an error of this crate's backends comes back as itself.
pub fn run_pass(
    model: &mut dyn CausalModel,
    backend: &mut Backend,
    ids: &[u32],
    accounting: &Accounting,
) -> Result<candle_core::Tensor> {
    let start = Instant::now();
    backend.reset_busy();
    let result = models::linear::run_pass(backend, ids.len(), |backend| model.forward(ids, backend));
    accounting.add(Phase::ClientClear, start.elapsed().saturating_sub(backend.busy()));
    result.map_err(backend_error)
}
