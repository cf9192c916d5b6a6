//! Counters of the endpoint, as `/metrics` shows them. They count requests and tokens and know no text.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_engine::session::{Answer, Finish};

/// The counters.
pub(super) struct Metrics {
    registry: Registry,
    /// Requests that wait or are being answered.
    pub(super) waiting: Gauge,
    /// Answers that came to their end.
    answers: Counter,
    /// Requests whose client left.
    pub(super) cancelled: Counter,
    /// Requests that failed.
    pub(super) failed: Counter,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    completion_tokens: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            waiting: Gauge::default(),
            answers: Counter::default(),
            cancelled: Counter::default(),
            failed: Counter::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            completion_tokens: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "sotto_api_requests_waiting",
            "Requests that wait or are being answered",
            metrics.waiting.clone(),
        );
        for (name, help, counter) in [
            ("sotto_api_answers", "Answers that came to their end", &metrics.answers),
            ("sotto_api_cancelled", "Requests whose client left", &metrics.cancelled),
            ("sotto_api_failed", "Requests that failed", &metrics.failed),
            ("sotto_api_prompt_tokens", "Tokens of prompts", &metrics.prompt_tokens),
            ("sotto_api_cached_tokens", "Tokens of prompts that were in a cache", &metrics.cached_tokens),
            ("sotto_api_completion_tokens", "Tokens of answers", &metrics.completion_tokens),
        ] {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    /// Counts an answer.
    pub(super) fn count(&self, answer: &Answer) {
        if answer.finish != Finish::Cancelled {
            self.answers.inc();
        }
        self.prompt_tokens.inc_by(answer.prompt_tokens as u64);
        self.cached_tokens.inc_by((answer.prompt_tokens - answer.prefilled_tokens) as u64);
        self.completion_tokens.inc_by(answer.token_ids.len() as u64);
    }

    /// The text form of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
