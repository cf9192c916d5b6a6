//! What preparing leaves: per block the digits of the packing chain, in one of two forms, the final mask and the fold.

use super::digits::{FoldStep, MASK_BYTES, load_digits, load_mask, store_digits};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::kernels::HugeWords;
use crate::kernels::pointwise;
use crate::params::Params;
use crate::ring::Ring;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// How the digits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// Transformed, in orbit order: 15.5 KB per row and gadget level at tau 64, streamed once per pass.
    Ntt,
    /// As coefficients of two or three bytes: 8 KB per row at tau 64 with two levels, 6 KB with one; one transform per row,
    /// level and pass. The form on disk.
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

/// Blocks whose digits share one allocation, 32 MB in the NTT form at tau 64, and turn into it together.
pub(crate) const GROUP_BLOCKS: usize = 32;

/// Bytes that outlive the tables, such as a mapped file.
pub trait TableBytes: AsRef<[u8]> + Send + Sync {
    /// `range` is not needed any more: memory that only mirrors a file can be given back. It may still be read.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }
}

impl TableBytes for Vec<u8> {}

/// Shared [`TableBytes`].
pub type SharedBytes = Arc<dyn TableBytes>;

/// Compact digits of the blocks of one group.
pub(crate) enum Compact {
    /// `[blocks][phi - 1][levels][n]` digits of [`Gadget::digit_bytes`](crate::kernels::pointwise::Gadget::digit_bytes)
    /// bytes.
    Owned(Vec<u8>),
    /// Part of saved tables.
    Saved(SavedGroup),
}

/// Where saved tables hold the blocks of one group.
pub(crate) struct SavedGroup {
    pub(crate) bytes: SharedBytes,
    /// All of the group.
    pub(crate) range: Range<usize>,
    /// Bytes per block.
    pub(crate) stride: usize,
    /// Where in a block its digits start.
    pub(crate) digits: usize,
}

impl Drop for SavedGroup {
    fn drop(&mut self) {
        self.bytes.release(self.range.clone());
    }
}

impl Compact {
    /// `[phi - 1][levels][n]` digits of the group's block `index`; `len` bytes.
    pub(crate) fn block(&self, index: usize, len: usize) -> &[u8] {
        match self {
            Self::Owned(all) => &all[index * len..(index + 1) * len],
            Self::Saved(group) => {
                let start = group.range.start + index * group.stride + group.digits;
                &(*group.bytes).as_ref()[start..start + len]
            }
        }
    }
}

/// Digits of one block.
#[derive(Clone, Copy)]
pub(crate) enum BlockDigits<'a> {
    /// `n * terms` words.
    Ntt(&'a [u64]),
    /// `[phi - 1][levels][n]`, packed.
    Compact(&'a [u8]),
}

/// One block being filled.
pub(crate) struct BlockMut<'a> {
    /// Final mask, coefficients, `[n]` of [`MASK_BYTES`].
    pub(crate) mask: &'a mut [u8],
    /// `[n]`, see [`FoldStep`].
    pub(crate) fold: &'a mut [i16],
    pub(crate) digits: BlockDigitsMut<'a>,
}

/// Digits of one block being filled.
pub(crate) enum BlockDigitsMut<'a> {
    Ntt(&'a mut [u64]),
    Compact(&'a mut [u8]),
}

impl BlockDigitsMut<'_> {
    /// Stores the digits of one term of the chain, given as coefficients and in orbit order.
    pub(crate) fn store(&mut self, ring: &Ring, j: usize, level: usize, digits: &[i32], orbit: &[u64]) {
        let shape = ring.shape();
        match self {
            Self::Ntt(words) => shape.store_term(words, j, level, orbit),
            Self::Compact(all) => {
                let size = all.len() / shape.terms();
                let at = (j * shape.levels() + level) * size;
                store_digits(digits, size / ring.n(), &mut all[at..at + size]);
            }
        }
    }
}

/// Buffers that turn packed digits into words.
pub(crate) struct DigitScratch {
    digits: Vec<i32>,
    pub(crate) natural: Vec<u64>,
    pub(crate) orbit: Vec<u64>,
}

impl DigitScratch {
    pub(crate) fn new(n: usize) -> Self {
        Self { digits: vec![0; n], natural: vec![0; n], orbit: vec![0; n] }
    }

    /// One term's packed digits, transformed, in orbit order.
    pub(crate) fn transform(&mut self, ring: &Ring, packed: &[u8]) -> &[u64] {
        load_digits(packed, packed.len() / ring.n(), &mut self.digits);
        pointwise::residues(ring.isa(), ring.modulus(), &self.digits, &mut self.natural);
        ring.forward(&mut self.natural);
        ring.enter_orbit(&self.natural, &mut self.orbit);
        &self.orbit
    }
}

/// The NTT form of compact digits, `[phi - 1][levels][n]`: one transform per term.
fn expand_block(ring: &Ring, packed: &[u8], words: &mut [u64], scratch: &mut DigitScratch) {
    let shape = ring.shape();
    for (term, packed) in packed.chunks_exact(packed.len() / shape.terms()).enumerate() {
        let orbit = scratch.transform(ring, packed);
        shape.store_term(words, term / shape.levels(), term % shape.levels(), orbit);
    }
}

impl BlockDigits<'_> {
    /// The compact form of either, `width` bytes per digit: the digits of NTT tables are small again after the inverse
    /// transform.
    pub(crate) fn compact(&self, ring: &Ring, width: usize) -> Vec<u8> {
        let (shape, n) = (ring.shape(), ring.n());
        let words = match self {
            Self::Compact(packed) => return packed.to_vec(),
            Self::Ntt(words) => words,
        };
        let mut all = vec![0; shape.table_words() * width];
        let (mut natural, mut orbit, mut digits) = (vec![0; n], vec![0; n], vec![0; n]);
        for (term, packed) in all.chunks_exact_mut(n * width).enumerate() {
            shape.load_term(words, term / shape.levels(), term % shape.levels(), &mut orbit);
            ring.leave_orbit(&orbit, &mut natural);
            ring.inverse(&mut natural);
            for (digit, &value) in digits.iter_mut().zip(&natural) {
                *digit = ring.modulus().centred(value) as i32;
            }
            store_digits(&digits, width, packed);
        }
        all
    }
}

/// Final masks and folds of all blocks.
pub(crate) struct BlockConstants {
    /// Coefficients, `[blocks][n]` of [`MASK_BYTES`].
    pub(crate) masks: Vec<u8>,
    /// `[blocks][n]`, see [`FoldStep`].
    pub(crate) folds: Vec<i16>,
}

impl BlockConstants {
    pub(crate) fn zeroed(instance: &Instance) -> Self {
        let words = instance.layout().blocks() * instance.params().n();
        Self { masks: vec![0; words * MASK_BYTES], folds: vec![0; words] }
    }

    fn bytes(&self) -> usize {
        self.masks.len() + self.folds.len() * size_of::<i16>()
    }
}

/// The prepared tables of one instance.
///
/// Compact tables serve at once; [`PreparedModel::expand`] turns them into the NTT form while they serve.
pub struct PreparedModel {
    instance: Arc<Instance>,
    constants: BlockConstants,
    groups: Vec<Group>,
}

/// Digits of [`GROUP_BLOCKS`] blocks, or what is left: always in one form at least.
#[derive(Default)]
struct Group {
    /// `[blocks][n * terms]`, once it exists.
    ntt: OnceLock<HugeWords>,
    /// Until the NTT form exists.
    compact: RwLock<Option<Arc<Compact>>>,
}

impl Group {
    fn compact(&self) -> Option<Arc<Compact>> {
        self.compact.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tables being filled by preparing.
pub(crate) struct Filling {
    constants: BlockConstants,
    digits: FillingDigits,
}

/// Bytes of a block's compact digits.
pub(crate) fn compact_bytes(instance: &Instance) -> usize {
    instance.ring().shape().table_words() * instance.params().gadget().digit_bytes()
}

/// Digits by group.
enum FillingDigits {
    Ntt(Vec<HugeWords>),
    Compact(Vec<Vec<u8>>),
}

impl Filling {
    /// Room for the tables of `instance`; memory is taken as blocks are filled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system gives no memory.
    pub(crate) fn zeroed(instance: &Instance, form: TableForm) -> Result<Self> {
        let (blocks, words) = (instance.layout().blocks(), instance.ring().shape().table_words());
        let sizes = |size| {
            (0..blocks).step_by(GROUP_BLOCKS).map(move |first| GROUP_BLOCKS.min(blocks - first) * size)
        };
        let digits = match form {
            TableForm::Ntt => FillingDigits::Ntt(sizes(words).map(HugeWords::zeroed).collect::<Result<_>>()?),
            TableForm::Compact => {
                FillingDigits::Compact(sizes(compact_bytes(instance)).map(|size| vec![0; size]).collect())
            }
        };
        Ok(Self { constants: BlockConstants::zeroed(instance), digits })
    }

    /// Blocks to fill, in parallel.
    pub(crate) fn blocks_mut(&mut self, instance: &Instance, range: Range<usize>) -> Vec<BlockMut<'_>> {
        let (n, words) = (instance.params().n(), instance.ring().shape().table_words());
        let BlockConstants { masks, folds } = &mut self.constants;
        let masks =
            masks[range.start * n * MASK_BYTES..range.end * n * MASK_BYTES].chunks_exact_mut(n * MASK_BYTES);
        let constants = masks.zip(folds[range.start * n..range.end * n].chunks_exact_mut(n));
        let block = |((mask, fold), digits)| BlockMut { mask, fold, digits };
        match &mut self.digits {
            FillingDigits::Ntt(groups) => {
                let digits = groups.iter_mut().flat_map(|group| group.chunks_exact_mut(words));
                constants.zip(digits.skip(range.start).map(BlockDigitsMut::Ntt)).map(block).collect()
            }
            FillingDigits::Compact(groups) => {
                let size = compact_bytes(instance);
                let digits = groups.iter_mut().flat_map(|group| group.chunks_exact_mut(size));
                constants.zip(digits.skip(range.start).map(BlockDigitsMut::Compact)).map(block).collect()
            }
        }
    }

    /// The finished tables.
    pub(crate) fn finish(self, instance: Arc<Instance>) -> PreparedModel {
        let groups = match self.digits {
            FillingDigits::Ntt(groups) => {
                groups.into_iter().map(|ntt| Group { ntt: OnceLock::from(ntt), ..Group::default() }).collect()
            }
            FillingDigits::Compact(groups) => {
                let groups = groups.into_iter().map(Compact::Owned).collect();
                return PreparedModel::from_compact(instance, self.constants, groups);
            }
        };
        PreparedModel { instance, constants: self.constants, groups }
    }
}

/// The tables as one pass of the mask half sees them.
pub(crate) struct View<'a> {
    tables: &'a PreparedModel,
    /// By group, where it was the only form when the pass began: kept until the pass ends.
    compact: Vec<Option<Arc<Compact>>>,
    words: usize,
    /// Bytes of a block's compact digits.
    compact_bytes: usize,
}

impl View<'_> {
    /// Digits of a block, in the NTT form if it has it by now.
    ///
    /// # Panics
    /// If `block` is out of range.
    pub(crate) fn digits(&self, block: usize) -> BlockDigits<'_> {
        let (group, index) = (block / GROUP_BLOCKS, block % GROUP_BLOCKS);
        match (&self.compact[group], self.tables.groups[group].ntt.get()) {
            (Some(compact), None) => BlockDigits::Compact(compact.block(index, self.compact_bytes)),
            (_, ntt) => {
                let start = index * self.words;
                BlockDigits::Ntt(ntt.map_or(&[], |ntt| &ntt[start..start + self.words]))
            }
        }
    }
}

impl PreparedModel {
    /// Tables of compact groups, each of [`GROUP_BLOCKS`] blocks but the last.
    pub(crate) fn from_compact(
        instance: Arc<Instance>,
        constants: BlockConstants,
        groups: Vec<Compact>,
    ) -> Self {
        let compact = |group| RwLock::new(Some(Arc::new(group)));
        let groups =
            groups.into_iter().map(|group| Group { ntt: OnceLock::new(), compact: compact(group) }).collect();
        Self { instance, constants, groups }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// [`TableForm::Ntt`] once every block has it.
    pub fn form(&self) -> TableForm {
        if self.groups.iter().all(|group| group.compact().is_none()) {
            TableForm::Ntt
        } else {
            TableForm::Compact
        }
    }

    /// Memory of digits, final masks and folds; a group in the middle of its expansion counts in both forms.
    pub fn table_bytes(&self) -> usize {
        let compact = compact_bytes(&self.instance);
        let digits = self.groups.iter().zip((0..).step_by(GROUP_BLOCKS)).map(|(group, first)| {
            let ntt = group.ntt.get().map_or(0, |ntt| ntt.len() * size_of::<u64>());
            let blocks = GROUP_BLOCKS.min(self.blocks() - first);
            ntt + group.compact().map_or(0, |_| blocks * compact)
        });
        digits.sum::<usize>() + self.constants.bytes()
    }

    /// Memory of the tables of `rows` rows under `params`, from the shapes alone: what [`PreparedModel::table_bytes`] is
    /// once tables are in `form`.
    pub fn bytes_for(params: &Params, rows: usize, form: TableForm) -> u64 {
        let digits = params.n() * params.levels() * (params.phi() - 1);
        let block = params.n() * (MASK_BYTES + size_of::<i16>())
            + match form {
                TableForm::Ntt => digits * size_of::<u64>(),
                TableForm::Compact => digits * params.gadget().digit_bytes(),
            };
        (block * rows.div_ceil(params.phi())) as u64
    }

    /// Turns compact tables into the NTT form on the current rayon pool, group by group, while they serve; `keep_on` is
    /// asked before each block, about 1 MB of work, and may wait while others need the machine. A group's compact form is
    /// given up as soon as passes that began before are through.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Io`] when the system gives no memory. The tables serve on either way.
    pub fn expand(&self, keep_on: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let (ring, n) = (self.instance.ring(), self.instance.params().n());
        let words = ring.shape().table_words();
        for (group, first) in self.groups.iter().zip((0..).step_by(GROUP_BLOCKS)) {
            let Some(compact) = group.compact() else { continue };
            let mut filled = HugeWords::zeroed(GROUP_BLOCKS.min(self.blocks() - first) * words)?;
            filled.par_chunks_exact_mut(words).enumerate().try_for_each_init(
                || DigitScratch::new(n),
                |scratch, (index, out)| {
                    if !keep_on() {
                        return Err(Error::Cancelled);
                    }
                    expand_block(ring, compact.block(index, compact_bytes(&self.instance)), out, scratch);
                    Ok(())
                },
            )?;
            // Another expansion may have been faster: the same words either way.
            group.ntt.set(filled).ok();
            *group.compact.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    /// Number of mask blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.instance.layout().blocks()
    }

    /// Reads the final mask of a block, coefficients, `[n]`.
    pub(crate) fn load_mask(&self, block: usize, out: &mut [u64]) {
        load_mask(self.mask_bytes(block), out);
    }

    /// A block's final mask as it is kept.
    pub(crate) fn mask_bytes(&self, block: usize) -> &[u8] {
        let size = self.instance.params().n() * MASK_BYTES;
        &self.constants.masks[block * size..(block + 1) * size]
    }

    /// A block's fold as the kernels take it.
    pub(crate) fn fold_of(&self, block: usize) -> pointwise::Fold<'_> {
        FoldStep::new(self.instance.params().drop()).of(self.fold(block))
    }

    /// Subtracts a block's fold from `body`, coefficients in `[0, q)`, leaving words between `-q` and `2q`.
    pub(crate) fn subtract_fold(&self, block: usize, body: &mut [u64]) {
        FoldStep::new(self.instance.params().drop()).subtract(self.fold(block), body);
    }

    /// A block's fold, in steps of [`FoldStep`], `[n]`.
    pub(crate) fn fold(&self, block: usize) -> &[i16] {
        let n = self.instance.params().n();
        &self.constants.folds[block * n..(block + 1) * n]
    }

    /// The tables as they are now.
    pub(crate) fn view(&self) -> View<'_> {
        let compact = self.groups.iter().map(Group::compact).collect();
        let words = self.instance.ring().shape().table_words();
        View { tables: self, compact, words, compact_bytes: compact_bytes(&self.instance) }
    }
}
