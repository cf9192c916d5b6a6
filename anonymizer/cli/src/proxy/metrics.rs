//! Counters in Prometheus' text form. No label holds content or names anybody.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) endpoint: &'static str,
    pub(super) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Type {
    pub(super) label: String,
}

/// All metrics of a proxy.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) requests: Family<Request, Counter>,
    pub(super) spans: Family<Type, Counter>,
    pub(super) tokens: Counter,
    pub(super) detection_seconds: Histogram,
    pub(super) streams: Gauge,
    pub(super) streams_broken: Counter,
    pub(super) unknown_placeholders: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("anonymize");
        let made = Self {
            registry: Registry::default(),
            requests: Family::default(),
            spans: Family::default(),
            tokens: Counter::default(),
            detection_seconds: Histogram::new(exponential_buckets(1e-3, 2.0, 16)),
            streams: Gauge::default(),
            streams_broken: Counter::default(),
            unknown_placeholders: Counter::default(),
        };
        registry.register("requests", "Requests, by endpoint and status", made.requests.clone());
        registry.register("spans", "Spans replaced, by type", made.spans.clone());
        registry.register("tokens", "Tokens scanned by the model", made.tokens.clone());
        let seconds = made.detection_seconds.clone();
        registry.register_with_unit(
            "detection",
            "Time of detection, waiting included",
            Unit::Seconds,
            seconds,
        );
        registry.register("streams", "Streamed answers under way", made.streams.clone());
        registry.register("streams_broken", "Streamed answers that ended early", made.streams_broken.clone());
        let unknown = made.unknown_placeholders.clone();
        registry.register("unknown_placeholders", "Placeholders in answers that nobody knows", unknown);
        Self { registry, ..made }
    }

    /// The metrics as text; empty if they cannot be written, which they can.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
