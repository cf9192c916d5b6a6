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

use bytes::Bytes;
use fhe_layers::{ServerSession, SessionSeed, WireForm};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::Common;
use crate::auth::admission::{Bounded, PerCredential};
use crate::auth::credentials::{BatchState, BlockCount, CredentialId};
use crate::auth::leases::{MeteredLease, SigningKey};
use crate::bodies::executor::{MaskBatch, SessionBatch, Tables};
use crate::bodies::read_form;
use crate::catalogue::blocking;
use crate::masks::kept::{Filling, KeptBatches};
use crate::masks::priority::PriorityGate;
use crate::masks::queue::{BlockSet, JobKey, Queue, Step};
use crate::masks::sessions::Sessions;
use crate::ops::config::ServerConfig;
use crate::transport::connection_auth::ConnectionAuth;
use crate::transport::grpc_status::status;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;
use sotto_protocol::wire::mask_jobs_server::MaskJobs;
use sotto_protocol::wire::{
    CancelReply, CancelRequest, MaskPiece, OpenSessionRequest, Priority, RaiseReply, RaiseRequest,
    SessionPiece, SubmitRequest,
};
use sotto_protocol::{BatchId, digest_from_wire};

/// How often the driver looks again when every job's reader is slow.
const SLOW_READERS_PAUSE: Duration = Duration::from_millis(3);

type PieceSender = mpsc::Sender<std::result::Result<MaskPiece, Status>>;

/// One batch, as its form has it computed.
#[derive(Clone)]
enum Work {
    Full(Arc<MaskBatch>),
    Session(Arc<SessionBatch>),
}

/// What computing a job needs.
struct Payload {
    work: Work,
    /// In the lean form: while the job waits or runs, its batch is not idle.
    _filling: Option<Filling>,
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

/// Owner of the mask jobs: the queue, and the work of the thread that empties it.
pub(crate) struct Masks {
    pub(super) common: Common,
    priority: Arc<PriorityGate>,
    signing: SigningKey,
    pub(super) kept: Arc<KeptBatches>,
    forms: Vec<&'static str>,
    pub(super) sessions: Sessions,
    queue: Mutex<Queue<Payload>>,
    wake: Condvar,
    stop: AtomicBool,
    /// Rows of the next step, so that it takes about [`limits::MASK_STEP_TIME`] on this machine.
    step_rows: AtomicUsize,
    /// Jobs that wait for tables or are being checked and charged, each with its keys.
    entering: Arc<Bounded>,
    entering_of: PerCredential,
}

impl Masks {
    /// # Errors
    /// [`Error::Internal`] if threads cannot be started.
    pub(crate) fn new(
        common: Common,
        priority: Arc<PriorityGate>,
        kept: Arc<KeptBatches>,
        signing: SigningKey,
        config: &ServerConfig,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            common,
            priority,
            sessions: Sessions::new(signing.session_secret(), config.threads)?,
            signing,
            kept,
            forms: config.forms(),
            queue: Mutex::new(Queue::new()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            step_rows: AtomicUsize::new(limits::MASK_ROWS_PER_STEP),
            entering: Bounded::new("the queue of mask jobs", limits::MAX_MASK_JOBS),
            entering_of: PerCredential::new(
                "this credential's queue of mask jobs",
                limits::MAX_MASK_JOBS_PER_CREDENTIAL,
            ),
        }))
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

    /// Ends [`Masks::run`] after the step under way.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }

    /// Computes steps until [`Masks::stop`]: those that somebody waits for on `urgent`, the others on `background`.
    pub(crate) fn run(&self, urgent: &rayon::ThreadPool, background: &rayon::ThreadPool) {
        while let Some((step, batches)) = self.next_step() {
            let pool = if step.needed { urgent } else { background };
            self.compute(pool, &step, &batches);
        }
    }

    /// Waits for work; `None` when stopped.
    fn next_step(&self) -> Option<(Step, Vec<Work>)> {
        let mut queue = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            queue.remove_where(Payload::is_abandoned);
            self.common.metrics.mask_jobs.set(queue.len() as i64);
            let step = queue.pick(Payload::has_room, |model| self.step_blocks(model));
            if let Some(step) = step {
                if step.needed {
                    self.priority.note_foreground();
                }
                let batches =
                    step.jobs.iter().filter_map(|&serial| Some(queue.payload(serial)?.work.clone()));
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

    fn compute(&self, pool: &rayon::ThreadPool, step: &Step, batches: &[Work]) {
        let start = Instant::now();
        let outcome = self
            .common
            .models
            .find(&step.model)
            .and_then(|model| model.tables_now().ok_or(Error::NotReady))
            .and_then(|tables| {
                let masks = || pool.install(|| compute_batches(&tables, batches, step.blocks.clone()));
                // A panic must not end the thread that serves everybody's jobs.
                std::panic::catch_unwind(AssertUnwindSafe(masks))
                    .unwrap_or_else(|_| Err(Error::Internal("the mask half panicked".to_owned())))
            });
        let took = start.elapsed();
        let rows = step.blocks.len() * self.phi(&step.model);
        self.step_rows.store(next_step_rows(rows, took), Ordering::Relaxed);
        self.common.metrics.mask_seconds.inc_by(took.as_secs_f64());
        self.common.metrics.mask_steps.inc();
        self.common.metrics.mask_blocks.inc_by((step.blocks.len() * batches.len()) as u64);
        let mut queue = self.lock();
        match outcome {
            Ok(buffers) => {
                for (&serial, outcome) in step.jobs.iter().zip(buffers) {
                    let Some(pieces) = queue.payload(serial).map(|payload| payload.pieces.clone()) else {
                        continue;
                    };
                    let data = match outcome {
                        Ok(data) => data,
                        Err(error) => {
                            pieces.try_send(Err(status(&error))).ok();
                            queue.remove_serial(serial);
                            continue;
                        }
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
                        self.common.metrics.mask_jobs_done.inc();
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
        self.common.metrics.mask_jobs.set(queue.len() as i64);
    }

    /// Waits while work goes on that a client waits for.
    pub(crate) fn yield_to_foreground(&self) {
        self.priority.yield_to_foreground();
    }

    /// Rows of a block.
    fn phi(&self, model: &[u8; 32]) -> usize {
        self.common.models.find(model).map_or(1, |model| model.info.phi.max(1))
    }

    /// Most blocks of the next step.
    fn step_blocks(&self, model: &[u8; 32]) -> usize {
        let rows = self.step_rows.load(Ordering::Relaxed);
        (rows / self.phi(model)).clamp(1, limits::MAX_MASK_BLOCKS_PER_PIECE)
    }
}

/// One buffer for each batch, in order; the two kinds of batches take a pass each.
fn compute_batches(
    tables: &Tables,
    batches: &[Work],
    blocks: std::ops::Range<usize>,
) -> Result<Vec<Result<Bytes>>> {
    let (mut full, mut session) = (Vec::new(), Vec::new());
    for work in batches {
        match work {
            Work::Full(batch) => full.push(Arc::clone(batch)),
            Work::Session(batch) => session.push(Arc::clone(batch)),
        }
    }
    let full = if full.is_empty() { Vec::new() } else { tables.masks(&full, blocks.clone())? };
    let session = if session.is_empty() { Vec::new() } else { tables.words(&session, blocks)? };
    let (mut full, mut session) = (full.into_iter(), session.into_iter());
    let missing = || Err(Error::Internal("a batch without its buffer".to_owned()));
    Ok(batches
        .iter()
        .map(|work| match work {
            Work::Full(_) => full.next().map_or_else(missing, Ok),
            Work::Session(_) => session.next().unwrap_or_else(missing),
        })
        .collect())
}

/// Rows of the step after one of `rows` that `took` so long: at most twice as many, for its last may have been short.
fn next_step_rows(rows: usize, took: Duration) -> usize {
    let fitting = rows as f64 * limits::MASK_STEP_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    (fitting.min(2.0 * rows as f64) as usize)
        .clamp(limits::MIN_MASK_ROWS_PER_STEP, limits::MASK_ROWS_PER_STEP)
}

impl Masks {
    async fn accept(
        self: &Arc<Self>,
        message: SubmitRequest,
    ) -> Result<mpsc::Receiver<std::result::Result<MaskPiece, Status>>> {
        if self.common.lifecycle.is_draining() {
            return Err(Error::ShuttingDown);
        }
        let lease = self.common.accounts.verify(&message.lease)?;
        let digest = digest_from_wire(&message.digest)?;
        if digest != lease.lease().digest {
            return Err(Error::Lease("for another model"));
        }
        let batch_id = BatchId::from_wire(&message.batch_id)?;
        let model = Arc::clone(self.common.models.find(&digest)?);
        let form = match message.form.as_str() {
            "" => WireForm::Full,
            text => read_form(text, &self.forms)?,
        };
        let mut pending = wanted_blocks(&message, model.info.blocks)?;
        let blocks = BlockCount { wanted: pending.len() as u64, whole: model.info.blocks as u64 };
        if message.keys.len() > limits::MAX_KEYS_BYTES {
            let (got, limit) = (message.keys.len() as u64, limits::MAX_KEYS_BYTES as u64);
            return Err(Error::TooLong { field: "keys", got, limit });
        }
        if form.keeps_words() && message.worker[..] != self.kept.worker()[..] {
            // Charged to another worker or run: never computed here.
            return Err(Error::BatchDead);
        }
        let key = (lease.lease().credential, batch_id);
        // A client that reconnects may come back before its old stream is noticed dead.
        self.cancel(key);
        self.lock().check_room(key.0)?;
        let _places = (self.entering.enter()?, self.entering_of.enter(key.0)?);
        let tables = model.tables().await?;
        let needed = message.priority() == Priority::Needed;
        let masks = Arc::clone(self);
        let held = Arc::clone(&lease);
        let tau = model.info.tau as u64;
        let work =
            blocking(move || masks.open_batch(&tables, &message, form, key, &lease, (tau, blocks))).await?;
        let filling = match &work {
            Work::Session(batch) => batch.kept.clone().map(Filling::new),
            Work::Full(_) => None,
        };
        let (pieces, receiver) = mpsc::channel(limits::MASK_PIECES_BUFFERED);
        let had_room = Cell::new(Instant::now());
        if let Some(filling) = &filling {
            pending = BlockSet::all(if filling.0.is_complete()? { 0 } else { model.info.blocks });
            if pending.len() == 0 {
                pieces.try_send(Ok(MaskPiece::default())).ok();
                return Ok(receiver);
            }
        }
        let payload = Payload { work, _filling: filling, pieces, had_room, _lease: held };
        self.cancel(key);
        self.lock().push(key, digest, needed, pending, payload)?;
        self.wake.notify_all();
        Ok(receiver)
    }

    /// Checks and charges a batch.
    fn open_batch(
        &self,
        tables: &Tables,
        message: &SubmitRequest,
        form: WireForm,
        key: JobKey,
        lease: &MeteredLease,
        (tau, blocks): (u64, BlockCount),
    ) -> Result<Work> {
        let keys = Arc::new(tables.keys(form, &message.keys)?);
        let digest = lease.lease().digest;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest).update(&message.keys);
        if form != WireForm::Full {
            hasher.update(form.to_string().as_bytes()).update(&message.worker);
        }
        let keys_hash = *hasher.finalize().as_bytes();
        let charge = || {
            let once = || lease.use_masks(tau);
            self.common.accounts.charge_batch(key.0, key.1, keys_hash, blocks, once)
        };
        if form == WireForm::Full {
            charge()?;
            let seed = self.signing.job_seed(key.0, &key.1.0, &keys_hash);
            return Ok(Work::Full(Arc::new(MaskBatch { keys, seed })));
        }
        let session = self.session(tables, form, key.0, &message.seed)?;
        Tables::check_session(&keys, &session)?;
        let kept = if form.keeps_words() {
            // Charged before and not live: its words are gone.
            let new = || match charge()? {
                BatchState::New => Ok(()),
                BatchState::Known => Err(Error::BatchDead),
            };
            Some(self.kept.open(key, digest, &keys_hash, tables.instance(), new)?)
        } else {
            charge()?;
            None
        };
        Ok(Work::Session(Arc::new(SessionBatch { keys, session: Arc::new(session), kept })))
    }

    /// The session that `credential` opened with `seed`.
    pub(super) fn session(
        &self,
        tables: &Tables,
        form: WireForm,
        credential: CredentialId,
        seed: &[u8],
    ) -> Result<ServerSession> {
        let seed: [u8; 32] = seed.try_into().map_err(|_| Error::Malformed {
            field: "seed",
            expected: "32 bytes".to_owned(),
            got: format!("{} bytes", seed.len()),
        })?;
        let (secret, seed) = (self.sessions.secret(), SessionSeed::from_bytes(seed));
        Ok(ServerSession::new(tables.instance(), form, secret, &credential.0, seed)?)
    }

    /// The wire form that a peer names.
    pub(super) fn read_form(&self, text: &str) -> Result<WireForm> {
        read_form(text, &self.forms)
    }

    /// The job that `lease` and `batch_id` name; another credential's does not exist for the caller.
    fn named(&self, lease: &[u8], batch_id: &[u8]) -> Result<JobKey> {
        Ok((self.common.accounts.verify(lease)?.lease().credential, BatchId::from_wire(batch_id)?))
    }

    fn answer<T>(&self, outcome: Result<T>) -> std::result::Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|error| {
            self.common.metrics.refused.inc();
            status(&error)
        })
    }
}

/// The gRPC service.
pub(crate) struct MaskJobsService(pub(crate) Arc<Masks>);

#[tonic::async_trait]
impl MaskJobs for MaskJobsService {
    type OpenSessionStream = ReceiverStream<std::result::Result<SessionPiece, Status>>;

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> std::result::Result<Response<Self::OpenSessionStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        if let Ok(lease) = self.0.common.accounts.verify(&message.lease) {
            ConnectionAuth::note_in(&extensions, lease.lease().credential);
        }
        let pieces = self.0.open_session(message).await;
        self.0.answer(pieces.map(ReceiverStream::new))
    }

    type SubmitStream = ReceiverStream<std::result::Result<MaskPiece, Status>>;

    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> std::result::Result<Response<Self::SubmitStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        if let Ok(lease) = self.0.common.accounts.verify(&message.lease) {
            ConnectionAuth::note_in(&extensions, lease.lease().credential);
        }
        let pieces = self.0.accept(message).await;
        self.0.answer(pieces.map(ReceiverStream::new))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> std::result::Result<Response<CancelReply>, Status> {
        let message = request.into_inner();
        let outcome = self.0.named(&message.lease, &message.batch_id).and_then(|key| {
            let waiting = self.0.cancel(key);
            let kept = self.0.kept.find(key).is_ok();
            self.0.kept.forget(key);
            if waiting || kept { Ok(CancelReply {}) } else { Err(Error::NoSuchBatch) }
        });
        self.0.answer(outcome)
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> std::result::Result<Response<RaiseReply>, Status> {
        let message = request.into_inner();
        let needed = message.priority() == Priority::Needed;
        let outcome = self.0.named(&message.lease, &message.batch_id).and_then(|key| {
            let found = self.0.lock().set_needed(key, needed);
            if found { Ok(RaiseReply {}) } else { Err(Error::NoSuchBatch) }
        });
        self.0.answer(outcome)
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
