//! The border to `fhe_layers`: bytes in, bytes out.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::config::{Form, ServerConfig};
use crate::error::{Error, Result};
use crate::split_store::SplitEntry;

/// The int8 weights of a model: all that a body replica needs.
pub(crate) struct Weights {}

impl Weights {
    pub(crate) fn load(_entry: &SplitEntry) -> Result<Self> {
        Ok(Self {})
    }
    /// Serialized size of a body of `round`.
    pub(crate) fn body_bytes(&self, _round: usize) -> usize {
        0
    }

    /// Replies to `tokens` bodies of `round`, serialized one after another.
    pub(crate) fn bodies(&self, _round: usize, _tokens: usize, _bodies: &[u8]) -> Result<Bytes> {
        Err(Error::NotReady)
    }
}

/// A client's evaluation keys, checked and in the form that the mask half reads.
pub(crate) struct Keys {}

/// One batch of a pass over the tables.
pub(crate) struct Batch {
    pub(crate) keys: Arc<Keys>,
    /// Determines the re-randomisation.
    pub(crate) seed: [u8; 32],
}

/// The prepared tables of a model: all that a mask worker needs.
pub(crate) struct Tables {}

impl Tables {
    pub(crate) fn load(_entry: &SplitEntry, _form: Form) -> Result<Self> {
        Ok(Self {})
    }
    pub(crate) fn prepare_and_save(
        _entry: &SplitEntry,
        _weights: &Weights,
        _config: &ServerConfig,
    ) -> Result<Self> {
        Ok(Self {})
    }
    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        0
    }

    /// Reads and checks keys.
    pub(crate) fn keys(&self, _bytes: &[u8]) -> Result<Keys> {
        Err(Error::NotReady)
    }

    /// Computes `blocks` for every batch in one pass, on the current rayon pool; returns one buffer per batch with
    /// the blocks serialized in order.
    pub(crate) fn masks(&self, _batches: &[Arc<Batch>], _blocks: Range<usize>) -> Result<Vec<Bytes>> {
        Err(Error::NotReady)
    }
}
