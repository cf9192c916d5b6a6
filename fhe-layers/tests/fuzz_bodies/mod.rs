//! Bodies of the fuzz targets in `fuzz/`: what a decoder accepts must encode to the bytes it came from.
//!
//! The targets include this file; on the stable toolchain the property tests drive the same functions.
#![allow(dead_code, reason = "each target uses its part")]

use fhe_layers::params::sets::n2048_q50_tau;
use fhe_layers::{
    Body, EvaluationKeys, ExpandedKeys, Instance, MaskBlock, MatrixSpec, ModelDigest, Params, PreparedModel,
    Reply, RoundSpec, TableForm,
};
use std::sync::{Arc, OnceLock};

/// A layer of one block and one row.
fn instance() -> &'static Arc<Instance> {
    static INSTANCE: OnceLock<Arc<Instance>> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let rounds = vec![RoundSpec { d_in: 3, matrices: vec![MatrixSpec { rows: 1, columns: 0..3 }] }];
        let params = n2048_q50_tau(256).expect("a named set");
        Arc::new(Instance::new(params, rounds, ModelDigest([0; 32]), "fuzz").expect("a small layer"))
    })
}

fn params() -> &'static Params {
    instance().params()
}

/// A batch's keys, from a client.
pub(crate) fn keys(bytes: &[u8]) {
    if let Ok(keys) = EvaluationKeys::from_bytes(params(), bytes) {
        assert_eq!(keys.to_bytes(params()), bytes);
        drop(ExpandedKeys::new(instance(), &keys));
    }
}

/// Mask blocks, from a server.
pub(crate) fn masks(bytes: &[u8]) {
    if let Ok(blocks) = MaskBlock::read_all(params(), bytes) {
        let mut again = Vec::new();
        blocks.iter().for_each(|block| again.extend_from_slice(&block.bytes()));
        assert_eq!(again, bytes);
    }
}

/// A body, from a client; its first byte says how many features are expected.
pub(crate) fn body(bytes: &[u8]) {
    let Some((&d_in, bytes)) = bytes.split_first() else { return };
    if let Ok(body) = Body::from_bytes(d_in.into(), bytes) {
        assert_eq!(body.to_bytes(), bytes);
        assert!(body.words().iter().all(|word| word >> 40 == 0));
    }
}

/// A reply, from a server; its first byte says how many rows are expected.
pub(crate) fn reply(bytes: &[u8]) {
    let Some((&rows, bytes)) = bytes.split_first() else { return };
    if let Ok(reply) = Reply::from_bytes(rows.into(), bytes) {
        assert_eq!(reply.to_bytes(), bytes);
    }
}

/// Tables, from a disk.
pub(crate) fn saved_tables(bytes: &[u8]) {
    let shared = Arc::new(bytes.to_vec());
    if let Ok(tables) = PreparedModel::load(Arc::clone(instance()), shared, TableForm::Compact) {
        let mut again = Vec::new();
        tables.save_compact(&mut again).expect("a vector takes bytes");
        assert_eq!(again, bytes);
    }
}
