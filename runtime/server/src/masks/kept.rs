//! Lean batches: the words `b'` that this process keeps, and which slots have answered what.
//!
//! Both live and die together, in memory only, under a budget: per credential, and in all. When room is short, the batch
//! goes that was idle for longest. A batch id whose words were dropped is dead for ever: it is never computed again, since
//! nothing is known any more about its used slots. Ids of other workers and of earlier runs never live here, because a
//! batch names the worker that its session named.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use fhe_layers::{BatchIds, Instance, LeanBatch, MaskWords, Opened};

use crate::auth::credentials::CredentialId;
use crate::masks::queue::JobKey;
use crate::ops::metrics::Metrics;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;

/// Memory that lean batches may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptBudget {
    /// Bytes in all.
    pub(crate) total: u64,
    /// Bytes of one credential.
    pub(crate) per_credential: u64,
}

impl KeptBudget {
    /// `total` bytes, or a share of the memory that is free now.
    pub(crate) fn new(total: Option<u64>, free: Option<u64>) -> Self {
        let share = free.unwrap_or(0) / limits::KEPT_WORDS_MEMORY_SHARE;
        let total = total.unwrap_or_else(|| share.max(limits::MIN_KEPT_WORDS_BYTES));
        Self { total, per_credential: total / limits::KEPT_WORDS_CREDENTIAL_SHARE }
    }
}

/// Owner of the lean batches of this run of this process.
pub(crate) struct KeptBatches {
    worker: [u8; 16],
    budget: KeptBudget,
    metrics: Arc<Metrics>,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    live: HashMap<JobKey, Arc<KeptBatch>>,
    /// Never forgets an id while the process runs: 60 bytes for each.
    ids: BatchIds<JobKey>,
}

/// One lean batch.
pub(crate) struct KeptBatch {
    key: JobKey,
    model: [u8; 32],
    /// `None` once dropped: words and ledger go together.
    batch: RwLock<Option<LeanBatch>>,
    bytes: AtomicU64,
    /// Milliseconds since the start of the process.
    used_ms: AtomicU64,
    /// Jobs that fill it, waiting or running; a resumed one overlaps the one that it replaces.
    filling: AtomicUsize,
}

/// The words of a batch while frames read them.
pub(crate) type Reading<'a> = RwLockReadGuard<'a, Option<LeanBatch>>;

impl KeptBatch {
    /// The model that it was made for.
    pub(crate) fn model(&self) -> &[u8; 32] {
        &self.model
    }

    /// The words, for reading.
    ///
    /// # Errors
    /// [`Error::BatchDead`] once they were dropped.
    pub(crate) fn read(&self) -> Result<Reading<'_>> {
        let batch = self.batch.read().unwrap_or_else(PoisonError::into_inner);
        if batch.is_some() { Ok(batch) } else { Err(Error::BatchDead) }
    }

    /// Stores a block; one that is here already is the same and is left.
    ///
    /// # Errors
    /// [`Error::BatchDead`]; [`Error::FheLayers`] for a block that is not of this model.
    pub(crate) fn store(&self, block: usize, words: &MaskWords) -> Result<()> {
        let mut batch = self.batch.write().unwrap_or_else(PoisonError::into_inner);
        match batch.as_mut().ok_or(Error::BatchDead)?.words.store(block, words) {
            Ok(()) | Err(fhe_layers::Error::DuplicateMask { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether every block is here.
    ///
    /// # Errors
    /// [`Error::BatchDead`].
    pub(crate) fn is_complete(&self) -> Result<bool> {
        Ok(self.read()?.as_ref().is_some_and(|lean| lean.words.is_complete()))
    }
}

/// A job that fills a batch: while one lives, the batch is not idle.
pub(crate) struct Filling(pub(crate) Arc<KeptBatch>);

impl Filling {
    /// A job for `batch` begins to wait.
    pub(crate) fn new(batch: Arc<KeptBatch>) -> Self {
        batch.filling.fetch_add(1, Ordering::Relaxed);
        Self(batch)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.filling.fetch_sub(1, Ordering::Relaxed);
    }
}

impl KeptBatches {
    pub(crate) fn new(budget: KeptBudget, metrics: Arc<Metrics>) -> Self {
        let state = Mutex::new(State { live: HashMap::new(), ids: BatchIds::new() });
        Self { worker: rand::random(), budget, metrics, start: Instant::now(), state }
    }

    /// Name of this run of this process.
    pub(crate) fn worker(&self) -> &[u8; 16] {
        &self.worker
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that a frame or job uses `batch`.
    pub(crate) fn touch(&self, batch: &KeptBatch) {
        batch.used_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Opens a batch of `instance` and makes room for it; the same id with the same keys is the same batch. `charge` runs
    /// before anything is kept of a new one, and not under the lock: it writes to disk.
    ///
    /// # Errors
    /// [`Error::BatchDead`], [`Error::BatchConflict`] for other keys, [`Error::Busy`] when nothing idle can make room, and
    /// what `charge` fails with.
    pub(crate) fn open(
        &self,
        key: JobKey,
        model: [u8; 32],
        keys_hash: &[u8; 32],
        instance: &Instance,
        charge: impl FnOnce() -> Result<()>,
    ) -> Result<Arc<KeptBatch>> {
        let bytes = fhe_layers::BatchWords::bytes_of(instance) as u64;
        {
            let mut state = self.lock();
            self.drop_stale(&mut state);
            if state.ids.is_dead(&key) {
                return Err(Error::BatchDead);
            }
            if let Some(batch) = state.live.get(&key).cloned() {
                return match state.ids.open(key, keys_hash) {
                    Ok(_) => Ok(batch),
                    Err(_) => Err(Error::BatchConflict),
                };
            }
            self.make_room(&mut state, key.0, bytes)?;
        }
        charge()?;
        let mut state = self.lock();
        if !matches!(state.ids.open(key, keys_hash), Ok(Opened::New)) {
            // Two calls of one id at once, or a charge of another run.
            return Err(Error::BatchDead);
        }
        if let Err(error) = self.make_room(&mut state, key.0, bytes) {
            state.ids.bury(key);
            return Err(error);
        }
        let batch = Arc::new(KeptBatch {
            key,
            model,
            batch: RwLock::new(Some(LeanBatch::new(instance))),
            bytes: AtomicU64::new(bytes),
            used_ms: AtomicU64::new(self.now_ms()),
            filling: AtomicUsize::new(0),
        });
        state.live.insert(key, Arc::clone(&batch));
        self.count(&state);
        Ok(batch)
    }

    /// The live batch of that name.
    ///
    /// # Errors
    /// [`Error::BatchDead`]: an id that is not live cannot be used, whatever became of it.
    pub(crate) fn find(&self, key: JobKey) -> Result<Arc<KeptBatch>> {
        let found = self.lock().live.get(&key).cloned().ok_or(Error::BatchDead)?;
        self.touch(&found);
        Ok(found)
    }

    /// Frees the words of `slots`, whose answers have all been acknowledged. A batch with none left is dropped.
    pub(crate) fn release(&self, batch: &KeptBatch, slots: impl Iterator<Item = usize>) {
        let left = {
            let mut guard = batch.batch.write().unwrap_or_else(PoisonError::into_inner);
            let Some(lean) = guard.as_mut() else { return };
            for slot in slots {
                lean.words.release(slot);
            }
            lean.words.bytes() as u64
        };
        batch.bytes.store(left, Ordering::Relaxed);
        let mut state = self.lock();
        if left == 0 {
            drop_batch(&mut state, batch);
        }
        self.count(&state);
    }

    /// Drops a batch that its client gave up.
    pub(crate) fn forget(&self, key: JobKey) {
        let mut state = self.lock();
        if let Some(batch) = state.live.get(&key).cloned() {
            drop_batch(&mut state, &batch);
            self.count(&state);
        }
    }

    /// Drops batches whose clients have dropped their slots by now.
    fn drop_stale(&self, state: &mut State) {
        let Some(since) = self.now_ms().checked_sub(limits::KEPT_WORDS_MAX_IDLE.as_millis() as u64) else {
            return;
        };
        let stale = |batch: &&Arc<KeptBatch>| {
            batch.filling.load(Ordering::Relaxed) == 0 && batch.used_ms.load(Ordering::Relaxed) <= since
        };
        let stale: Vec<_> = state.live.values().filter(stale).cloned().collect();
        stale.iter().for_each(|batch| drop_batch(state, batch));
    }

    fn make_room(&self, state: &mut State, credential: CredentialId, bytes: u64) -> Result<()> {
        let own = |key: &JobKey| key.0 == credential;
        self.evict_until(
            state,
            bytes,
            self.budget.per_credential,
            own,
            "this credential's memory for batches",
        )?;
        self.evict_until(state, bytes, self.budget.total, |_| true, "the memory for batches")
    }

    /// Drops idle batches among those that `counts`, oldest first, until `bytes` more are within `limit`.
    fn evict_until(
        &self,
        state: &mut State,
        bytes: u64,
        limit: u64,
        counts: impl Fn(&JobKey) -> bool,
        what: &'static str,
    ) -> Result<()> {
        loop {
            let counted = state.live.values().filter(|batch| counts(&batch.key));
            let used: u64 = counted.clone().map(|batch| batch.bytes.load(Ordering::Relaxed)).sum();
            if used + bytes <= limit {
                return Ok(());
            }
            let idle_since = self.now_ms().saturating_sub(limits::KEPT_WORDS_IDLE.as_millis() as u64);
            let idle = |batch: &&Arc<KeptBatch>| {
                batch.filling.load(Ordering::Relaxed) == 0
                    && batch.used_ms.load(Ordering::Relaxed) <= idle_since
            };
            let oldest =
                counted.filter(idle).min_by_key(|batch| batch.used_ms.load(Ordering::Relaxed)).cloned();
            let Some(oldest) = oldest else {
                return Err(Error::Busy { what, retry_after: Duration::from_secs(1) });
            };
            drop_batch(state, &oldest);
            self.metrics.batches_evicted.inc();
        }
    }

    fn count(&self, state: &State) {
        let bytes: u64 = state.live.values().map(|batch| batch.bytes.load(Ordering::Relaxed)).sum();
        self.metrics.batches_kept.set(state.live.len() as i64);
        self.metrics.batch_bytes_kept.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Drops words and ledger of a batch and declares its id dead.
fn drop_batch(state: &mut State, batch: &KeptBatch) {
    state.ids.bury(batch.key);
    state.live.remove(&batch.key);
    *batch.batch.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The slots that a body frame names, in the order of its tokens.
#[derive(Default)]
pub(crate) struct NamedSlots {
    batches: Vec<Arc<KeptBatch>>,
    /// Index of the batch, slot.
    slots: Vec<(usize, usize)>,
}

impl NamedSlots {
    /// Number of slots.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Appends `count` slots of `batch` from `first` on.
    pub(crate) fn push(&mut self, batch: Arc<KeptBatch>, first: usize, count: usize) {
        let index = match self.batches.iter().position(|other| Arc::ptr_eq(other, &batch)) {
            Some(index) => index,
            None => {
                self.batches.push(batch);
                self.batches.len() - 1
            }
        };
        self.slots.extend((first..first + count).map(|slot| (index, slot)));
    }

    /// The batches.
    pub(crate) fn batches(&self) -> &[Arc<KeptBatch>] {
        &self.batches
    }

    /// Index of the batch and slot of each token.
    pub(crate) fn slots(&self) -> &[(usize, usize)] {
        &self.slots
    }

    /// Frees what `later` does not name again.
    pub(crate) fn acknowledge(&self, kept: &KeptBatches, later: &Self) {
        for (index, batch) in self.batches.iter().enumerate() {
            let again = |slot: usize| {
                later
                    .slots
                    .iter()
                    .any(|&(other, named)| named == slot && Arc::ptr_eq(&later.batches[other], batch))
            };
            let done = self.slots.iter().filter(|&&(of, slot)| of == index && !again(slot));
            kept.release(batch, done.map(|&(_, slot)| slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhe_layers::{MatrixSpec, ModelDigest, RoundSpec, Set};
    use sotto_protocol::BatchId;

    fn instance() -> Instance {
        let spec = RoundSpec { d_in: 8, matrices: vec![MatrixSpec { rows: 3, columns: 0..8 }] };
        Instance::new(Set::Default.params(64).unwrap(), vec![spec], ModelDigest([2; 32]), "plain").unwrap()
    }

    /// Room for `total` batches, `own` of each credential.
    fn kept(total: u64, own: u64) -> KeptBatches {
        let bytes = fhe_layers::BatchWords::bytes_of(&instance()) as u64;
        let budget = KeptBudget { total: total * bytes, per_credential: own * bytes };
        KeptBatches::new(budget, Arc::new(Metrics::new()))
    }

    fn key(credential: u8, batch: u8) -> JobKey {
        (CredentialId([credential; 8]), BatchId([batch; 16]))
    }

    fn open(kept: &KeptBatches, credential: u8, batch: u8) -> Result<Arc<KeptBatch>> {
        kept.open(key(credential, batch), [1; 32], &[batch; 32], &instance(), || Ok(()))
    }

    /// As if nobody had used it since the start.
    fn idle(batch: &KeptBatch, used_ms: u64) {
        batch.used_ms.store(used_ms, Ordering::Relaxed);
    }

    /// As if the process were old.
    fn aged(mut kept: KeptBatches) -> KeptBatches {
        kept.start = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or(kept.start);
        kept
    }

    #[test]
    fn the_batch_that_was_idle_for_longest_goes_first_and_stays_dead() {
        let kept = aged(kept(2, 2));
        let (first, second) = (open(&kept, 1, 1).unwrap(), open(&kept, 1, 2).unwrap());
        assert!(matches!(open(&kept, 1, 3), Err(Error::Busy { .. })), "none is idle");
        idle(&first, 9);
        idle(&second, 5);
        open(&kept, 2, 3).unwrap();
        assert!(second.read().is_err() && kept.find(key(1, 2)).is_err());
        assert!(first.read().is_ok());
        for _ in 0..2 {
            assert!(matches!(open(&kept, 1, 2), Err(Error::BatchDead)));
        }
        let never = || panic!("a dead batch is not charged");
        assert!(matches!(kept.open(key(1, 2), [1; 32], &[7; 32], &instance(), never), Err(Error::BatchDead)));
    }

    #[test]
    fn a_credential_over_its_share_loses_its_own_batches_only() {
        let kept = aged(kept(9, 1));
        let (other, own) = (open(&kept, 2, 1).unwrap(), open(&kept, 1, 1).unwrap());
        idle(&other, 0);
        idle(&own, 1);
        open(&kept, 1, 2).unwrap();
        assert!(own.read().is_err() && other.read().is_ok());
    }

    #[test]
    fn a_batch_that_its_client_has_forgotten_goes_though_there_is_room() {
        let mut kept = kept(9, 9);
        let age = limits::KEPT_WORDS_MAX_IDLE + Duration::from_secs(1);
        let Some(start) = Instant::now().checked_sub(age) else { return };
        kept.start = start;
        let (old, new) = (open(&kept, 1, 1).unwrap(), open(&kept, 2, 1).unwrap());
        idle(&old, 0);
        open(&kept, 2, 2).unwrap();
        assert!(old.read().is_err() && new.read().is_ok());
        assert!(matches!(open(&kept, 1, 1), Err(Error::BatchDead)));
    }

    #[test]
    fn a_batch_that_is_being_filled_is_not_idle() {
        let kept = aged(kept(1, 1));
        let batch = open(&kept, 1, 1).unwrap();
        idle(&batch, 0);
        let (old, resumed) = (Filling::new(Arc::clone(&batch)), Filling::new(batch));
        drop(old);
        assert!(matches!(open(&kept, 1, 2), Err(Error::Busy { .. })));
        drop(resumed);
        open(&kept, 1, 2).unwrap();
    }

    #[test]
    fn a_live_batch_is_found_again_by_its_keys_and_by_no_others() {
        let kept = kept(2, 2);
        let batch = open(&kept, 1, 1).unwrap();
        let never = || panic!("charged twice");
        let again = kept.open(key(1, 1), [1; 32], &[1; 32], &instance(), never).unwrap();
        assert!(Arc::ptr_eq(&batch, &again));
        let other = kept.open(key(1, 1), [1; 32], &[2; 32], &instance(), never);
        assert!(matches!(other, Err(Error::BatchConflict)));
        let refused = kept.open(key(1, 2), [1; 32], &[2; 32], &instance(), || Err(Error::Lease("used up")));
        assert!(matches!(refused, Err(Error::Lease(_))));
        open(&kept, 1, 2).unwrap();
    }

    #[test]
    fn acknowledged_slots_are_freed_unless_they_are_named_again() {
        let kept = kept(2, 2);
        let batch = open(&kept, 1, 1).unwrap();
        let whole = batch.bytes.load(Ordering::Relaxed);
        let (mut before, mut after) = (NamedSlots::default(), NamedSlots::default());
        before.push(Arc::clone(&batch), 0, 4);
        after.push(Arc::clone(&batch), 3, 2);
        before.acknowledge(&kept, &after);
        assert_eq!(batch.bytes.load(Ordering::Relaxed), whole - 3 * whole / 64);
        let mut all = NamedSlots::default();
        all.push(Arc::clone(&batch), 0, 64);
        all.acknowledge(&kept, &NamedSlots::default());
        assert!(batch.read().is_err() && matches!(open(&kept, 1, 1), Err(Error::BatchDead)));
    }
}
