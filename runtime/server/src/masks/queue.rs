//! Which mask jobs run next, and on which blocks: the scheduling rule without threads or cryptography.
//!
//! A *step* takes a few consecutive blocks of one model and computes them for up to
//! [`limits::MAX_BATCHES_PER_PASS`] jobs at once, since reading the tables is what costs. Blocks may be computed in
//! any order, so a job joins wherever the pass over the tables is and wraps around.
//!
//! Jobs lead by: needed before background; then by their rank within their credential, so that every client's first
//! batch precedes anybody's second; then those already begun; then by arrival. A job whose reader is slow is passed
//! over until there is room.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::auth::credentials::CredentialId;
use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;

/// Sorted, disjoint, non-empty block ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockSet(Vec<Range<usize>>);

impl BlockSet {
    /// All blocks of `0..blocks`.
    pub(crate) fn all(blocks: usize) -> Self {
        Self(std::iter::once(0..blocks).filter(|range| !range.is_empty()).collect())
    }

    /// The union of `ranges`, given as (first, count); `None` if one is empty or leaves `0..blocks`.
    pub(crate) fn from_ranges(ranges: &[(u32, u32)], blocks: usize) -> Option<Self> {
        let mut sorted = Vec::with_capacity(ranges.len());
        for &(first, count) in ranges {
            let end = u64::from(first) + u64::from(count);
            if count == 0 || end > blocks as u64 {
                return None;
            }
            sorted.push(first as usize..end as usize);
        }
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Some(Self(merged))
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// At most `most` consecutive blocks, the first at or after `cursor`, wrapping around.
    fn next_after(&self, cursor: usize, most: usize) -> Option<Range<usize>> {
        let found = self.0.iter().find(|range| range.end > cursor).or(self.0.first())?;
        let start = if found.contains(&cursor) { cursor } else { found.start };
        Some(start..found.end.min(start + most))
    }

    fn contains(&self, wanted: &Range<usize>) -> bool {
        self.0.iter().any(|range| range.start <= wanted.start && wanted.end <= range.end)
    }

    fn remove(&mut self, gone: &Range<usize>) {
        self.0 = std::mem::take(&mut self.0)
            .into_iter()
            .flat_map(|range| [range.start..range.end.min(gone.start), range.start.max(gone.end)..range.end])
            .filter(|range| !range.is_empty())
            .collect();
    }
}

/// Name of a job: a batch id means nothing without its credential.
pub(crate) type JobKey = (CredentialId, BatchId);

struct Job<P> {
    serial: u64,
    key: JobKey,
    model: [u8; 32],
    needed: bool,
    begun: bool,
    pending: BlockSet,
    payload: P,
}

/// What to compute next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) model: [u8; 32],
    pub(crate) blocks: Range<usize>,
    /// Serial numbers of the jobs, at most [`limits::MAX_BATCHES_PER_PASS`].
    pub(crate) jobs: Vec<u64>,
    /// Whether somebody waits for the first of them.
    pub(crate) needed: bool,
}

/// Waiting and running jobs; `P` is what computing one needs.
pub(crate) struct Queue<P> {
    jobs: Vec<Job<P>>,
    cursors: HashMap<[u8; 32], usize>,
    next_serial: u64,
}

impl<P> Queue<P> {
    pub(crate) fn new() -> Self {
        Self { jobs: Vec::new(), cursors: HashMap::new(), next_serial: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// # Errors
    /// [`Error::Busy`] if a queue limit would be passed by one more job of `credential`.
    pub(crate) fn check_room(&self, credential: CredentialId) -> Result<()> {
        let own = self.jobs.iter().filter(|job| job.key.0 == credential).count();
        if own >= limits::MAX_MASK_JOBS_PER_CREDENTIAL {
            return Err(busy("this credential's queue of mask jobs", own));
        }
        if self.jobs.len() >= limits::MAX_MASK_JOBS {
            return Err(busy("the queue of mask jobs", self.jobs.len()));
        }
        Ok(())
    }

    /// Adds a job. The caller has removed one of the same key, if there was any.
    ///
    /// # Errors
    /// As [`Queue::check_room`].
    pub(crate) fn push(
        &mut self,
        key: JobKey,
        model: [u8; 32],
        needed: bool,
        pending: BlockSet,
        payload: P,
    ) -> Result<u64> {
        self.check_room(key.0)?;
        let serial = self.next_serial;
        self.next_serial += 1;
        self.jobs.push(Job { serial, key, model, needed, begun: false, pending, payload });
        Ok(serial)
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, key: JobKey) -> Option<P> {
        let at = self.jobs.iter().position(|job| job.key == key)?;
        Some(self.jobs.remove(at).payload)
    }

    /// Drops the jobs for which `gone` holds.
    pub(crate) fn remove_where(&mut self, mut gone: impl FnMut(&P) -> bool) {
        self.jobs.retain(|job| !gone(&job.payload));
    }

    /// Drops the job with this serial number.
    pub(crate) fn remove_serial(&mut self, serial: u64) {
        self.jobs.retain(|job| job.serial != serial);
    }

    /// Sets a job's priority; false if there is none.
    pub(crate) fn set_needed(&mut self, key: JobKey, needed: bool) -> bool {
        let job = self.jobs.iter_mut().find(|job| job.key == key);
        job.map(|job| job.needed = needed).is_some()
    }

    pub(crate) fn payload(&self, serial: u64) -> Option<&P> {
        self.jobs.iter().find(|job| job.serial == serial).map(|job| &job.payload)
    }

    /// The next step of at most `most_blocks(model)` blocks, among jobs with room for a piece.
    pub(crate) fn pick(
        &mut self,
        has_room: impl Fn(&P) -> bool,
        most_blocks: impl Fn(&[u8; 32]) -> usize,
    ) -> Option<Step> {
        let mut ranks: HashMap<CredentialId, usize> = HashMap::new();
        let mut order: Vec<_> = (0..self.jobs.len())
            .map(|index| {
                let job = &self.jobs[index];
                let rank = ranks.entry(job.key.0).or_default();
                *rank += 1;
                (!job.needed, *rank, !job.begun, index)
            })
            .filter(|&(.., index)| has_room(&self.jobs[index].payload))
            .collect();
        order.sort_unstable();
        let leader = &self.jobs[order.first()?.3];
        let (model, needed) = (leader.model, leader.needed);
        let cursor = self.cursors.get(&model).copied().unwrap_or(0);
        let blocks = leader.pending.next_after(cursor, most_blocks(&model).max(1))?;
        let chosen: Vec<usize> = order
            .into_iter()
            .map(|(.., index)| index)
            .filter(|&index| self.jobs[index].model == model && self.jobs[index].pending.contains(&blocks))
            .take(limits::MAX_BATCHES_PER_PASS)
            .collect();
        self.cursors.insert(model, blocks.end);
        let jobs = chosen
            .into_iter()
            .map(|index| {
                self.jobs[index].begun = true;
                self.jobs[index].serial
            })
            .collect();
        Some(Step { model, blocks, jobs, needed })
    }

    /// Marks `blocks` of a job as done; returns how many are left, `None` if the job is gone. A job with none left
    /// leaves the queue.
    pub(crate) fn complete(&mut self, serial: u64, blocks: &Range<usize>) -> Option<usize> {
        let at = self.jobs.iter().position(|job| job.serial == serial)?;
        self.jobs[at].pending.remove(blocks);
        let left = self.jobs[at].pending.len();
        if left == 0 {
            self.jobs.remove(at);
        }
        Some(left)
    }
}

/// Refusal with a waiting time of about one batch per four waiting.
fn busy(what: &'static str, waiting: usize) -> Error {
    Error::Busy { what, retry_after: Duration::from_millis(100 + 50 * waiting as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODEL: [u8; 32] = [1; 32];

    fn key(credential: u8, batch: u8) -> JobKey {
        (CredentialId([credential; 8]), BatchId([batch; 16]))
    }

    fn run_step(queue: &mut Queue<()>) -> Option<Step> {
        let step = queue.pick(|()| true, |_| 4)?;
        for &serial in &step.jobs {
            queue.complete(serial, &step.blocks);
        }
        Some(step)
    }

    #[test]
    fn waiting_jobs_share_a_pass_and_late_ones_wrap_around() {
        let mut queue = Queue::new();
        let first = queue.push(key(1, 1), MODEL, false, BlockSet::all(10), ()).unwrap();
        assert_eq!(
            run_step(&mut queue).unwrap(),
            Step { model: MODEL, blocks: 0..4, jobs: vec![first], needed: false }
        );
        let second = queue.push(key(2, 1), MODEL, false, BlockSet::all(10), ()).unwrap();
        assert_eq!(
            run_step(&mut queue).unwrap(),
            Step { model: MODEL, blocks: 4..8, jobs: vec![first, second], needed: false }
        );
        assert_eq!(run_step(&mut queue).unwrap().jobs, vec![first, second]);
        assert_eq!(
            run_step(&mut queue).unwrap(),
            Step { model: MODEL, blocks: 0..4, jobs: vec![second], needed: false }
        );
        assert_eq!(run_step(&mut queue), None);
    }

    #[test]
    fn needed_jobs_lead_then_every_credentials_first() {
        let mut queue = Queue::new();
        let greedy: Vec<_> = (0..5)
            .map(|batch| queue.push(key(1, batch), MODEL, false, BlockSet::all(4), ()).unwrap())
            .collect();
        let modest = queue.push(key(2, 0), MODEL, false, BlockSet::all(4), ()).unwrap();
        assert!(!queue.pick(|()| true, |_| 1).unwrap().needed);
        assert!(queue.set_needed(key(1, 4), true));
        let step = queue.pick(|()| true, |_| 4).unwrap();
        assert_eq!(step.jobs, vec![greedy[4], greedy[0], modest, greedy[1]]);
        assert!(step.needed);
    }

    #[test]
    fn slow_readers_are_passed_over_and_gone_ones_dropped() {
        let mut queue = Queue::new();
        queue.push(key(1, 1), MODEL, true, BlockSet::all(4), "slow").unwrap();
        let quick = queue.push(key(2, 1), MODEL, false, BlockSet::all(4), "quick").unwrap();
        assert_eq!(queue.pick(|name| *name != "slow", |_| 4).unwrap().jobs, vec![quick]);
        queue.remove_where(|name| *name == "slow");
        assert_eq!(queue.len(), 1);
        assert!(queue.remove(key(3, 1)).is_none(), "another credential's job is not found");
    }

    #[test]
    fn queues_are_bounded_per_credential_and_in_all() {
        let mut queue = Queue::new();
        let per = limits::MAX_MASK_JOBS_PER_CREDENTIAL as u8;
        for batch in 0..per {
            queue.push(key(1, batch), MODEL, false, BlockSet::all(1), ()).unwrap();
        }
        let refused = queue.push(key(1, per), MODEL, false, BlockSet::all(1), ());
        assert!(matches!(refused, Err(Error::Busy { .. })));
        assert!(queue.remove(key(1, 0)).is_some());
        queue.push(key(1, 0), MODEL, false, BlockSet::all(1), ()).unwrap();
        queue.push(key(2, 0), MODEL, false, BlockSet::all(1), ()).unwrap();
    }

    #[test]
    fn wanted_ranges_are_checked_and_merged() {
        let set = BlockSet::from_ranges(&[(5, 2), (0, 2), (1, 3)], 10).unwrap();
        assert_eq!(set, BlockSet(vec![0..4, 5..7]));
        assert_eq!(BlockSet::from_ranges(&[(5, 0)], 10), None);
        assert_eq!(BlockSet::from_ranges(&[(5, 6)], 10), None);
        assert_eq!(BlockSet::from_ranges(&[(u32::MAX, u32::MAX)], 10), None);
    }

    proptest! {
        #[test]
        fn every_wanted_block_is_computed_exactly_once(
            wanted in prop::collection::vec(prop::collection::vec((0u32..30, 1u32..9), 1..5), 1..7),
        ) {
            let mut queue = Queue::new();
            let mut owed: HashMap<u64, Vec<bool>> = HashMap::new();
            for (index, ranges) in wanted.iter().enumerate() {
                let set = BlockSet::from_ranges(ranges, 40).unwrap();
                let mut flags = vec![false; 40];
                for &(first, count) in ranges {
                    flags[first as usize..(first + count) as usize].fill(true);
                }
                let who = key(index as u8 % 3, index as u8);
                owed.insert(queue.push(who, MODEL, false, set, ()).unwrap(), flags);
            }
            while let Some(step) = run_step(&mut queue) {
                prop_assert!(step.jobs.len() <= limits::MAX_BATCHES_PER_PASS);
                for serial in step.jobs {
                    for flag in &mut owed.get_mut(&serial).unwrap()[step.blocks.clone()] {
                        prop_assert!(std::mem::replace(flag, false));
                    }
                }
            }
            prop_assert!(owed.values().flatten().all(|flag| !flag));
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
