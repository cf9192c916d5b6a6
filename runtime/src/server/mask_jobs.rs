//! The mask half ahead of need: queued jobs, computed in the background, streamed in pieces.
//!
//! Nothing is cached: the re-randomisation of a job is a pseudo-random function of the credential, the batch id and
//! the keys, so computing a block again gives the same bytes. A client that lost its connection submits the same job
//! again and names the blocks it still wants.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Shared;
use super::admission::{Bounded, PerCredential};
use super::catalogue::blocking;
use super::engine::Batch;
use super::introduction::Introduction;
use super::leases::MeteredLease;
use super::mask_queue::{BlockSet, JobKey, Queue, Step};
use super::refusal::status;
use crate::error::{Error, Result};
use crate::limits;
use crate::protocol::wire::mask_jobs_server::MaskJobs;
use crate::protocol::wire::{
    CancelReply, CancelRequest, MaskPiece, Priority, RaiseReply, RaiseRequest, SubmitRequest,
};
use crate::protocol::{BatchId, digest_from_wire};

/// How often the driver looks again when every job's reader is slow.
const SLOW_READERS_PAUSE: Duration = Duration::from_millis(3);

type PieceSender = mpsc::Sender<std::result::Result<MaskPiece, Status>>;

/// What computing a job needs.
struct Payload {
    batch: Arc<Batch>,
    pieces: PieceSender,
    /// When the reader was last seen with room for a piece.
    had_room: Cell<Instant>,
    /// In use, and so not idle, while the job waits.
    _lease: Arc<MeteredLease>,
}

impl Payload {
    fn has_room(&self) -> bool {
        let room = self.pieces.capacity() > 0;
        if room {
            self.had_room.set(Instant::now());
        }
        room
    }

    /// Nobody reads the stream any more.
    fn is_abandoned(&self) -> bool {
        self.pieces.is_closed() || self.had_room.get().elapsed() > limits::STALLED_READER_TIMEOUT
    }
}

/// The queue and the thread that empties it.
pub(crate) struct MaskDriver {
    queue: Mutex<Queue<Payload>>,
    wake: Condvar,
    stop: AtomicBool,
    /// Rows of the next step, so that it takes about [`limits::MASK_STEP_TIME`] on this machine.
    step_rows: AtomicUsize,
    /// Jobs that wait for tables or are being checked and charged, each with its keys.
    entering: Arc<Bounded>,
    entering_of: PerCredential,
}

impl MaskDriver {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::new()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            step_rows: AtomicUsize::new(limits::MASK_ROWS_PER_STEP),
            entering: Bounded::new("the queue of mask jobs", limits::MAX_MASK_JOBS),
            entering_of: PerCredential::new(
                "this credential's queue of mask jobs",
                limits::MAX_MASK_JOBS_PER_CREDENTIAL,
            ),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Payload>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops a job and ends its stream; false if there is none.
    fn cancel(&self, key: JobKey) -> bool {
        let removed = self.lock().remove(key);
        removed.map(|payload| payload.pieces.try_send(Err(status(&Error::Cancelled)))).is_some()
    }

    /// Number of jobs waiting or running.
    pub(crate) fn jobs(&self) -> usize {
        self.lock().len()
    }

    /// Ends [`MaskDriver::run`] after the step under way.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }

    /// Computes steps until [`MaskDriver::stop`]: those that somebody waits for on `urgent`, the others on `background`.
    pub(crate) fn run(&self, shared: &Shared, urgent: &rayon::ThreadPool, background: &rayon::ThreadPool) {
        while let Some((step, batches)) = self.next_step(shared) {
            let pool = if step.needed { urgent } else { background };
            self.compute(shared, pool, &step, &batches);
        }
    }

    /// Waits for work; `None` when stopped.
    fn next_step(&self, shared: &Shared) -> Option<(Step, Vec<Arc<Batch>>)> {
        let mut queue = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            queue.remove_where(Payload::is_abandoned);
            shared.metrics.mask_jobs.set(queue.len() as i64);
            let step = queue.pick(Payload::has_room, |model| self.step_blocks(shared, model));
            if let Some(step) = step {
                if step.needed {
                    shared.foreground.mark();
                }
                let batches =
                    step.jobs.iter().filter_map(|&serial| Some(Arc::clone(&queue.payload(serial)?.batch)));
                let batches = batches.collect();
                return Some((step, batches));
            }
            queue = if queue.len() == 0 {
                self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.wake.wait_timeout(queue, SLOW_READERS_PAUSE).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn compute(&self, shared: &Shared, pool: &rayon::ThreadPool, step: &Step, batches: &[Arc<Batch>]) {
        let start = Instant::now();
        let outcome = shared
            .registry
            .find(&step.model)
            .and_then(|model| model.tables_now().ok_or(Error::NotReady))
            .and_then(|tables| {
                let masks = || pool.install(|| tables.masks(batches, step.blocks.clone()));
                // A panic must not end the thread that serves everybody's jobs.
                std::panic::catch_unwind(AssertUnwindSafe(masks))
                    .unwrap_or_else(|_| Err(Error::Internal("the mask half panicked".to_owned())))
            });
        let took = start.elapsed();
        let rows = step.blocks.len() * phi(shared, &step.model);
        self.step_rows.store(next_step_rows(rows, took), Ordering::Relaxed);
        shared.metrics.mask_seconds.inc_by(took.as_secs_f64());
        shared.metrics.mask_steps.inc();
        shared.metrics.mask_blocks.inc_by((step.blocks.len() * batches.len()) as u64);
        let mut queue = self.lock();
        match outcome {
            Ok(buffers) => {
                for (&serial, data) in step.jobs.iter().zip(buffers) {
                    let Some(pieces) = queue.payload(serial).map(|payload| payload.pieces.clone()) else {
                        continue;
                    };
                    let Some(left) = queue.complete(serial, &step.blocks) else { continue };
                    let piece = MaskPiece {
                        first_block: step.blocks.start as u32,
                        blocks: step.blocks.len() as u32,
                        data,
                        blocks_left: left as u32,
                    };
                    // This thread alone sends, and it saw room; a closed channel means that the client is gone.
                    pieces.try_send(Ok(piece)).ok();
                    if left == 0 {
                        shared.metrics.mask_jobs_done.inc();
                    }
                }
            }
            Err(error) => {
                for &serial in &step.jobs {
                    if let Some(payload) = queue.payload(serial) {
                        payload.pieces.try_send(Err(status(&error))).ok();
                    }
                    queue.remove_serial(serial);
                }
            }
        }
        shared.metrics.mask_jobs.set(queue.len() as i64);
    }

    /// Most blocks of the next step.
    fn step_blocks(&self, shared: &Shared, model: &[u8; 32]) -> usize {
        let rows = self.step_rows.load(Ordering::Relaxed);
        (rows / phi(shared, model)).clamp(1, limits::MAX_MASK_BLOCKS_PER_PIECE)
    }
}

/// Rows of a block.
fn phi(shared: &Shared, model: &[u8; 32]) -> usize {
    shared.registry.find(model).map_or(1, |model| model.info.phi.max(1))
}

/// Rows of the step behind one of `rows` that `took` so long: at most twice as many, for its last may have been short.
fn next_step_rows(rows: usize, took: Duration) -> usize {
    let fitting = rows as f64 * limits::MASK_STEP_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    (fitting.min(2.0 * rows as f64) as usize)
        .clamp(limits::MIN_MASK_ROWS_PER_STEP, limits::MASK_ROWS_PER_STEP)
}

/// The gRPC service.
pub(crate) struct MaskJobsService {
    shared: Arc<Shared>,
    driver: Arc<MaskDriver>,
}

impl MaskJobsService {
    pub(crate) fn new(shared: Arc<Shared>, driver: Arc<MaskDriver>) -> Self {
        Self { shared, driver }
    }

    async fn accept(
        &self,
        message: SubmitRequest,
    ) -> Result<mpsc::Receiver<std::result::Result<MaskPiece, Status>>> {
        if self.shared.is_draining() {
            return Err(Error::ShuttingDown);
        }
        let lease = self.lease(&message.lease)?;
        let digest = digest_from_wire(&message.digest)?;
        if digest != lease.lease().digest {
            return Err(Error::Lease("for another model"));
        }
        let batch_id = BatchId::from_wire(&message.batch_id)?;
        let model = Arc::clone(self.shared.registry.find(&digest)?);
        let pending = wanted_blocks(&message, model.info.blocks)?;
        if message.keys.len() > limits::MAX_KEYS_BYTES {
            let (got, limit) = (message.keys.len() as u64, limits::MAX_KEYS_BYTES as u64);
            return Err(Error::TooLong { field: "keys", got, limit });
        }
        let key = (lease.lease().credential, batch_id);
        // A client that reconnects may come back before its old stream is noticed dead.
        self.driver.cancel(key);
        self.driver.lock().check_room(key.0)?;
        let _places = (self.driver.entering.enter()?, self.driver.entering_of.enter(key.0)?);
        let tables = model.tables().await?;
        let needed = message.priority() == Priority::Needed;
        let shared = Arc::clone(&self.shared);
        let keys = message.keys;
        let held = Arc::clone(&lease);
        let batch = blocking(move || {
            let expanded = tables.keys(&keys)?;
            let keys_hash = *blake3::Hasher::new().update(&digest).update(&keys).finalize().as_bytes();
            let charge = || lease.use_masks(model.info.tau as u64);
            shared.store.charge_batch(key.0, key.1, keys_hash, charge)?;
            let seed = shared.signing.job_seed(key.0, &key.1.0, &keys_hash);
            Ok(Batch { keys: Arc::new(expanded), seed })
        })
        .await?;
        let (pieces, receiver) = mpsc::channel(limits::MASK_PIECES_BUFFERED);
        let had_room = Cell::new(Instant::now());
        let payload = Payload { batch: Arc::new(batch), pieces, had_room, _lease: held };
        self.driver.cancel(key);
        self.driver.lock().push(key, digest, needed, pending, payload)?;
        self.driver.wake.notify_all();
        Ok(receiver)
    }

    fn lease(&self, bytes: &[u8]) -> Result<Arc<MeteredLease>> {
        if bytes.len() > limits::MAX_LEASE_BYTES {
            return Err(Error::Lease("malformed"));
        }
        self.shared.leases.verify(bytes, None)
    }

    /// The job that `lease` and `batch_id` name; another credential's does not exist for the caller.
    fn named(&self, lease: &[u8], batch_id: &[u8]) -> Result<JobKey> {
        Ok((self.lease(lease)?.lease().credential, BatchId::from_wire(batch_id)?))
    }

    fn answer<T>(&self, outcome: Result<T>) -> std::result::Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|error| {
            self.shared.metrics.refused.inc();
            status(&error)
        })
    }
}

#[tonic::async_trait]
impl MaskJobs for MaskJobsService {
    type SubmitStream = ReceiverStream<std::result::Result<MaskPiece, Status>>;

    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> std::result::Result<Response<Self::SubmitStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        let pieces = self.accept(message).await;
        if pieces.is_ok() {
            Introduction::was_made(&extensions);
        }
        self.answer(pieces.map(ReceiverStream::new))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> std::result::Result<Response<CancelReply>, Status> {
        let message = request.into_inner();
        let outcome = self.named(&message.lease, &message.batch_id).and_then(|key| {
            if self.driver.cancel(key) { Ok(CancelReply {}) } else { Err(Error::NoSuchBatch) }
        });
        self.answer(outcome)
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> std::result::Result<Response<RaiseReply>, Status> {
        let message = request.into_inner();
        let needed = message.priority() == Priority::Needed;
        let outcome = self.named(&message.lease, &message.batch_id).and_then(|key| {
            let found = self.driver.lock().set_needed(key, needed);
            if found { Ok(RaiseReply {}) } else { Err(Error::NoSuchBatch) }
        });
        self.answer(outcome)
    }
}

fn wanted_blocks(message: &SubmitRequest, blocks: usize) -> Result<BlockSet> {
    if message.wanted.is_empty() {
        return Ok(BlockSet::all(blocks));
    }
    if message.wanted.len() > limits::MAX_WANTED_RANGES {
        let (got, limit) = (message.wanted.len() as u64, limits::MAX_WANTED_RANGES as u64);
        return Err(Error::TooLong { field: "wanted", got, limit });
    }
    let ranges: Vec<_> = message.wanted.iter().map(|range| (range.first, range.count)).collect();
    BlockSet::from_ranges(&ranges, blocks).ok_or_else(|| Error::Malformed {
        field: "wanted",
        expected: format!("non-empty ranges within {blocks} blocks"),
        got: "others".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_sized_by_the_time_they_take() {
        let most = limits::MASK_ROWS_PER_STEP;
        assert_eq!(next_step_rows(most, limits::MASK_STEP_TIME / 4), most);
        assert_eq!(next_step_rows(most, limits::MASK_STEP_TIME * 4), most / 4);
        assert_eq!(next_step_rows(512, limits::MASK_STEP_TIME / 100), 1024);
        assert_eq!(next_step_rows(most, Duration::from_secs(3600)), limits::MIN_MASK_ROWS_PER_STEP);
        assert_eq!(next_step_rows(32, Duration::ZERO), limits::MIN_MASK_ROWS_PER_STEP);
    }
}
