//! What preparing leaves: per block the digits of the packing chain, in one of two forms, and the final mask.

use super::huge::HugeWords;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::ring::Ring;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// How the digits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// Transformed, in orbit order: 31 KB per row at tau 64, streamed once per pass.
    Ntt,
    /// As int16 coefficients: 8 KB per row at tau 64, two transforms per row and pass. The form on disk.
    Compact,
}

impl std::str::FromStr for TableForm {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "ntt" => Ok(Self::Ntt),
            "compact" => Ok(Self::Compact),
            _ => Err(format!("table form: expected ntt or compact, got {text}")),
        }
    }
}

/// Blocks whose NTT form shares one allocation: 32 MB at tau 64.
const GROUP_BLOCKS: usize = 32;

/// Bytes that outlive the tables, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Compact digits of all blocks.
pub(crate) enum Compact {
    /// `[blocks][phi - 1][levels][n]`.
    Owned(Vec<i16>),
    /// Saved tables: the digits of block `i` start at byte `first + i * stride`.
    Saved { bytes: SharedBytes, first: usize, stride: usize },
}

impl Compact {
    /// `[phi - 1][levels][n]`; `words` of them.
    pub(crate) fn block(&self, block: usize, words: usize) -> &[i16] {
        match self {
            Self::Owned(all) => &all[block * words..(block + 1) * words],
            Self::Saved { bytes, first, stride } => {
                let start = first + block * stride;
                bytemuck::cast_slice(&(**bytes).as_ref()[start..start + words * size_of::<i16>()])
            }
        }
    }
}

/// Digits of one block.
#[derive(Clone, Copy)]
pub(crate) enum BlockDigits<'a> {
    /// `n * terms` words.
    Ntt(&'a [u64]),
    /// `[phi - 1][levels][n]`.
    Compact(&'a [i16]),
}

/// One block being filled.
pub(crate) struct BlockMut<'a> {
    /// Final mask, coefficients, `[n]`.
    pub(crate) mask: &'a mut [u64],
    pub(crate) digits: BlockDigitsMut<'a>,
}

/// Digits of one block being filled.
pub(crate) enum BlockDigitsMut<'a> {
    Ntt(&'a mut [u64]),
    Compact(&'a mut [i16]),
}

impl BlockDigitsMut<'_> {
    /// Stores the digits of one term of the chain, given as coefficients and in orbit order.
    pub(crate) fn store(&mut self, ring: &Ring, j: usize, level: usize, digits: &[i16], orbit: &[u64]) {
        let (shape, n) = (ring.shape(), ring.n());
        match self {
            Self::Ntt(words) => shape.store_term(words, j, level, orbit),
            Self::Compact(all) => all[(j * shape.levels() + level) * n..][..n].copy_from_slice(digits),
        }
    }
}

/// The NTT form of compact digits, `[phi - 1][levels][n]`: one transform per term.
fn expand_block(ring: &Ring, digits: &[i16], words: &mut [u64], scratch: &mut [Vec<u64>; 2]) {
    let (shape, n) = (ring.shape(), ring.n());
    let [natural, orbit] = scratch;
    for (term, digits) in digits.chunks_exact(n).enumerate() {
        pointwise::residues(ring.isa(), ring.modulus(), digits, natural);
        ring.forward(natural);
        ring.enter_orbit(natural, orbit);
        shape.store_term(words, term / shape.levels(), term % shape.levels(), orbit);
    }
}

impl BlockDigits<'_> {
    /// The compact form of either: the digits of NTT tables are small again after the inverse transform.
    pub(crate) fn compact(&self, ring: &Ring) -> Vec<i16> {
        let (shape, n) = (ring.shape(), ring.n());
        let words = match self {
            Self::Compact(digits) => return digits.to_vec(),
            Self::Ntt(words) => words,
        };
        let mut all = vec![0; shape.table_words()];
        let (mut natural, mut orbit) = (vec![0; n], vec![0; n]);
        for (term, digits) in all.chunks_exact_mut(n).enumerate() {
            shape.load_term(words, term / shape.levels(), term % shape.levels(), &mut orbit);
            ring.leave_orbit(&orbit, &mut natural);
            ring.inverse(&mut natural);
            for (digit, &value) in digits.iter_mut().zip(&natural) {
                *digit = ring.modulus().centred(value) as i16;
            }
        }
        all
    }
}

/// The prepared tables of one instance.
///
/// Compact tables serve at once; [`PreparedModel::expand`] turns them into the NTT form while they serve.
pub struct PreparedModel {
    instance: Arc<Instance>,
    /// Final masks, coefficients, `[blocks][n]`.
    masks: Vec<u64>,
    /// NTT form, `[groups][blocks of a group][n * terms]`, where it exists.
    ntt: Vec<OnceLock<HugeWords>>,
    /// Compact form, until every group has its NTT form.
    compact: RwLock<Option<Arc<Compact>>>,
}

/// Tables being filled by preparing.
pub(crate) struct Filling {
    masks: Vec<u64>,
    ntt: Vec<HugeWords>,
    compact: Vec<i16>,
}

impl Filling {
    /// Room for the tables of `instance`; memory is taken as blocks are filled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system gives no memory.
    pub(crate) fn zeroed(instance: &Instance, form: TableForm) -> Result<Self> {
        let (blocks, words) = (instance.layout().blocks(), instance.ring().shape().table_words());
        let mut filling =
            Self { masks: vec![0; blocks * instance.params().n()], ntt: Vec::new(), compact: Vec::new() };
        match form {
            TableForm::Compact => filling.compact = vec![0; blocks * words],
            TableForm::Ntt => {
                for first in (0..blocks).step_by(GROUP_BLOCKS) {
                    filling.ntt.push(HugeWords::zeroed(GROUP_BLOCKS.min(blocks - first) * words)?);
                }
            }
        }
        Ok(filling)
    }

    /// Blocks to fill, in parallel.
    pub(crate) fn blocks_mut(&mut self, instance: &Instance, range: Range<usize>) -> Vec<BlockMut<'_>> {
        let (n, words) = (instance.params().n(), instance.ring().shape().table_words());
        let masks = self.masks[range.start * n..range.end * n].chunks_exact_mut(n);
        if self.ntt.is_empty() {
            let digits = self.compact[range.start * words..range.end * words].chunks_exact_mut(words);
            return masks
                .zip(digits)
                .map(|(mask, digits)| BlockMut { mask, digits: BlockDigitsMut::Compact(digits) })
                .collect();
        }
        let digits = self.ntt.iter_mut().flat_map(|group| group.chunks_exact_mut(words)).skip(range.start);
        masks
            .zip(digits)
            .map(|(mask, digits)| BlockMut { mask, digits: BlockDigitsMut::Ntt(digits) })
            .collect()
    }

    /// The finished tables.
    pub(crate) fn finish(self, instance: Arc<Instance>) -> PreparedModel {
        if self.ntt.is_empty() {
            return PreparedModel::from_compact(instance, self.masks, Compact::Owned(self.compact));
        }
        let ntt = self.ntt.into_iter().map(OnceLock::from).collect();
        PreparedModel { instance, masks: self.masks, ntt, compact: RwLock::new(None) }
    }
}

/// The tables as one pass of the mask half sees them.
pub(crate) struct View<'a> {
    tables: &'a PreparedModel,
    compact: Option<Arc<Compact>>,
    words: usize,
}

impl View<'_> {
    /// Digits of a block, in the NTT form if it has it by now.
    ///
    /// # Panics
    /// If `block` is out of range.
    pub(crate) fn digits(&self, block: usize) -> BlockDigits<'_> {
        match (&self.compact, self.tables.ntt[block / GROUP_BLOCKS].get()) {
            (Some(compact), None) => BlockDigits::Compact(compact.block(block, self.words)),
            (_, group) => {
                let start = block % GROUP_BLOCKS * self.words;
                BlockDigits::Ntt(group.map_or(&[], |group| &group[start..start + self.words]))
            }
        }
    }
}

impl PreparedModel {
    pub(crate) fn from_compact(instance: Arc<Instance>, masks: Vec<u64>, compact: Compact) -> Self {
        let groups = instance.layout().blocks().div_ceil(GROUP_BLOCKS);
        let ntt = (0..groups).map(|_| OnceLock::new()).collect();
        Self { instance, masks, ntt, compact: RwLock::new(Some(Arc::new(compact))) }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// [`TableForm::Ntt`] once every block has it.
    pub fn form(&self) -> TableForm {
        if self.compact().is_none() { TableForm::Ntt } else { TableForm::Compact }
    }

    /// Memory of digits and final masks, both forms counted while both exist.
    pub fn table_bytes(&self) -> usize {
        let words = self.instance.ring().shape().table_words();
        let ntt: usize = self.ntt.iter().filter_map(OnceLock::get).map(|group| group.len()).sum();
        let compact = self.compact().map_or(0, |_| self.blocks() * words * size_of::<i16>());
        compact + (ntt + self.masks.len()) * size_of::<u64>()
    }

    /// Turns compact tables into the NTT form on the current rayon pool, group by group, while they serve; `keep_on` is
    /// asked before each group. The compact form is given up at the end.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Io`] when the system gives no memory. The tables serve on either way.
    pub fn expand(&self, keep_on: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let Some(compact) = self.compact() else { return Ok(()) };
        let (ring, n) = (self.instance.ring(), self.instance.params().n());
        let words = ring.shape().table_words();
        for (index, group) in self.ntt.iter().enumerate() {
            if !keep_on() {
                return Err(Error::Cancelled);
            }
            let first = index * GROUP_BLOCKS;
            let mut filled = HugeWords::zeroed(GROUP_BLOCKS.min(self.blocks() - first) * words)?;
            filled.par_chunks_exact_mut(words).enumerate().for_each_init(
                || [vec![0; n], vec![0; n]],
                |scratch, (offset, out)| {
                    expand_block(ring, compact.block(first + offset, words), out, scratch)
                },
            );
            // Another expansion may have been faster: the same words either way.
            group.set(filled).ok();
        }
        *self.compact.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn compact(&self) -> Option<Arc<Compact>> {
        self.compact.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of mask blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.instance.layout().blocks()
    }

    /// Final mask of a block, coefficients, `[n]`.
    pub(crate) fn mask(&self, block: usize) -> &[u64] {
        let n = self.instance.params().n();
        &self.masks[block * n..(block + 1) * n]
    }

    /// The tables as they are now.
    pub(crate) fn view(&self) -> View<'_> {
        View { tables: self, compact: self.compact(), words: self.instance.ring().shape().table_words() }
    }
}
