//! The slot pool: one-time token positions, handed out by value.
//!
//! A slot owns the pads of one token position. It enters the pool once, when the masks of its batch
//! are complete, and leaves it once, into the pass that spends it; what a pass took never comes
//! back, cancelled or not. Slots live in memory only. A forked copy of the process finds its pool
//! unusable: two processes must not encrypt under the same pads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fhe_layers::{Freshness, Slot};
use tokio::sync::Notify;

use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};

/// How often a waiting pass looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Longest wait for slots in all, whatever signs of progress there are.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Slots that were not used for this long are dropped: the less waits, the less a copy of the machine shares with it.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// Batches kept ready when nobody waits.
const BATCHES_AHEAD: usize = 2;

/// A slot and what names it to a server that keeps its words.
pub struct NamedSlot {
    /// The slot.
    pub(crate) slot: Slot,
    /// Its batch.
    pub(crate) batch: BatchId,
    /// Its number in the batch.
    pub(crate) index: u32,
}

/// The pool of one (credential, server, model, form) in this process.
pub struct SlotPool {
    /// Tokens per batch.
    tau: usize,
    process: u32,
    state: Mutex<State>,
    /// Wakes passes that wait for slots.
    arrived: Condvar,
    /// Wakes the prefetcher.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    /// Oldest first, each with the time when it came.
    ready: VecDeque<(NamedSlot, Freshness)>,
    /// Slots of batches that are being made.
    incoming: usize,
    /// Slots that passes wait for.
    wanted: usize,
    /// Passes that need the machine for themselves, see [`SlotPool::hold_prefetch`].
    holds: usize,
    /// When there was a sign of progress: a piece of masks, or word that the server still prepares.
    last_reply: Option<Instant>,
    /// Why the last batch could not be had; cleared by the next attempt.
    failure: Option<Failure>,
    closed: bool,
    /// Batches whose slots were not all used when the pool was closed.
    left: Vec<BatchId>,
    /// A copy of the client may be alive: nothing of this pool is used again.
    alarmed: bool,
}

struct Failure {
    error: Error,
    permanent: bool,
}

/// What the prefetcher should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing for now.
    Nothing,
    /// Make this many batches; `urgent` when a pass waits.
    Batches {
        /// How many.
        count: usize,
        /// Whether somebody waits.
        urgent: bool,
    },
    /// The pool is closed: stop.
    Stop,
}

impl SlotPool {
    /// An empty pool of batches of `tau` slots.
    pub(super) fn new(tau: usize) -> Self {
        Self {
            tau,
            process: std::process::id(),
            state: Mutex::default(),
            arrived: Condvar::new(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop_stale(&mut state.ready, MAX_AGE);
        state
    }

    /// Slots that can be taken without waiting.
    pub fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Tokens per batch.
    pub fn tau(&self) -> usize {
        self.tau
    }

    /// Takes `count` slots, waiting for up to `timeout` without a sign of progress. While waiting, mask jobs have the
    /// server's attention instead of background priority.
    ///
    /// # Errors
    ///
    /// [`Error::SlotTimeout`] after that, or [`Error::Connect`] or [`Error::Transport`] if the server is out of reach
    /// then; [`Error::Cancelled`] when `cancelled` says so; the
    /// reason when the server refuses further batches; [`Error::Internal`] in a forked process.
    pub fn take(
        &self,
        count: usize,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<NamedSlot>> {
        let mut state = self.wait_for(count, timeout, cancelled)?;
        let slots = state.ready.drain(..count).map(|(slot, _)| slot).collect();
        drop(state);
        self.changed.notify_one();
        Ok(slots)
    }

    /// Waits as [`take`](Self::take) does, but takes nothing.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn wait_ready(&self, count: usize, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<()> {
        self.wait_for(count, timeout, cancelled).map(drop)
    }

    fn wait_for(
        &self,
        count: usize,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<MutexGuard<'_, State>> {
        if std::process::id() != self.process {
            return Err(Error::Internal(
                "this process is a fork of the one that made these slots; connect again".to_owned(),
            ));
        }
        let start = Instant::now();
        let mut state = self.lock();
        if state.ready.len() < count {
            state.wanted += count;
            state.failure = None;
            self.changed.notify_one();
            let outcome;
            (state, outcome) = self.wait(state, count, start, timeout, cancelled);
            state.wanted -= count;
            outcome?;
        }
        Ok(state)
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        count: usize,
        start: Instant,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> (MutexGuard<'a, State>, Result<()>) {
        loop {
            if state.ready.len() >= count {
                return (state, Ok(()));
            }
            if cancelled() {
                return (state, Err(Error::Cancelled));
            }
            if state.alarmed {
                return (state, Err(Error::SlotReused));
            }
            if state.closed {
                return (state, Err(Error::Internal("the slot pool is closed".to_owned())));
            }
            if let Some(failure) = state.failure.take_if(|failure| failure.permanent) {
                return (state, Err(failure.error));
            }
            let last_reply = state.last_reply.map_or(start, |last_reply| last_reply.max(start));
            if last_reply.elapsed() >= timeout || start.elapsed() >= LONGEST_WAIT {
                let reason = match state.failure.take().map(|failure| failure.error) {
                    // Masks are not late, their server is gone.
                    Some(error @ (Error::Connect { .. } | Error::Transport(_))) => {
                        return (state, Err(error));
                    }
                    Some(error) => error.to_string(),
                    None => "the server is still working on the masks; it may be overloaded".to_owned(),
                };
                return (state, Err(Error::SlotTimeout { waited: start.elapsed(), reason }));
            }
            state = self.arrived.wait_timeout(state, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the prefetcher should do, given what is ready and under way. The batches it is told to
    /// make count as incoming from now on.
    pub(super) fn next_need(&self) -> Need {
        let mut state = self.lock();
        if state.closed {
            return Need::Stop;
        }
        let have = state.ready.len() + state.incoming;
        let urgent = state.wanted > state.ready.len();
        let missing = if urgent && state.wanted > have {
            state.wanted - have
        } else if !urgent
            && state.holds == 0
            && state.failure.is_none()
            && have <= (BATCHES_AHEAD - 1) * self.tau
        {
            self.tau
        } else {
            return Need::Nothing;
        };
        // A refusal that will not change is not retried until a pass asks again.
        if state.failure.as_ref().is_some_and(|failure| failure.permanent) {
            return Need::Nothing;
        }
        let count = missing.div_ceil(self.tau);
        state.incoming += count * self.tau;
        Need::Batches { count, urgent }
    }

    /// While what this returns lives, no batch is begun that nobody waits for: a prompt's pass uses every core of
    /// the client and many of the server, and its answer should not wait for masks of later tokens.
    pub(crate) fn hold_prefetch(self: &Arc<Self>) -> PrefetchHold {
        self.lock().holds += 1;
        PrefetchHold(Arc::clone(self))
    }

    /// Whether the last attempt to make a batch failed.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.lock();
        state.failure.is_some() || state.closed
    }

    /// Whether a pass waits.
    pub(super) fn is_urgent(&self) -> bool {
        let state = self.lock();
        state.wanted > state.ready.len()
    }

    /// There is progress: a wait for slots begins anew.
    pub(super) fn note_reply(&self) {
        self.lock().last_reply = Some(Instant::now());
    }

    /// A batch that was counted as incoming is complete.
    pub(super) fn deliver(&self, slots: Vec<NamedSlot>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.incoming = state.incoming.saturating_sub(self.tau);
        state.failure = None;
        let made = Freshness::now();
        state.ready.extend(slots.into_iter().map(|slot| (slot, made)));
        drop(state);
        self.arrived.notify_all();
        self.changed.notify_one();
    }

    /// A batch that was counted as incoming could not be had.
    pub(super) fn fail(&self, error: Error, permanent: bool) {
        let mut state = self.lock();
        state.incoming = state.incoming.saturating_sub(self.tau);
        state.failure = Some(Failure { error, permanent });
        drop(state);
        self.arrived.notify_all();
    }

    /// Drops the slots of a batch that the server does not keep any more.
    pub(crate) fn drop_batch(&self, batch: &BatchId) {
        self.lock().ready.retain(|(slot, _)| slot.batch != *batch);
        self.changed.notify_one();
    }

    /// A copy of the client may be alive: wipes every slot, and ends the pool.
    pub(super) fn alarm(&self) {
        self.lock().alarmed = true;
        self.close();
    }

    /// Takes the ids of the batches whose slots were not all used when the pool was closed.
    pub(super) fn take_left(&self) -> Vec<BatchId> {
        std::mem::take(&mut self.lock().left)
    }

    /// Whether there was an alarm.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.lock().alarmed
    }

    /// Ends the pool: waiting passes fail, the prefetcher stops, unused slots are wiped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (slot, _) in std::mem::take(&mut state.ready) {
            if state.left.last() != Some(&slot.batch) {
                state.left.push(slot.batch);
            }
        }
        drop(state);
        self.arrived.notify_all();
        self.changed.notify_one();
    }
}

/// Drops what came more than `max_age` ago, or before the machine was restored from a snapshot: a copy of this process
/// may be using the same pads.
fn drop_stale<T>(ready: &mut VecDeque<(T, Freshness)>, max_age: Duration) {
    while ready.front().is_some_and(|(_, made)| !made.holds(max_age)) {
        ready.pop_front();
    }
}

/// Keeps a pool from prefetching until dropped.
pub(crate) struct PrefetchHold(Arc<SlotPool>);

impl Drop for PrefetchHold {
    fn drop(&mut self) {
        self.0.lock().holds -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_lasts_as_long_as_there_is_progress() {
        let (pool, start) = (SlotPool::new(4), Instant::now());
        // As if the server were last_reply from until then.
        let (progress, timeout) = (Duration::from_millis(300), Duration::from_millis(50));
        pool.lock().last_reply = Some(start + progress);
        let ended = pool.wait_ready(1, timeout, &|| false).unwrap_err();
        assert!(
            matches!(ended, Error::SlotTimeout { waited, .. } if waited >= progress + timeout),
            "{ended}"
        );
        assert!(start.elapsed() >= progress + timeout);
    }

    #[test]
    fn slots_that_waited_for_long_are_dropped() {
        let mut ready = VecDeque::from([(1, Freshness::now()), (2, Freshness::now())]);
        let age = Duration::from_millis(40);
        std::thread::sleep(age);
        ready.push_back((3, Freshness::now()));
        drop_stale(&mut ready, MAX_AGE);
        assert_eq!(ready.len(), 3);
        drop_stale(&mut ready, age);
        assert_eq!(ready.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_hold_delays_prefetch_but_not_what_a_pass_waits_for() {
        let pool = Arc::new(SlotPool::new(4));
        let hold = pool.hold_prefetch();
        assert_eq!(pool.next_need(), Need::Nothing);
        pool.lock().wanted = 6;
        assert_eq!(pool.next_need(), Need::Batches { count: 2, urgent: true });
        *pool.lock() = State { holds: 1, ..State::default() };
        assert_eq!(pool.next_need(), Need::Nothing);
        drop(hold);
        assert_eq!(pool.next_need(), Need::Batches { count: 1, urgent: false });
    }
}
