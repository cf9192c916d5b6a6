//! A conversation with a model whose linear layers run elsewhere.
//!
//! The session keeps the tokens of the whole conversation and the key-value cache of those already
//! run. A new turn is tokenized as a continuation wherever the chat template allows it, so that
//! earlier turns are never sent again; whatever differs is cut off the cache and recomputed.

mod context;
pub mod conversations;
mod core;
mod draft_model;
mod drafting;
pub mod drafts;
mod generation;
pub mod history;
mod logits;
mod padding;
mod prefixes;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sotto_models::chat_template::{ChatTemplate, Message, Rendered};
use sotto_models::generate::sampler::SamplerConfig;
use sotto_models::model::{CausalModel, PrefixCache};
use sotto_models::tokenizer::Tokenizer;

use crate::backend::{Backend, backend_error};
use crate::constrain::Grammar;
use crate::prompt::{Ending, Prompter};
use sotto_client::accounting::{Accounting, Phase, Totals};
use sotto_protocol::error::{Error, Result};

use self::core::Core;
use drafting::{Drafter, Drafting, Source};
use prefixes::Prefixes;

pub use conversations::Conversations;
pub use draft_model::DraftModel;
pub use drafts::DraftLength;
pub use logits::{Adjustments, TokenLogprob};
pub use padding::Padding;

/// Largest number of tokens in one prefill pass.
pub const MAX_PASS_TOKENS: usize = 256;

/// How an answer is generated.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Maximum number of tokens of the answer.
    pub max_tokens: usize,
    /// Choice of the next token.
    pub sampler: SamplerConfig,
    /// Seed of the sampler.
    pub seed: u64,
    /// Generate on past the end-of-text token.
    pub ignore_eos: bool,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Tokens that end the answer, besides those that end any text.
    pub stop_ids: Vec<u32>,
    /// Changes of the logits.
    pub adjustments: Adjustments,
    /// Reports log-probabilities, with this many of the likeliest tokens each.
    pub logprobs: Option<usize>,
    /// The form the answer must have.
    pub grammar: Option<Grammar>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            sampler: SamplerConfig::default(),
            seed: 0,
            ignore_eos: false,
            stop: Vec::new(),
            stop_ids: Vec::new(),
            adjustments: Adjustments::default(),
            logprobs: None,
            grammar: None,
        }
    }
}

/// What happens while an answer is generated.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So many of the prompt's tokens that have to be run have been run.
    Prompt {
        /// Tokens run.
        done: usize,
        /// Tokens to run.
        total: usize,
    },
    /// A piece of the answer became certain.
    Text {
        /// The piece.
        text: &'a str,
        /// The tokens chosen since the last piece, if log-probabilities were requested.
        tokens: &'a [TokenLogprob],
    },
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
    /// Log-probabilities of its tokens, if they were requested.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: Finish,
    /// The stop text that ended it.
    pub stop_text: Option<String>,
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
    /// Time of the passes after it, in milliseconds.
    pub decode_ms: f64,
    /// Passes after the prompt.
    pub decode_passes: usize,
    /// Tokens that they brought, one that ends the text included.
    pub decode_tokens: usize,
    /// Tokens that they carried as drafts.
    pub drafted_tokens: usize,
    /// How many of those were right.
    pub accepted_tokens: usize,
    /// Dummy passes after the answer, see [`Padding`].
    pub padding_passes: usize,
    /// Bytes, milliseconds and round trips of this turn.
    pub cost: Totals,
}

impl Answer {
    /// Prompt tokens run per second; 0 when none were.
    pub fn prompt_tokens_per_s(&self) -> f64 {
        per_second(self.prefilled_tokens, self.prefill_ms)
    }

    /// Tokens generated per second after the first; 0 when there are none.
    pub fn decode_tokens_per_s(&self) -> f64 {
        per_second(self.decode_tokens, self.decode_ms)
    }
}

fn per_second(count: usize, ms: f64) -> f64 {
    if count == 0 || ms <= 0.0 { 0.0 } else { count as f64 * 1e3 / ms }
}

/// A conversation.
pub struct Session {
    core: Core,
    messages: Vec<Message>,
    /// Where the messages end: before an answer, or in the middle of one.
    ending: Ending,
    /// Tokens of the conversation as the model saw (or is about to see) them.
    tokens: Vec<u32>,
    /// Keys and values of those already run.
    cache: PrefixCache,
    drafter: Drafter,
    /// The text that `tokens` stands for; empty when it is not known.
    rendered: Rendered,
    /// Whether `tokens` come from the messages.
    conversing: bool,
    /// Caches of earlier conversations.
    prefixes: Prefixes,
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
            core: Core::new(model, backend, Prompter::new(tokenizer, template), accounting),
            messages: Vec::new(),
            ending: Ending::Answer,
            prefixes: Prefixes::default(),
            tokens: Vec::new(),
            cache: PrefixCache::default(),
            drafter: Drafter::default(),
            rendered: Rendered::default(),
            conversing: false,
        }
    }

    /// Drafts from the text so far, from now on.
    pub fn draft_from_text(&mut self, length: DraftLength) {
        self.set_drafting(Source::Ngram, length);
    }

    /// Drafts with a small model, from now on.
    pub fn draft_with(&mut self, model: DraftModel, length: DraftLength) {
        self.set_drafting(Source::Model(Arc::new(Mutex::new(model))), length);
    }

    /// No drafts from now on.
    pub fn draft_nothing(&mut self) {
        self.set_drafting(Source::Off, DraftLength::default());
    }

    fn set_drafting(&mut self, source: Source, length: DraftLength) {
        let fixed = self.core.drafting.cost().fixed;
        self.core.drafting = Drafting::new(source, length);
        self.core.drafting.set_round_trips(Duration::from_secs_f64(fixed), 1);
        self.drafter = self.core.drafter();
    }

    /// What a round trip takes, and how many a pass needs; the length of drafts follows from it.
    pub fn set_round_trips(&mut self, each: Duration, per_pass: usize) {
        self.core.drafting.set_round_trips(each, per_pass);
    }

    /// Several conversations with the same model, instead of this one.
    pub fn into_conversations(self) -> Conversations {
        Conversations::new(self.core, self.prefixes)
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
        self.core.accounting.totals()
    }

    /// Where costs and outages are counted, for threads that watch a turn.
    pub fn accounting(&self) -> &Arc<Accounting> {
        &self.core.accounting
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

    /// Model and backend, for passes outside the conversation; the caller clears the model's cache.
    pub fn parts_mut(&mut self) -> (&mut dyn CausalModel, &mut Backend) {
        (&mut *self.core.model, &mut self.core.backend)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.core.prompter.tokenizer()
    }

    /// What turns messages into tokens, for programs that do it themselves.
    pub fn prompter(&self) -> &Prompter {
        &self.core.prompter
    }

    /// Positions the conversation can fill.
    pub fn context_length(&self) -> usize {
        self.core.context_limit
    }

    /// Uses at most `positions` of the model's context, at least 64: less memory, and old turns are
    /// dropped earlier.
    pub fn limit_context(&mut self, positions: usize) {
        self.core.context_limit = positions.max(64).min(self.core.model.context_length());
    }

    /// Tokens in the cache.
    pub fn cached_tokens(&self) -> usize {
        self.cache.len()
    }

    /// Forgets everything but the client's connection.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.tokens.clear();
        self.rendered.clear();
        self.prefixes.clear();
        self.cache = PrefixCache::default();
        self.drafter = self.core.drafter();
    }

    /// Answers the conversation as it stands, calling `on_text` with each piece of text as it
    /// becomes certain, and appends the answer to it.
    ///
    /// After an error or cancellation the user's message is still there, so that asking again is
    /// enough; what the pass took is spent, and the cache holds what was completed.
    ///
    /// # Errors
    ///
    /// [`Error::ContextExceeded`] when the last turn alone exceeds the context; otherwise what the backend or the model
    /// report.
    pub fn answer(
        &mut self,
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        self.answer_watched(options, cancelled, &mut |progress| {
            if let Progress::Text { text, .. } = progress {
                on_text(text);
            }
        })
    }

    /// As [`answer`](Self::answer), reporting how far the prompt is as well.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer).
    pub fn answer_watched(
        &mut self,
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Answer> {
        self.ending = Ending::Answer;
        let dropped_messages = self.fit_context(options)?;
        self.conversing = true;
        self.generate_or_restore(options, dropped_messages, cancelled, watch)
    }

    /// Continues the last message, which must be the assistant's, and appends to it.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer); [`Error::Usage`] if the last message is not the assistant's.
    pub fn continue_answer(
        &mut self,
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Answer> {
        if self.messages.last().is_none_or(|message| message.role != "assistant") {
            return Err(Error::Usage("there is no answer to continue".to_owned()));
        }
        self.ending = Ending::Continue;
        let dropped_messages = self.fit_context(options)?;
        self.conversing = false;
        let answer = self.generate_or_restore(options, dropped_messages, cancelled, watch)?;
        if let Some(last) = self.messages.last_mut() {
            last.content.push_str(&answer.text);
        }
        Ok(answer)
    }

    /// Continues tokens of which the cache may hold a prefix; leaves no messages.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer); [`Error::ContextExceeded`] if `prompt` leaves no room for a token.
    pub fn answer_tokens(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        cancelled: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Answer> {
        let limit = self.core.context_limit;
        if prompt.len() + 1 > limit {
            return Err(Error::ContextExceeded { tokens: prompt.len(), limit, reserved: 1 });
        }
        self.messages.clear();
        self.adopt(Rendered::default(), prompt.to_vec())?;
        self.conversing = false;
        self.generate_or_restore(options, 0, cancelled, watch)
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
        self.cache = PrefixCache::default();
        self.conversing = false;
        self.generate_or_restore(options, 0, cancelled, &mut |progress| {
            if let Progress::Text { text, .. } = progress {
                on_text(text);
            }
        })
    }

    /// Generates; after an error the tokens are those of the prompt again.
    fn generate_or_restore(
        &mut self,
        options: &GenerateOptions,
        dropped_messages: usize,
        cancelled: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Answer> {
        let before = self.core.accounting.totals();
        let prompt_tokens = self.tokens.len();
        options.sampler.validate()?;
        let constraint = self.core.constraint(options.grammar.as_ref())?;
        let (tokens, cache) = (self.tokens.clone(), std::mem::take(&mut self.cache));
        let drafter = std::mem::take(&mut self.drafter);
        let begun = self.core.begin(tokens, cache, options, constraint, drafter, dropped_messages);
        let mut generation = match begun {
            Ok(generation) => generation,
            Err(error) => {
                self.drafter = self.core.drafter();
                return Err(error);
            }
        };
        let result = self.core.run_alone(&mut generation, cancelled, watch);
        let (mut answer, tokens, mut cache, drafter) = generation.into_parts();
        self.drafter = drafter;
        if let Err(error) = result {
            cache.truncate(prompt_tokens);
            self.cache = cache;
            return Err(error);
        }
        (self.tokens, self.cache) = (tokens, cache);
        self.keep(&answer, answer.stop_text.is_some());
        answer.cost = self.core.accounting.totals() - before;
        Ok(answer)
    }

    /// Appends a finished or cancelled answer to the conversation. `cut` tells that the tokens go on
    /// after the text, which then has to be tokenized again.
    fn keep(&mut self, answer: &Answer, cut: bool) {
        let nothing = answer.token_ids.is_empty() && answer.finish == Finish::Cancelled;
        if !self.conversing || nothing {
            return;
        }
        if cut {
            self.rendered.clear();
        } else {
            self.rendered.push_text(&answer.text);
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
    let result = sotto_models::linear::run_pass(backend, ids.len(), |backend| model.forward(ids, backend));
    accounting.add(Phase::ClientClear, start.elapsed().saturating_sub(backend.busy()));
    result.map_err(backend_error)
}
