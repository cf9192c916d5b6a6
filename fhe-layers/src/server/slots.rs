//! A lean batch on the server: the words `b'` that it keeps per slot, and which slots have answered what.
//!
//! Both live and die together, in memory only. A slot answers once per round: [`LeanBatch::claim`] marks it as used, with a
//! hash of the body, **before** anything is computed. The same bytes again get the same answer: a retry. Other bytes are
//! refused; that protects nothing (the server has both bodies), it is an alarm that a copy of the client is alive.

use crate::error::{Error, Result};
use crate::form::KEPT_BITS;
use crate::instance::Instance;
use crate::layout::Layout;
use crate::words::MaskWords;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of `b'` per row and slot.
const KEPT_BYTES: usize = KEPT_BITS as usize / 8;

/// `b'` of one batch, slot by slot: what the mask half fills and the body half reads.
pub struct BatchWords {
    /// `[tau]`; `None` once released.
    slots: Vec<Option<Arc<KeptWords>>>,
    phi: usize,
    rows: usize,
    /// Blocks that are still missing.
    missing: usize,
    stored: Vec<bool>,
}

/// The top 24 bits of one slot's words, apart, so that vectors read them without shuffling.
struct KeptWords {
    /// The top 16 bits, `[total rows]`.
    high: Box<[u16]>,
    /// The 8 bits below, `[total rows]`.
    low: Box<[u8]>,
}

impl KeptWords {
    fn zeroed(rows: usize) -> Self {
        Self { high: vec![0; rows].into_boxed_slice(), low: vec![0; rows].into_boxed_slice() }
    }

    fn bytes(&self) -> usize {
        self.low.len() * KEPT_BYTES
    }
}

impl BatchWords {
    /// Room for a batch of `instance`; no block stored yet.
    pub fn new(instance: &Instance) -> Self {
        let (params, rows, blocks) =
            (instance.params(), instance.layout().total_rows(), instance.layout().blocks());
        let slots = (0..params.tau()).map(|_| Some(Arc::new(KeptWords::zeroed(rows)))).collect();
        Self { slots, phi: params.phi(), rows, missing: blocks, stored: vec![false; blocks] }
    }

    /// Bytes that a batch of `instance` takes: 3 per row and slot.
    pub fn bytes_of(instance: &Instance) -> usize {
        instance.params().tau() * instance.layout().total_rows() * KEPT_BYTES
    }

    /// Stores the words of one block, each block once, in any order.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a block outside the layout, [`Error::Mismatch`] for another number of words,
    /// [`Error::DuplicateMask`].
    pub fn store(&mut self, block: usize, words: &MaskWords) -> Result<()> {
        Error::check_range("mask blocks", "within the layout", block < self.stored.len(), block)?;
        Error::check("words of a mask block", self.phi * self.slots.len(), words.words().len())?;
        if std::mem::replace(&mut self.stored[block], true) {
            return Err(Error::DuplicateMask { block });
        }
        let first = block * self.phi;
        for (slot, words) in self.slots.iter_mut().zip(words.words().chunks_exact(self.phi)) {
            // Words are handed out only when all blocks are stored: until then this is the one reference.
            let Some(slot) = slot.as_mut().and_then(Arc::get_mut) else { continue };
            let kept = first..self.rows.min(first + self.phi);
            let kept = slot.high[kept.clone()].iter_mut().zip(&mut slot.low[kept]);
            for ((high, low), word) in kept.zip(words) {
                (*high, *low) = ((word >> 16) as u16, (word >> 8) as u8);
            }
        }
        self.missing -= 1;
        Ok(())
    }

    /// Whether every block is stored: the batch is ready.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The words of one slot for all rows of `round`. They stay valid when the slot is released meanwhile, so that no lock
    /// needs to be held while they are used.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an unknown slot or round, [`Error::MasksMissing`] before the batch is complete,
    /// [`Error::SlotReleased`].
    pub fn slot(&self, layout: &Layout, slot: usize, round: usize) -> Result<SlotWords> {
        layout.round(round)?;
        if self.missing > 0 {
            return Err(Error::MasksMissing { missing: self.missing });
        }
        Error::check_range("slot", "below tau", slot < self.slots.len(), slot)?;
        let words = self.slots[slot].as_ref().ok_or(Error::SlotReleased { slot })?;
        Ok(SlotWords { words: Arc::clone(words), rows: layout.round_rows(round) })
    }

    /// Gives up the words of a slot whose last answer the client has acknowledged. Returns the bytes that became free.
    pub fn release(&mut self, slot: usize) -> usize {
        self.slots.get_mut(slot).and_then(Option::take).map_or(0, |words| words.bytes())
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.slots.iter().flatten().map(|words| words.bytes()).sum()
    }
}

/// `b'` of one slot for the rows of one round, three bytes each. A reference: cheap to clone.
#[derive(Clone)]
pub struct SlotWords {
    words: Arc<KeptWords>,
    rows: Range<usize>,
}

impl SlotWords {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The words of the round's rows `first..`, left-aligned.
    pub(crate) fn words(&self, first: usize) -> impl Iterator<Item = u32> + '_ {
        let rows = self.rows.start + first..self.rows.end;
        let pairs = self.words.high[rows.clone()].iter().zip(&self.words.low[rows]);
        pairs.map(|(&high, &low)| u32::from(high) << 16 | u32::from(low) << 8)
    }
}

/// What a claim of a slot found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The slot was free for this round and is now used.
    First,
    /// These bytes were claimed before: a retry, to be answered with the same words.
    Repeat,
}

/// Which slots of one batch have been used, for which body.
pub struct SlotLedger {
    tau: usize,
    rounds: usize,
    /// `[tau][rounds]`: the first 16 bytes of the body's BLAKE3.
    used: Mutex<Vec<Option<[u8; 16]>>>,
}

impl SlotLedger {
    /// Nothing used.
    pub fn new(instance: &Instance) -> Self {
        let (tau, rounds) = (instance.params().tau(), instance.layout().rounds().len());
        Self { tau, rounds, used: Mutex::new(vec![None; tau * rounds]) }
    }

    /// Marks slot `slot` as used for `round` by the body with the packed bytes `body`, unless it is: one compare-and-set. Call
    /// it before computing.
    ///
    /// # Errors
    /// [`Error::SlotReused`] when other bytes were claimed before: a copy of the client is alive; [`Error::OutOfRange`] for an
    /// unknown slot or round.
    pub fn claim(&self, slot: usize, round: usize, body: &[u8]) -> Result<Claim> {
        Error::check_range("slot", "below tau", slot < self.tau, slot)?;
        Error::check_range("round", "below the number of rounds", round < self.rounds, round)?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(body).as_bytes()[..16]);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut used[slot * self.rounds + round] {
            state @ None => {
                *state = Some(hash);
                Ok(Claim::First)
            }
            Some(before) if *before == hash => Ok(Claim::Repeat),
            Some(_) => Err(Error::SlotReused { slot, round }),
        }
    }

    /// Slots that have been used for any round: they are charged and never refunded.
    pub fn touched(&self) -> usize {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.chunks(self.rounds.max(1)).filter(|rounds| rounds.iter().any(Option::is_some)).count()
    }
}

/// Words and ledger of one lean batch: they live and die together.
pub struct LeanBatch {
    /// `b'`.
    pub words: BatchWords,
    /// Which slots have answered.
    pub ledger: SlotLedger,
}

impl LeanBatch {
    /// An empty batch.
    pub fn new(instance: &Instance) -> Self {
        Self { words: BatchWords::new(instance), ledger: SlotLedger::new(instance) }
    }

    /// Claims a slot of a complete batch and returns its words.
    ///
    /// # Errors
    /// As [`BatchWords::slot`] (nothing is claimed then) and [`SlotLedger::claim`].
    pub fn claim(
        &self,
        layout: &Layout,
        slot: usize,
        round: usize,
        body: &[u8],
    ) -> Result<(Claim, SlotWords)> {
        let words = self.words.slot(layout, slot, round)?;
        Ok((self.ledger.claim(slot, round, body)?, words))
    }
}

/// Which batch ids live and which are dead, for one worker.
///
/// A batch id whose words were dropped is dead for ever: it is never computed again, since its used slots are no longer known.
/// The caller keeps ids for as long as a client could come back with them, such as the life of the credential, and feeds
/// those that are already charged to other workers or earlier runs to [`BatchIds::bury`].
pub struct BatchIds<Id> {
    states: HashMap<Id, IdState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IdState {
    /// With the hash of its keys.
    Live([u8; 32]),
    Dead,
}

/// What [`BatchIds::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A new batch: compute it, and charge for it.
    New,
    /// The same batch again: a retry, charged before.
    Again,
}

impl<Id: Eq + Hash> BatchIds<Id> {
    /// None.
    pub fn new() -> Self {
        Self { states: HashMap::new() }
    }

    /// Opens batch `id` with keys of `keys_hash` ([`crate::ExpandedKeys::hash`]).
    ///
    /// # Errors
    /// [`Error::BatchDead`], or [`Error::Foreign`] when the id is in use with other keys.
    pub fn open(&mut self, id: Id, keys_hash: &[u8; 32]) -> Result<Opened> {
        match self.states.get(&id) {
            None => {
                self.states.insert(id, IdState::Live(*keys_hash));
                Ok(Opened::New)
            }
            Some(IdState::Live(hash)) if hash == keys_hash => Ok(Opened::Again),
            Some(IdState::Live(_)) => Err(Error::Foreign { what: "batch id", of: "keys" }),
            Some(IdState::Dead) => Err(Error::BatchDead),
        }
    }

    /// Declares a batch dead: its words were dropped, or belong to another worker.
    pub fn bury(&mut self, id: Id) {
        self.states.insert(id, IdState::Dead);
    }

    /// Whether a batch is dead.
    pub fn is_dead(&self, id: &Id) -> bool {
        self.states.get(id) == Some(&IdState::Dead)
    }

    /// Forgets an id that no client can name any more, such as one of a deleted credential.
    pub fn forget(&mut self, id: &Id) {
        self.states.remove(id);
    }
}

impl<Id: Eq + Hash> Default for BatchIds<Id> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WireForm;
    use crate::form::Widths;
    use crate::testing::toy_instance;

    fn block(instance: &Instance, block: usize) -> MaskWords {
        let n = instance.params().n() as u32;
        let word = |i: u32| (block as u32 * n + i).wrapping_mul(0x9e37_79b9) & 0xffff_ff00;
        MaskWords::new((0..n).map(word).collect(), WireForm::Lean(Widths::DEFAULT))
    }

    #[test]
    fn every_slot_keeps_the_words_of_its_rows() {
        // Ten rows of four per block: the last block is half empty.
        let instance = toy_instance(5, 10);
        let (phi, layout) = (instance.params().phi(), instance.layout());
        let mut words = BatchWords::new(&instance);
        assert_eq!(words.bytes(), BatchWords::bytes_of(&instance));
        for index in [2, 0, 1] {
            assert!(matches!(words.slot(layout, 0, 0), Err(Error::MasksMissing { .. })));
            words.store(index, &block(&instance, index)).unwrap();
        }
        assert!(words.is_complete());
        assert!(matches!(words.store(1, &block(&instance, 1)), Err(Error::DuplicateMask { block: 1 })));
        assert!(matches!(words.store(3, &block(&instance, 3)), Err(Error::OutOfRange { .. })));
        for slot in 0..instance.params().tau() {
            let kept = words.slot(layout, slot, 0).unwrap();
            let expected = (0..10).map(|row| block(&instance, row / phi).words()[row % phi + phi * slot]);
            assert!(kept.words(0).eq(expected), "slot {slot}");
            assert_eq!(kept.words(7).count(), 3);
        }
        assert!(matches!(words.slot(layout, 16, 0), Err(Error::OutOfRange { .. })));
        assert!(matches!(words.slot(layout, 0, 1), Err(Error::OutOfRange { .. })));
        let freed = words.release(3);
        assert_eq!((freed, words.release(3), words.bytes()), (30, 0, BatchWords::bytes_of(&instance) - 30));
        assert_eq!(words.slot(layout, 3, 0).err(), Some(Error::SlotReleased { slot: 3 }));
    }

    #[test]
    fn a_used_slot_repeats_its_answer_and_refuses_other_bytes() {
        let ledger = SlotLedger::new(&toy_instance(5, 6));
        assert_eq!(ledger.claim(3, 0, b"body"), Ok(Claim::First));
        assert_eq!(ledger.claim(3, 0, b"body"), Ok(Claim::Repeat));
        assert_eq!(ledger.claim(3, 0, b"other"), Err(Error::SlotReused { slot: 3, round: 0 }));
        assert_eq!(ledger.claim(3, 0, b"body"), Ok(Claim::Repeat), "a refusal changes nothing");
        assert_eq!(ledger.claim(4, 0, b"body"), Ok(Claim::First));
        assert_eq!(ledger.touched(), 2);
        assert!(matches!(ledger.claim(16, 0, b"body"), Err(Error::OutOfRange { .. })));
        assert!(matches!(ledger.claim(0, 1, b"body"), Err(Error::OutOfRange { .. })));
    }

    #[test]
    fn of_many_claims_at_once_one_is_the_first() {
        let ledger = SlotLedger::new(&toy_instance(5, 6));
        let claims: Vec<_> = std::thread::scope(|scope| {
            let ledger = &ledger;
            let started: Vec<_> = (0..8u8).map(|id| scope.spawn(move || ledger.claim(0, 0, &[id]))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
    }

    #[test]
    fn a_dead_batch_stays_dead() {
        let mut ids = BatchIds::new();
        assert_eq!(ids.open(7u128, &[1; 32]), Ok(Opened::New));
        assert_eq!(ids.open(7, &[1; 32]), Ok(Opened::Again));
        assert!(matches!(ids.open(7, &[2; 32]), Err(Error::Foreign { .. })));
        ids.bury(7);
        for hash in [[1; 32], [2; 32]] {
            assert_eq!(ids.open(7, &hash), Err(Error::BatchDead));
        }
        ids.bury(8);
        assert!(ids.is_dead(&8) && ids.open(8, &[1; 32]) == Err(Error::BatchDead), "an id of another worker");
    }
}
