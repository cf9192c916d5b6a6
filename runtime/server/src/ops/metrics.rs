//! Counters of the server, in Prometheus' text form. No label ever names a client or holds content.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// All metrics of a process.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connections: Gauge,
    pub(crate) handshakes_failed: Counter,
    pub(crate) refused: Counter,
    pub(crate) leases_opened: Counter,
    pub(crate) body_streams: Gauge,
    pub(crate) body_frames: Counter,
    pub(crate) body_tokens: Counter,
    pub(crate) body_seconds: Histogram,
    pub(crate) mask_jobs: Gauge,
    pub(crate) mask_jobs_done: Counter,
    pub(crate) mask_blocks: Counter,
    pub(crate) mask_steps: Counter,
    pub(crate) mask_seconds: Counter<f64, AtomicU64>,
    pub(crate) client_part_bytes: Counter,
    pub(crate) session_bytes: Counter,
    pub(crate) batches_kept: Gauge,
    pub(crate) batch_bytes_kept: Gauge,
    pub(crate) batches_evicted: Counter,
    pub(crate) slots_reused: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sotto");
        let made = Self {
            registry: Registry::default(),
            connections: Gauge::default(),
            handshakes_failed: Counter::default(),
            refused: Counter::default(),
            leases_opened: Counter::default(),
            body_streams: Gauge::default(),
            body_frames: Counter::default(),
            body_tokens: Counter::default(),
            body_seconds: Histogram::new(exponential_buckets(20e-6, 2.0, 18)),
            mask_jobs: Gauge::default(),
            mask_jobs_done: Counter::default(),
            mask_blocks: Counter::default(),
            mask_steps: Counter::default(),
            mask_seconds: Counter::default(),
            client_part_bytes: Counter::default(),
            session_bytes: Counter::default(),
            batches_kept: Gauge::default(),
            batch_bytes_kept: Gauge::default(),
            batches_evicted: Counter::default(),
            slots_reused: Counter::default(),
        };
        registry.register("connections", "Open connections", made.connections.clone());
        registry.register("handshakes_failed", "TLS handshakes that failed", made.handshakes_failed.clone());
        registry.register("refused", "Calls and frames refused", made.refused.clone());
        registry.register("leases_opened", "Leases opened", made.leases_opened.clone());
        registry.register("body_streams", "Open body streams", made.body_streams.clone());
        registry.register("body_frames", "Body frames answered", made.body_frames.clone());
        registry.register("body_tokens", "Bodies answered, over all rounds", made.body_tokens.clone());
        registry.register_with_unit(
            "body_product",
            "Time of one frame's product, waiting included",
            Unit::Seconds,
            made.body_seconds.clone(),
        );
        registry.register("mask_jobs", "Mask jobs waiting or running", made.mask_jobs.clone());
        registry.register("mask_jobs_done", "Mask jobs finished", made.mask_jobs_done.clone());
        registry.register("mask_blocks", "Mask blocks computed", made.mask_blocks.clone());
        registry.register("mask_steps", "Passes over a piece of the tables", made.mask_steps.clone());
        registry.register_with_unit(
            "mask_busy",
            "Time spent on mask jobs",
            Unit::Seconds,
            made.mask_seconds.clone(),
        );
        registry.register_with_unit(
            "client_part",
            "Bytes of client parts sent",
            Unit::Bytes,
            made.client_part_bytes.clone(),
        );
        registry.register_with_unit(
            "shared_masks",
            "Bytes of shared masks sent to sessions",
            Unit::Bytes,
            made.session_bytes.clone(),
        );
        registry.register("batches_kept", "Lean batches in memory", made.batches_kept.clone());
        registry.register_with_unit(
            "batches_kept",
            "Memory of lean batches",
            Unit::Bytes,
            made.batch_bytes_kept.clone(),
        );
        registry.register("batches_evicted", "Lean batches dropped for room", made.batches_evicted.clone());
        registry.register(
            "slots_reused",
            "Slots refused because they came back with other bytes",
            made.slots_reused.clone(),
        );
        Self { registry, ..made }
    }

    /// The text a scraper reads.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        encode(&mut text, &self.registry).ok();
        text
    }
}
