//! Mask prefetch: a thread that keeps the slot pool filled.
//!
//! It opens the session (lean and stateless form: shared masks, downloaded once), makes batches (fresh secret, keys),
//! submits their mask jobs over a separate connection, takes in what arrives and puts the finished slots into the pool. A
//! job that loses its connection is resumed under the same batch id and keys, asking only for the missing blocks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fhe_layers::{
    Batch, Client, ClientSession, MaskBlock, MaskWords, SessionDownload, SessionSeed, WireForm,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::accounting::{Accounting, Phase, Traffic};
use super::bodies::RECONNECT_FOR;
use super::connection::Connection;
use super::session_cache::SessionCache;
use super::slots::{NamedSlot, Need, SlotPool};
use super::status::refused;
use super::target::Target;
use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::wire::{BlockRange, MaskPiece, OpenSessionRequest, Priority, SubmitRequest};
use sotto_storage::FetchProgress;

/// Attempts to resume one mask job.
const ATTEMPTS: u32 = 5;

/// Pause before an attempt, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Pause before asking a server again that still prepares tables.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for a server to close a lease that is used up.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Longest time that a client which leaves takes to give back its batches.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// A slot pool and the thread that fills it; one per credential, server and model in a process.
pub struct SlotSource {
    pool: Arc<SlotPool>,
    progress: Arc<SessionProgress>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes of shared masks that have arrived.
#[derive(Default)]
struct SessionProgress {
    here: AtomicU64,
    all: AtomicU64,
    /// 1 once the session is open.
    open: AtomicU64,
}

/// How often [`SlotSource::wait_session`] looks.
const SESSION_POLL: Duration = Duration::from_millis(20);

/// A copy of the client may be alive: wipes the slots and batches of every source of this process at once.
pub(crate) fn drop_all_batches() {
    let sources: Vec<_> = {
        let sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
        sources.values().filter_map(Weak::upgrade).collect()
    };
    sources.iter().for_each(|source| source.pool.alarm());
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
        form: WireForm,
        cache: Option<SessionCache>,
    ) -> Result<Arc<Self>> {
        let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, source| source.strong_count() > 0);
        let identity = source_identity(target, form);
        if let Some(source) = sources.get(&identity).and_then(Weak::upgrade)
            && !source.pool.is_alarmed()
        {
            return Ok(source);
        }
        let pool = Arc::new(SlotPool::new(target.tau()));
        let progress = Arc::new(SessionProgress::default());
        let worker = MaskFetcher {
            pool: Arc::clone(&pool),
            target: Arc::clone(target),
            client: Arc::clone(client),
            accounting: Arc::clone(accounting),
            form,
            cache,
            progress: Arc::clone(&progress),
            session: tokio::sync::Mutex::default(),
            filling: Mutex::default(),
            connection: Mutex::default(),
        };
        let thread =
            std::thread::Builder::new()
                .name("sotto-masks".to_owned())
                .spawn(move || worker.run())
                .map_err(|source| Error::Io { context: "starting the mask thread".to_owned(), source })?;
        let source = Arc::new(Self { pool, progress, thread: Some(thread) });
        sources.insert(identity, Arc::downgrade(&source));
        Ok(source)
    }

    /// Shows the download of the shared masks until they are here, or until it failed or `timeout` passed without any of
    /// them: then a pass that needs slots says why.
    pub(crate) fn wait_session(&self, timeout: Duration, progress: &dyn FetchProgress) {
        let (mut shown, mut seen, mut since) = (false, 0, Instant::now());
        while self.progress.open.load(Ordering::Relaxed) == 0
            && since.elapsed() < timeout
            && !self.pool.has_failed()
        {
            let (here, all) =
                (self.progress.here.load(Ordering::Relaxed), self.progress.all.load(Ordering::Relaxed));
            if here > seen {
                if !shown {
                    progress.begin("shared masks of this session", Some(all), true);
                    shown = true;
                }
                progress.position(here);
                (seen, since) = (here, Instant::now());
            }
            std::thread::sleep(SESSION_POLL);
        }
        if shown {
            progress.end();
        }
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

/// Names a credential at a server with a model and a form: one slot pool each.
fn source_identity(target: &Target, form: WireForm) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(target.identity());
    hasher.update(form.to_string());
    hasher.finalize().into()
}

/// A session that this run of the server knows.
struct OpenSession {
    session: ClientSession,
    worker: Bytes,
}

struct MaskFetcher {
    form: WireForm,
    /// Where shared masks are kept; `None` for a server that does not outlive this process.
    cache: Option<SessionCache>,
    progress: Arc<SessionProgress>,
    session: tokio::sync::Mutex<Option<Arc<OpenSession>>>,
    /// Batches that a job is filling.
    filling: Mutex<Vec<BatchId>>,
    /// The connection of the last job.
    connection: Mutex<Option<Connection>>,
    pool: Arc<SlotPool>,
    target: Arc<Target>,
    client: Arc<Client>,
    accounting: Arc<Accounting>,
}

impl MaskFetcher {
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
        let mut gone_since: Option<Instant> = None;
        loop {
            match self.pool.next_need() {
                Need::Stop => {
                    drop(jobs);
                    return self.give_up().await;
                }
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
                        gone_since = None;
                        self.accounting.note_answer();
                        self.accounting.add_batch();
                        self.pool.deliver(slots);
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "mask job failed");
                        gone_since = is_gone(&error).then(|| gone_since.unwrap_or_else(Instant::now));
                        // As long as the bodies wait for a server to come back, and no longer.
                        let gone = gone_since.is_some_and(|since| since.elapsed() >= RECONNECT_FOR);
                        let permanent = gone || !is_transient(&error) || !self.target.may_come_back();
                        self.pool.fail(self.target.explain(self.accounting.explain(error)), permanent);
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(2));
                    }
                    Err(_) => self.pool.fail(Error::Internal("a mask job panicked".to_owned()), true),
                },
            }
        }
    }

    async fn make_slots(&self, urgent_now: bool, urgent: watch::Receiver<bool>) -> Result<Vec<NamedSlot>> {
        let session = if self.form == WireForm::Full { None } else { Some(self.open_session().await?) };
        let batch = self.accounting.time(Phase::ClientAhead, || match &session {
            Some(open) => self.client.new_session_batch(&open.session),
            None => self.client.new_batch(),
        })?;
        let keys = Bytes::from(batch.keys().to_bytes(self.client.instance().params()));
        let id = BatchId::random();
        let mut job = Job {
            fetcher: self,
            session: session.as_deref(),
            batch,
            keys,
            id,
            urgent,
            raised: urgent_now,
            lease: None,
        };
        let start = Instant::now();
        self.filling().push(id);
        let outcome = job.run().await;
        self.filling().retain(|other| *other != id);
        if let Err(error) = outcome {
            if matches!(error, Error::BatchDead) {
                // The server is another run: its worker has another name.
                *self.session.lock().await = None;
            }
            return Err(error);
        }
        self.accounting.add(Phase::ServerMask, start.elapsed());
        let batch = job.batch;
        let slots = self.accounting.time(Phase::ClientAhead, || batch.into_slots())?;
        Ok((0..).zip(slots).map(|(index, slot)| NamedSlot { slot, batch: id, index }).collect())
    }

    fn filling(&self) -> MutexGuard<'_, Vec<BatchId>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a server that keeps words which ones are not needed any more. It would drop them by itself once their memory
    /// is short, so a server that does not answer at once is left alone.
    async fn give_up(&self) {
        let mut ids = self.pool.take_left();
        ids.append(&mut self.filling());
        if !self.form.keeps_words() || ids.is_empty() || self.target.ends_with_us() {
            return;
        }
        let cancel = async {
            let last = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
            let catalogue = match last {
                Some(connection) => connection,
                None => Connection::open(&self.target).await?,
            };
            let lease = catalogue.open_lease(self.target.digest(), 0, self.target.tau() as u64).await?.lease;
            for id in &ids {
                match catalogue.cancel(lease.clone(), id).await {
                    Ok(()) | Err(Error::NoSuchBatch) => {}
                    Err(error) => return Err(error),
                }
            }
            catalogue.close_lease(lease).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(GIVE_UP_TIMEOUT, cancel).await {
            tracing::debug!(%error, "words of unused batches stay at the server");
        }
    }

    /// The session, opened by the first batch that needs it.
    async fn open_session(&self) -> Result<Arc<OpenSession>> {
        let mut current = self.session.lock().await;
        if let Some(open) = &*current {
            return Ok(Arc::clone(open));
        }
        let mut attempt = 0;
        let opened = loop {
            match self.request_session().await {
                Ok(opened) => break opened,
                Err(Error::NotReady) => {
                    self.pool.note_reply();
                    tokio::time::sleep(NOT_READY_PAUSE).await;
                }
                Err(error) => {
                    attempt += 1;
                    // A dead batch stays dead; another one may do.
                    let dead = matches!(error, Error::BatchDead);
                    if dead || !is_transient(&error) || attempt >= ATTEMPTS || !self.target.may_come_back() {
                        return Err(error);
                    }
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
            }
        };
        self.progress.open.store(1, Ordering::Relaxed);
        let opened = Arc::new(opened);
        *current = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Has the cached masks confirmed, or downloads them.
    async fn request_session(&self) -> Result<OpenSession> {
        let (target, instance) = (&self.target, self.client.instance());
        let cached = self.cache.as_ref().and_then(|cache| cache.load(instance, self.form));
        let seed = match &cached {
            Some(session) => *session.seed(),
            None => SessionSeed::from_os()?,
        };
        let catalogue = Connection::open(target).await?;
        let lease = catalogue.open_lease(target.digest(), 0, target.tau() as u64).await?.lease;
        let connection =
            if target.is_one_process() { catalogue.clone() } else { Connection::open_masks(target).await? };
        let request = OpenSessionRequest {
            lease: lease.clone(),
            digest: Bytes::copy_from_slice(target.digest()),
            form: self.form.to_string(),
            seed: Bytes::copy_from_slice(seed.bytes()),
            known_hash: cached
                .as_ref()
                .map_or_else(Bytes::new, |session| Bytes::copy_from_slice(session.hash())),
        };
        let mut pieces = connection
            .masks(&lease)
            .open_session(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let mut download = SessionDownload::new(Arc::clone(instance), self.form, seed)?;
        self.progress.here.store(0, Ordering::Relaxed);
        self.progress.all.store(download.progress().1 as u64, Ordering::Relaxed);
        let last = loop {
            let piece = pieces.message().await.map_err(|status| refused(&status))?;
            let piece =
                piece.ok_or_else(|| Error::Transport("the session's stream ended early".to_owned()))?;
            self.pool.note_reply();
            self.accounting.add_bytes(Traffic::Session, piece.data.len());
            download.accept(&piece.data)?;
            self.progress.here.store(download.progress().0 as u64, Ordering::Relaxed);
            if piece.last {
                break piece;
            }
        };
        let hash = sotto_protocol::digest_from_wire(&last.hash)?;
        BatchId::from_wire(&last.worker)?;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, catalogue.close_lease(lease)).await;
        let session = match cached {
            Some(session) if *session.hash() == hash && download.progress().0 == 0 => session,
            _ => {
                let session = self.accounting.time(Phase::ClientAhead, || download.finish(&hash))?;
                if let Some(cache) = &self.cache {
                    cache.save(&session);
                }
                session
            }
        };
        Ok(OpenSession { session, worker: last.worker })
    }
}

/// Whether the server is away, as far as `error` tells.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Connect { .. } | Error::Transport(_) | Error::ShuttingDown)
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
            | Error::BatchDead
    )
}

/// One batch on its way.
struct Job<'a> {
    fetcher: &'a MaskFetcher,
    /// In the lean and stateless forms.
    session: Option<&'a OpenSession>,
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
        let mut missing = Missing::all(self.fetcher.target.mask_blocks());
        let mut pause = FIRST_PAUSE;
        let mut attempt = 0;
        loop {
            let before = missing.count();
            let error = match self.attempt(&mut missing).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.fetcher.accounting.note_failure(&error);
            if matches!(error, Error::Lease(_)) {
                self.lease = None;
            }
            if matches!(error, Error::NotReady) {
                // It prepares tables, which takes as long as it takes.
                self.fetcher.pool.note_reply();
                tokio::time::sleep(NOT_READY_PAUSE).await;
                continue;
            }
            // A stream that made progress before it broke starts the count anew.
            attempt = if missing.count() < before { 1 } else { attempt + 1 };
            // A dead batch stays dead; another one may do.
            let dead = matches!(error, Error::BatchDead);
            if dead || !is_transient(&error) || attempt >= ATTEMPTS || !self.fetcher.target.may_come_back() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "resuming a mask job");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn attempt(&mut self, missing: &mut Missing) -> Result<()> {
        let target = &self.fetcher.target;
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
            self.fetcher.accounting.add_bytes(Traffic::Keys, self.keys.len());
        }
        let request = SubmitRequest {
            lease: lease.clone(),
            batch_id: Bytes::copy_from_slice(&self.id.0),
            digest: Bytes::copy_from_slice(target.digest()),
            keys: self.keys.clone(),
            priority: if self.raised { Priority::Needed } else { Priority::Background }.into(),
            // What a server keeps it does not send again.
            wanted: if self.fetcher.form.keeps_words() { Vec::new() } else { missing.ranges() },
            form: self.fetcher.form.to_string(),
            seed: self
                .session
                .map_or_else(Bytes::new, |open| Bytes::copy_from_slice(open.session.seed().bytes())),
            worker: self.session.map_or_else(Bytes::new, |open| open.worker.clone()),
        };
        let mut pieces =
            connection.masks(&lease).submit(request).await.map_err(|status| refused(&status))?.into_inner();
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
            if self.fetcher.form.keeps_words() {
                self.fetcher.pool.note_reply();
                if piece.blocks_left == 0 {
                    break;
                }
            } else {
                self.accept(piece, missing)?;
            }
        }
        // A server keeps a credential's open leases for an hour and bounds their number, so a used one is closed; the
        // masks are here, whatever it answers.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, catalogue.close_lease(lease)).await;
        *self.fetcher.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(catalogue);
        Ok(())
    }

    fn accept(&mut self, piece: MaskPiece, missing: &mut Missing) -> Result<()> {
        let accounting = &self.fetcher.accounting;
        accounting.add_bytes(Traffic::Ahead, piece.data.len());
        let (first, count) = (piece.first_block as usize, piece.blocks as usize);
        missing.remove(first, count)?;
        if count > 0 {
            self.fetcher.pool.note_reply();
        }
        accounting.time(Phase::ClientAhead, || {
            let params = self.fetcher.client.instance().params();
            let got = match self.fetcher.form {
                WireForm::Full => {
                    let blocks = MaskBlock::read_all(params, &piece.data)?;
                    check_count(count, blocks.len())?;
                    self.batch.accept_masks(first, &blocks)
                }
                form => {
                    let blocks = MaskWords::read_all(params, form, &piece.data)?;
                    check_count(count, blocks.len())?;
                    self.batch.accept_mask_words(first, &blocks)
                }
            };
            Ok(got?)
        })
    }
}

fn check_count(expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Malformed {
        field: "mask piece",
        expected: format!("{expected} blocks"),
        got: format!("{got} blocks"),
    })
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
