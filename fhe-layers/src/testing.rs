//! Toy instances for the unit tests.

use crate::client::{Client, ClientOptions, Slot};
use crate::{Instance, MaskBlock, MatrixSpec, ModelDigest, Params, RoundSpec};
use std::sync::Arc;

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
