//! Tables on disk: always the compact form, used in place and expanded where the NTT form is wanted.
//!
//! `STB1`, version u16, length and text of the parameters' id, length and text of the plan, digest, blocks u32, zeros up
//! to a multiple of 64, then per block: BLAKE3 of the rest, final mask (7 bytes per coefficient), fold (i16), digits (2 or 3
//! bytes each, as the gadget needs); all little-endian.

use super::digits::{MASK_BYTES, load_mask};
use super::table::{
    BlockConstants, Compact, GROUP_BLOCKS, PreparedModel, SavedGroup, SharedBytes, TableForm, View,
    compact_bytes,
};
use crate::error::{Error, Result};
use crate::instance::Instance;
use rayon::prelude::*;
use std::io::Write;
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"STB1";
/// 3: the hint carries `phi^-1`, and blocks have a fold. Older tables are of another protocol and are prepared again.
const VERSION: u16 = 3;
const ALIGNMENT: usize = 64;
const HASH_BYTES: usize = 32;
/// Blocks serialized together while saving.
const SAVE_GROUP: usize = 64;

fn header(instance: &Instance) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    for text in [instance.params().id(), instance.plan()] {
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&instance.digest().0);
    out.extend_from_slice(&(instance.layout().blocks() as u32).to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn block_bytes(instance: &Instance) -> usize {
    HASH_BYTES + constant_bytes(instance) + compact_bytes(instance)
}

/// Bytes of a block's final mask and fold.
fn constant_bytes(instance: &Instance) -> usize {
    instance.params().n() * (MASK_BYTES + size_of::<i16>())
}

impl PreparedModel {
    /// Bytes that [`PreparedModel::save_compact`] writes for `instance`.
    pub fn saved_bytes(instance: &Instance) -> u64 {
        header(instance).len() as u64 + block_bytes(instance) as u64 * instance.layout().blocks() as u64
    }

    /// Writes the tables in the compact form.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save_compact(&self, out: &mut impl Write) -> Result<()> {
        out.write_all(&header(self.instance()))?;
        let view = self.view();
        for first in (0..self.blocks()).step_by(SAVE_GROUP) {
            let group = first..(first + SAVE_GROUP).min(self.blocks());
            let ready: Vec<Vec<u8>> =
                group.into_par_iter().map(|block| self.block_to_bytes(&view, block)).collect();
            for bytes in ready {
                out.write_all(&bytes)?;
            }
        }
        out.flush()?;
        Ok(())
    }

    fn block_to_bytes(&self, view: &View<'_>, block: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(block_bytes(self.instance()));
        bytes.resize(HASH_BYTES, 0);
        bytes.extend_from_slice(self.mask_bytes(block));
        self.fold(block).iter().for_each(|steps| bytes.extend_from_slice(&steps.to_le_bytes()));
        let width = self.instance().params().gadget().digit_bytes();
        bytes.extend_from_slice(&view.digits(block).compact(self.instance().ring(), width));
        let hash = blake3::hash(&bytes[HASH_BYTES..]);
        bytes[..HASH_BYTES].copy_from_slice(hash.as_bytes());
        bytes
    }

    /// Uses tables that [`PreparedModel::save_compact`] wrote, in place (a mapped file, for example); checks them on the
    /// current rayon pool. With [`TableForm::Ntt`] they are expanded before this returns.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another format or a failed check, [`Error::Foreign`] for other parameters, plan or model,
    /// [`Error::Mismatch`] for another length.
    pub fn load(instance: Arc<Instance>, bytes: SharedBytes, form: TableForm) -> Result<Self> {
        const WHAT: &str = "tables";
        let expected = header(&instance);
        let file = (*bytes).as_ref();
        if !file.starts_with(&MAGIC) {
            return Err(Error::Malformed { what: WHAT, problem: "does not start with the magic of tables" });
        }
        if !file.starts_with(&expected) {
            return Err(Error::Foreign { what: WHAT, of: "version, parameter set, plan or model" });
        }
        let (size, n) = (block_bytes(&instance), instance.params().n());
        let rest = &file[expected.len()..];
        Error::check("bytes of tables", size * instance.layout().blocks(), rest.len())?;
        let mut constants = BlockConstants::zeroed(&instance);
        let masks = constants.masks.par_chunks_exact_mut(n * MASK_BYTES);
        let blocks = masks.zip(constants.folds.par_chunks_exact_mut(n)).zip(rest.par_chunks_exact(size));
        blocks.try_for_each(|((mask, fold), bytes)| read_block(&instance, bytes, mask, fold))?;
        let blocks = instance.layout().blocks();
        let groups = (0..blocks).step_by(GROUP_BLOCKS).map(|first| {
            let end = (first + GROUP_BLOCKS).min(blocks);
            Compact::Saved(SavedGroup {
                bytes: Arc::clone(&bytes),
                range: expected.len() + first * size..expected.len() + end * size,
                stride: size,
                digits: HASH_BYTES + constant_bytes(&instance),
            })
        });
        let groups = groups.collect();
        let tables = Self::from_compact(instance, constants, groups);
        if form == TableForm::Ntt {
            tables.expand(&|| true)?;
        }
        Ok(tables)
    }
}

/// Checks a block and reads its final mask and fold.
fn read_block(instance: &Instance, bytes: &[u8], mask: &mut [u8], fold: &mut [i16]) -> Result<()> {
    let (hash, rest) = bytes.split_at(HASH_BYTES);
    if blake3::hash(rest).as_bytes() != hash {
        return Err(Error::Malformed { what: "tables", problem: "a block's checksum does not match" });
    }
    let (saved_mask, rest) = rest.split_at(mask.len());
    mask.copy_from_slice(saved_mask);
    let mut words = vec![0; instance.params().n()];
    load_mask(mask, &mut words);
    if let Some(index) = words.iter().position(|&word| word >= instance.params().q()) {
        return Err(Error::WordOutOfRange { what: "tables", index, limit: instance.params().q() });
    }
    for (steps, bytes) in fold.iter_mut().zip(rest.chunks_exact(size_of::<i16>())) {
        *steps = i16::from_le_bytes([bytes[0], bytes[1]]);
    }
    Ok(())
}
