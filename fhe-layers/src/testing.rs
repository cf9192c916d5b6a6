//! Instances and slots for the unit tests.

use crate::client::{Client, ClientOptions, ClientSession, Slot};
use crate::server::{ExpandedKeys, LeanBatch, MaskJob, PreparedModel, ServerSession, WordsJob};
use crate::words::{MaskWords, SessionSeed, SharedMaskHasher};
use crate::{Instance, MaskBlock, MatrixSpec, ModelDigest, Params, RoundSpec, WireForm};
use std::sync::{Arc, Mutex};

/// One round of one matrix on the toy ring, 16 tokens per batch.
pub(crate) fn toy_instance(d_in: usize, d_out: usize) -> Instance {
    let rounds = vec![RoundSpec { d_in, matrices: vec![MatrixSpec { rows: d_out, columns: 0..d_in }] }];
    Instance::new(Params::insecure_toy_n64(16).unwrap(), rounds, ModelDigest([1; 32]), "toy").unwrap()
}

/// Slots whose masks are all zero: they encrypt, what they decode is noise.
pub(crate) fn slots_without_masks(instance: &Arc<Instance>, seed: u128) -> Vec<Slot> {
    let mut batch = Client::new(Arc::clone(instance), ClientOptions::default()).new_batch_seeded(seed);
    let zero = MaskBlock::new(vec![0; 2 * instance.params().n()]);
    let blocks = instance.layout().blocks();
    batch.accept_masks(0, &vec![zero; blocks]).unwrap();
    batch.into_slots().unwrap()
}

/// Slots of the full form, with their masks.
pub(crate) fn full_slots(client: &Client, tables: &PreparedModel, seed: u128) -> Vec<Slot> {
    let instance = client.instance();
    let mut batch = client.new_batch_seeded(seed);
    let keys = ExpandedKeys::new(instance, batch.keys());
    let masks = Mutex::new(Vec::new());
    let job = MaskJob { keys: &keys, seed: [2; 32] };
    let sink = |_: usize, block: usize, mask: MaskBlock| masks.lock().unwrap().push((block, mask));
    tables.mask_half(&[job], 0..instance.layout().blocks(), &|| true, &sink).unwrap();
    for (block, mask) in masks.into_inner().unwrap() {
        batch.accept_masks(block, &[mask]).unwrap();
    }
    batch.into_slots().unwrap()
}

/// A session's two sides.
pub(crate) fn session(tables: &PreparedModel, form: WireForm) -> (ClientSession, ServerSession) {
    let instance = tables.instance();
    let seed = SessionSeed::from_bytes([4; 32]);
    let server = ServerSession::new(instance, form, &[5; 32], b"credential", seed).unwrap();
    let masks = tables.shared_masks(&server, 0..instance.layout().blocks()).unwrap().concat();
    let mut hasher = SharedMaskHasher::new();
    hasher.update(&masks);
    assert_eq!(tables.shared_masks_hash(&server).unwrap(), hasher.finish());
    let client =
        ClientSession::from_masks(Arc::clone(instance), form, seed, masks, Some(&hasher.finish())).unwrap();
    (client, server)
}

/// Slots of a session form, with what the server keeps in the lean form.
pub(crate) fn session_slots(
    client: &Client,
    tables: &PreparedModel,
    form: WireForm,
    seed: u128,
) -> (Vec<Slot>, LeanBatch) {
    let instance = client.instance();
    let (ours, theirs) = session(tables, form);
    let mut batch = client.new_session_batch_seeded(&ours, seed).unwrap();
    let keys = ExpandedKeys::for_session(instance, batch.keys());
    let found = Mutex::new(Vec::new());
    let sink = |_: usize, block: usize, words: MaskWords| found.lock().unwrap().push((block, words));
    let job = WordsJob::new(&keys, &theirs).unwrap();
    tables.mask_words(&[job], 0..instance.layout().blocks(), &|| true, &sink).unwrap();
    let mut kept = LeanBatch::new(instance);
    for (block, words) in found.into_inner().unwrap() {
        if form.keeps_words() {
            kept.words.store(block, &words).unwrap();
        } else {
            batch.accept_mask_words(block, &[words]).unwrap();
        }
    }
    (batch.into_slots().unwrap(), kept)
}
