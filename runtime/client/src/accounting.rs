//! What a session cost: bytes, milliseconds and round trips, counted where they arise.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use sotto_protocol::error::Error;

/// Running totals, shared by the threads of one client.
#[derive(Debug, Default)]
pub struct Accounting {
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    bytes_ahead: AtomicU64,
    bytes_keys: AtomicU64,
    bytes_session: AtomicU64,
    ns_encrypt: AtomicU64,
    ns_server_mask: AtomicU64,
    ns_server_body: AtomicU64,
    ns_decode: AtomicU64,
    ns_client_ahead: AtomicU64,
    ns_client_clear: AtomicU64,
    ns_wait: AtomicU64,
    round_trips: AtomicU64,
    batches: AtomicU64,
    /// An [`Outage`] as a number, 0 for none.
    outage: AtomicU8,
}

/// Why the server does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It cannot be reached.
    Unreachable,
    /// It said that it is shutting down, and has not been back since.
    ShuttingDown,
}

/// A duration counter of [`Accounting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Scaling and encrypting bodies.
    Encrypt,
    /// From submitting a mask job to its last piece, as the client sees it.
    ServerMask,
    /// The products of the body half, as the server reports them.
    ServerBody,
    /// Decoding replies.
    Decode,
    /// Making batches and their products with the masks, ahead of need.
    ClientAhead,
    /// The model's own work in clear.
    ClientClear,
    /// Round trips as the client sees them, the server's work included.
    Wait,
}

/// A byte counter of [`Accounting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Bodies sent.
    Up,
    /// Replies received.
    Down,
    /// Masks received ahead of need, for every batch.
    Ahead,
    /// Evaluation keys sent.
    Keys,
    /// Shared masks received, once per session.
    Session,
}

impl Accounting {
    fn phase(&self, phase: Phase) -> &AtomicU64 {
        match phase {
            Phase::Encrypt => &self.ns_encrypt,
            Phase::ServerMask => &self.ns_server_mask,
            Phase::ServerBody => &self.ns_server_body,
            Phase::Decode => &self.ns_decode,
            Phase::ClientAhead => &self.ns_client_ahead,
            Phase::ClientClear => &self.ns_client_clear,
            Phase::Wait => &self.ns_wait,
        }
    }

    /// Adds `duration` to `phase`.
    pub fn add(&self, phase: Phase, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.phase(phase).fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Runs `work` and adds its duration to `phase`.
    pub fn time<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(phase, start.elapsed());
        result
    }

    /// Adds bytes to a counter.
    pub fn add_bytes(&self, traffic: Traffic, bytes: usize) {
        let counter = match traffic {
            Traffic::Up => &self.bytes_up,
            Traffic::Down => &self.bytes_down,
            Traffic::Ahead => &self.bytes_ahead,
            Traffic::Keys => &self.bytes_keys,
            Traffic::Session => &self.bytes_session,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts one round trip.
    pub fn add_round_trip(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one batch of masks received.
    pub fn add_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Why the server does not answer at present, as far as is known.
    pub fn outage(&self) -> Option<Outage> {
        match self.outage.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Outage::Unreachable),
            _ => Some(Outage::ShuttingDown),
        }
    }

    /// Takes note of an answer of the server.
    pub(crate) fn note_answer(&self) {
        self.outage.store(0, Ordering::Relaxed);
    }

    /// Takes note of a failure. That the server shuts down explains the failures that follow.
    pub(crate) fn note_failure(&self, error: &Error) {
        match error {
            Error::ShuttingDown => self.outage.store(2, Ordering::Relaxed),
            Error::Connect { .. } | Error::Transport(_) => {
                self.outage.fetch_max(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// `error`, or what explains it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (&error, self.outage()) {
            (Error::Connect { .. } | Error::Transport(_), Some(Outage::ShuttingDown)) => Error::ShuttingDown,
            _ => error,
        }
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ms = |phase| self.phase(phase).load(Ordering::Relaxed) as f64 / 1e6;
        Totals {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            bytes: Bytes {
                up: bytes(&self.bytes_up),
                down: bytes(&self.bytes_down),
                ahead: bytes(&self.bytes_ahead),
                keys: bytes(&self.bytes_keys),
                session: bytes(&self.bytes_session),
            },
            ms: Milliseconds {
                encrypt: ms(Phase::Encrypt),
                server_mask: ms(Phase::ServerMask),
                server_body: ms(Phase::ServerBody),
                decode: ms(Phase::Decode),
                client_clear: ms(Phase::ClientClear),
                client_ahead: ms(Phase::ClientAhead),
                wait: ms(Phase::Wait),
            },
        }
    }
}

/// Totals of an [`Accounting`] at one moment, or the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Round trips made.
    pub round_trips: u64,
    /// Batches of masks received.
    pub batches: u64,
    /// Bytes by direction.
    pub bytes: Bytes,
    /// Milliseconds by phase.
    pub ms: Milliseconds,
}

/// Bytes by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Bodies sent.
    pub up: u64,
    /// Replies received.
    pub down: u64,
    /// Masks received.
    pub ahead: u64,
    /// Keys sent.
    pub keys: u64,
    /// Shared masks received, once per session.
    pub session: u64,
}

/// Milliseconds by phase, see [`Phase`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Milliseconds {
    /// Encrypting.
    pub encrypt: f64,
    /// Mask jobs, as the client sees them.
    pub server_mask: f64,
    /// Products of the body half, as the server reports them.
    pub server_body: f64,
    /// Decoding.
    pub decode: f64,
    /// The model's work in clear.
    pub client_clear: f64,
    /// Making batches and decrypting masks.
    pub client_ahead: f64,
    /// Round trips as the client sees them.
    pub wait: f64,
}

impl std::ops::Sub for Totals {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let Bytes { up, down, ahead, keys, session } = earlier.bytes;
        Self {
            round_trips: self.round_trips - earlier.round_trips,
            batches: self.batches - earlier.batches,
            bytes: Bytes {
                up: self.bytes.up - up,
                down: self.bytes.down - down,
                ahead: self.bytes.ahead - ahead,
                keys: self.bytes.keys - keys,
                session: self.bytes.session - session,
            },
            ms: Milliseconds {
                encrypt: self.ms.encrypt - earlier.ms.encrypt,
                server_mask: self.ms.server_mask - earlier.ms.server_mask,
                server_body: self.ms.server_body - earlier.ms.server_body,
                decode: self.ms.decode - earlier.ms.decode,
                client_clear: self.ms.client_clear - earlier.ms.client_clear,
                client_ahead: self.ms.client_ahead - earlier.ms.client_ahead,
                wait: self.ms.wait - earlier.ms.wait,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_explains_the_failures_that_follow() {
        let accounting = Accounting::default();
        let refused = || Error::Connect { address: "a:1".to_owned(), reason: "refused".to_owned() };
        accounting.note_failure(&refused());
        assert_eq!(accounting.outage(), Some(Outage::Unreachable));
        assert!(matches!(accounting.explain(refused()), Error::Connect { .. }));
        accounting.note_failure(&Error::ShuttingDown);
        accounting.note_failure(&refused());
        assert!(matches!(accounting.explain(refused()), Error::ShuttingDown));
        accounting.note_answer();
        assert_eq!(accounting.outage(), None);
    }

    #[test]
    fn differences_count_what_happened_between() {
        let accounting = Accounting::default();
        accounting.add_bytes(Traffic::Up, 10);
        let before = accounting.totals();
        accounting.add_bytes(Traffic::Up, 5);
        accounting.add(Phase::Decode, Duration::from_millis(3));
        accounting.add_round_trip();
        let spent = accounting.totals() - before;
        assert_eq!(spent.bytes, Bytes { up: 5, ..Bytes::default() });
        assert_eq!(spent.round_trips, 1);
        assert!((spent.ms.decode - 3.0).abs() < 1e-9);
    }
}
