//! Mask prefetch: a thread that keeps the slot pool filled.
//!
//! It makes batches (fresh secret, keys), submits their mask jobs over a connection of its own,
//! decrypts the masks as they arrive and puts the finished slots into the pool. A job that loses
//! its connection is resumed under the same batch id and keys, asking only for the missing blocks.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fhe_layers::{Batch, Client, MaskBlock, Slot};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::accounting::{Accounting, Phase, Traffic};
use super::connection::Connection;
use super::slots::{Need, SlotPool};
use super::status::refused;
use super::target::Target;
use crate::error::{Error, Result};
use crate::protocol::BatchId;
use crate::protocol::wire::{BlockRange, MaskPiece, Priority, SubmitRequest};

/// Attempts to resume one mask job.
const ATTEMPTS: u32 = 5;

/// Pause before an attempt, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Pause before asking a server again that still prepares tables.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for a server to close a lease that is used up.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// A slot pool and the thread that fills it; one per credential, server and model in a process.
pub struct SlotSource {
    pool: Arc<SlotPool>,
    thread: Option<JoinHandle<()>>,
}

type Registry = Mutex<HashMap<[u8; 32], Weak<SlotSource>>>;

/// Every slot source of this process, by identity.
static SOURCES: LazyLock<Registry> = LazyLock::new(Registry::default);

impl SlotSource {
    /// The source for `target`: the one this process already has, else a new one that starts to
    /// prefetch at once.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when no thread can be started.
    pub(crate) fn shared(
        target: &Arc<Target>,
        client: &Arc<Client>,
        accounting: &Arc<Accounting>,
    ) -> Result<Arc<Self>> {
        let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, source| source.strong_count() > 0);
        let identity = target.identity();
        if let Some(source) = sources.get(&identity).and_then(Weak::upgrade) {
            return Ok(source);
        }
        let pool = Arc::new(SlotPool::new(target.tau()));
        let worker = Worker {
            pool: Arc::clone(&pool),
            target: Arc::clone(target),
            client: Arc::clone(client),
            accounting: Arc::clone(accounting),
        };
        let thread =
            std::thread::Builder::new()
                .name("sotto-masks".to_owned())
                .spawn(move || worker.run())
                .map_err(|source| Error::Io { context: "starting the mask thread".to_owned(), source })?;
        let source = Arc::new(Self { pool, thread: Some(thread) });
        sources.insert(identity, Arc::downgrade(&source));
        Ok(source)
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<SlotPool> {
        &self.pool
    }
}

impl Drop for SlotSource {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the mask thread has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Worker {
    pool: Arc<SlotPool>,
    target: Arc<Target>,
    client: Arc<Client>,
    accounting: Arc<Accounting>,
}

impl Worker {
    fn run(self) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(Arc::new(self).serve()),
            Err(source) => {
                let error = Error::Io { context: "starting the mask runtime".to_owned(), source };
                self.pool.fail(error, true);
            }
        }
    }

    async fn serve(self: Arc<Self>) {
        let (urgency, urgent) = watch::channel(false);
        let mut jobs = JoinSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.pool.next_need() {
                Need::Stop => return,
                Need::Batches { count, urgent: now } => {
                    for _ in 0..count {
                        let worker = Arc::clone(&self);
                        let urgent = urgent.clone();
                        jobs.spawn(async move { worker.make_slots(now, urgent).await });
                    }
                }
                Need::Nothing => {}
            }
            urgency.send_if_modified(|value| {
                let now = self.pool.is_urgent();
                std::mem::replace(value, now) != now
            });
            tokio::select! {
                () = self.pool.changed.notified() => {}
                Some(finished) = jobs.join_next() => match finished {
                    Ok(Ok(slots)) => {
                        pause = FIRST_PAUSE;
                        self.accounting.add_batch();
                        self.pool.deliver(slots);
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "mask job failed");
                        let permanent = !is_transient(&error) || !self.target.may_come_back();
                        self.pool.fail(self.target.explain(error), permanent);
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(2));
                    }
                    Err(_) => self.pool.fail(Error::Internal("a mask job panicked".to_owned()), true),
                },
            }
        }
    }

    async fn make_slots(&self, urgent_now: bool, urgent: watch::Receiver<bool>) -> Result<Vec<Slot>> {
        let batch = self.accounting.time(Phase::ClientAhead, || self.client.new_batch())?;
        let keys = Bytes::from(batch.keys().to_bytes(self.client.instance().params()));
        let id = BatchId::random();
        let mut job = Job { worker: self, batch, keys, id, urgent, raised: urgent_now, lease: None };
        let start = Instant::now();
        job.run().await?;
        self.accounting.add(Phase::ServerMask, start.elapsed());
        let batch = job.batch;
        Ok(self.accounting.time(Phase::ClientAhead, || batch.into_slots())?)
    }
}

/// Whether trying the same thing again can help.
fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::Connect { .. }
            | Error::Transport(_)
            | Error::ShuttingDown
            | Error::Busy { .. }
            | Error::NotReady
            | Error::Lease(_)
    )
}

/// One batch on its way.
struct Job<'a> {
    worker: &'a Worker,
    batch: Batch,
    keys: Bytes,
    id: BatchId,
    urgent: watch::Receiver<bool>,
    raised: bool,
    /// Of the last attempt, as long as the server takes it.
    lease: Option<Bytes>,
}

impl Job<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut missing = Missing::all(self.worker.target.mask_blocks());
        let mut pause = FIRST_PAUSE;
        let mut attempt = 0;
        loop {
            let before = missing.count();
            let error = match self.attempt(&mut missing).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if matches!(error, Error::Lease(_)) {
                self.lease = None;
            }
            if matches!(error, Error::NotReady) {
                // It prepares tables, which takes as long as it takes.
                self.worker.pool.heard();
                tokio::time::sleep(NOT_READY_PAUSE).await;
                continue;
            }
            // A stream that made progress before it broke starts the count anew.
            attempt = if missing.count() < before { 1 } else { attempt + 1 };
            if !is_transient(&error) || attempt >= ATTEMPTS || !self.worker.target.may_come_back() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "resuming a mask job");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn attempt(&mut self, missing: &mut Missing) -> Result<()> {
        let target = &self.worker.target;
        let catalogue = Connection::open(target).await?;
        // A resumed job is charged once (same batch id), so its lease only has to be valid.
        let lease = match &self.lease {
            Some(lease) => lease.clone(),
            None => catalogue.open_lease(target.digest(), 0, target.tau() as u64).await?.lease,
        };
        self.lease = Some(lease.clone());
        let connection =
            if target.is_one_process() { catalogue.clone() } else { Connection::open_masks(target).await? };
        if std::mem::take(&mut missing.first) {
            self.worker.accounting.add_bytes(Traffic::Keys, self.keys.len());
        }
        let request = SubmitRequest {
            lease: lease.clone(),
            batch_id: Bytes::copy_from_slice(&self.id.0),
            digest: Bytes::copy_from_slice(target.digest()),
            keys: self.keys.clone(),
            priority: if self.raised { Priority::Needed } else { Priority::Background }.into(),
            wanted: missing.ranges(),
        };
        let mut pieces =
            connection.masks().submit(request).await.map_err(|status| refused(&status))?.into_inner();
        while missing.count() > 0 {
            let piece = tokio::select! {
                piece = pieces.message() => piece.map_err(|status| refused(&status))?,
                changed = self.urgent.changed(), if !self.raised => {
                    if changed.is_ok() && *self.urgent.borrow() {
                        self.raised = true;
                        match connection.raise(lease.clone(), &self.id).await {
                            // The server has computed everything; the rest is on its way here.
                            Ok(()) | Err(Error::NoSuchBatch) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    continue;
                }
            };
            let Some(piece) = piece else {
                return Err(Error::Transport("the mask stream ended early".to_owned()));
            };
            self.accept(piece, missing)?;
        }
        // A server keeps a credential's open leases for an hour and bounds their number, so a used one is closed; the
        // masks are here, whatever it answers.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, catalogue.close_lease(lease)).await;
        Ok(())
    }

    fn accept(&mut self, piece: MaskPiece, missing: &mut Missing) -> Result<()> {
        let accounting = &self.worker.accounting;
        accounting.add_bytes(Traffic::Ahead, piece.data.len());
        let (first, count) = (piece.first_block as usize, piece.blocks as usize);
        missing.remove(first, count)?;
        if count > 0 {
            self.worker.pool.heard();
        }
        accounting.time(Phase::ClientAhead, || {
            let blocks = MaskBlock::read_all(self.worker.client.instance().params(), &piece.data)?;
            if blocks.len() != count {
                return Err(Error::Malformed {
                    field: "mask piece",
                    expected: format!("{count} blocks"),
                    got: format!("{} blocks", blocks.len()),
                });
            }
            Ok(self.batch.accept_masks(first, &blocks)?)
        })
    }
}

/// Which mask blocks are still owed.
struct Missing {
    owed: Vec<bool>,
    count: usize,
    /// Whether the keys are still to be counted.
    first: bool,
}

impl Missing {
    fn all(blocks: usize) -> Self {
        Self { owed: vec![true; blocks], count: blocks, first: true }
    }

    fn count(&self) -> usize {
        self.count
    }

    /// Strikes out `count` blocks from `first` on.
    fn remove(&mut self, first: usize, count: usize) -> Result<()> {
        let range = first..first.saturating_add(count);
        let owed = self.owed.get_mut(range.clone()).filter(|owed| owed.iter().all(|&owed| owed));
        let owed = owed.ok_or_else(|| Error::Malformed {
            field: "mask piece",
            expected: "blocks that are still owed".to_owned(),
            got: format!("blocks {range:?}"),
        })?;
        owed.fill(false);
        self.count -= count;
        Ok(())
    }

    /// The owed blocks as ranges; empty when all are owed, as the protocol has it.
    fn ranges(&self) -> Vec<BlockRange> {
        if self.count == self.owed.len() {
            return Vec::new();
        }
        let mut ranges: Vec<BlockRange> = Vec::new();
        for (block, _) in self.owed.iter().enumerate().filter(|&(_, &owed)| owed) {
            let block = block as u32;
            match ranges.last_mut() {
                Some(last) if last.first + last.count == block => last.count += 1,
                _ => ranges.push(BlockRange { first: block, count: 1 }),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_taken_once() {
        let mut missing = Missing::all(10);
        assert!(missing.ranges().is_empty());
        missing.remove(2, 3).unwrap();
        missing.remove(9, 1).unwrap();
        let ranges: Vec<_> = missing.ranges().iter().map(|range| (range.first, range.count)).collect();
        assert_eq!(ranges, [(0, 2), (5, 4)]);
        assert_eq!(missing.count(), 6);
        assert!(missing.remove(4, 2).is_err());
        assert!(missing.remove(8, 3).is_err());
        assert!(missing.remove(usize::MAX, 2).is_err());
        assert_eq!(missing.count(), 6);
    }
}
