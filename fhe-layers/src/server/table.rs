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
    /// `[blocks][phi - 1][levels][n]`.
    Owned(Vec<i16>),
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
    /// `[phi - 1][levels][n]` of the group's block `index`; `words` of them.
    pub(crate) fn block(&self, index: usize, words: usize) -> &[i16] {
        match self {
            Self::Owned(all) => &all[index * words..(index + 1) * words],
            Self::Saved(group) => {
                let start = group.range.start + index * group.stride + group.digits;
                bytemuck::cast_slice(&(*group.bytes).as_ref()[start..start + words * size_of::<i16>()])
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
    masks: Vec<u64>,
    digits: FillingDigits,
}

/// Digits by group.
enum FillingDigits {
    Ntt(Vec<HugeWords>),
    Compact(Vec<Vec<i16>>),
}

impl Filling {
    /// Room for the tables of `instance`; memory is taken as blocks are filled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system gives no memory.
    pub(crate) fn zeroed(instance: &Instance, form: TableForm) -> Result<Self> {
        let (blocks, words) = (instance.layout().blocks(), instance.ring().shape().table_words());
        let sizes = (0..blocks).step_by(GROUP_BLOCKS).map(|first| GROUP_BLOCKS.min(blocks - first) * words);
        let digits = match form {
            TableForm::Ntt => FillingDigits::Ntt(sizes.map(HugeWords::zeroed).collect::<Result<_>>()?),
            TableForm::Compact => FillingDigits::Compact(sizes.map(|size| vec![0; size]).collect()),
        };
        Ok(Self { masks: vec![0; blocks * instance.params().n()], digits })
    }

    /// Blocks to fill, in parallel.
    pub(crate) fn blocks_mut(&mut self, instance: &Instance, range: Range<usize>) -> Vec<BlockMut<'_>> {
        let (n, words) = (instance.params().n(), instance.ring().shape().table_words());
        let masks = self.masks[range.start * n..range.end * n].chunks_exact_mut(n);
        match &mut self.digits {
            FillingDigits::Ntt(groups) => {
                let digits = groups.iter_mut().flat_map(|group| group.chunks_exact_mut(words));
                let digits = digits.skip(range.start).map(BlockDigitsMut::Ntt);
                masks.zip(digits).map(|(mask, digits)| BlockMut { mask, digits }).collect()
            }
            FillingDigits::Compact(groups) => {
                let digits = groups.iter_mut().flat_map(|group| group.chunks_exact_mut(words));
                let digits = digits.skip(range.start).map(BlockDigitsMut::Compact);
                masks.zip(digits).map(|(mask, digits)| BlockMut { mask, digits }).collect()
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
                return PreparedModel::from_compact(instance, self.masks, groups);
            }
        };
        PreparedModel { instance, masks: self.masks, groups }
    }
}

/// The tables as one pass of the mask half sees them.
pub(crate) struct View<'a> {
    tables: &'a PreparedModel,
    /// By group, where it was the only form when the pass began: kept until the pass ends.
    compact: Vec<Option<Arc<Compact>>>,
    words: usize,
}

impl View<'_> {
    /// Digits of a block, in the NTT form if it has it by now.
    ///
    /// # Panics
    /// If `block` is out of range.
    pub(crate) fn digits(&self, block: usize) -> BlockDigits<'_> {
        let (group, index) = (block / GROUP_BLOCKS, block % GROUP_BLOCKS);
        match (&self.compact[group], self.tables.groups[group].ntt.get()) {
            (Some(compact), None) => BlockDigits::Compact(compact.block(index, self.words)),
            (_, ntt) => {
                let start = index * self.words;
                BlockDigits::Ntt(ntt.map_or(&[], |ntt| &ntt[start..start + self.words]))
            }
        }
    }
}

impl PreparedModel {
    /// Tables of compact groups, each of [`GROUP_BLOCKS`] blocks but the last.
    pub(crate) fn from_compact(instance: Arc<Instance>, masks: Vec<u64>, groups: Vec<Compact>) -> Self {
        let compact = |group| RwLock::new(Some(Arc::new(group)));
        let groups =
            groups.into_iter().map(|group| Group { ntt: OnceLock::new(), compact: compact(group) }).collect();
        Self { instance, masks, groups }
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

    /// Memory of digits and final masks; a group in the middle of its expansion counts in both forms.
    pub fn table_bytes(&self) -> usize {
        let words = self.instance.ring().shape().table_words();
        let digits = self.groups.iter().zip((0..).step_by(GROUP_BLOCKS)).map(|(group, first)| {
            let ntt = group.ntt.get().map_or(0, |ntt| ntt.len() * size_of::<u64>());
            let blocks = GROUP_BLOCKS.min(self.blocks() - first);
            ntt + group.compact().map_or(0, |_| blocks * words * size_of::<i16>())
        });
        digits.sum::<usize>() + self.masks.len() * size_of::<u64>()
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
                || [vec![0; n], vec![0; n]],
                |scratch, (index, out)| {
                    if !keep_on() {
                        return Err(Error::Cancelled);
                    }
                    expand_block(ring, compact.block(index, words), out, scratch);
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

    /// Final mask of a block, coefficients, `[n]`.
    pub(crate) fn mask(&self, block: usize) -> &[u64] {
        let n = self.instance.params().n();
        &self.masks[block * n..(block + 1) * n]
    }

    /// The tables as they are now.
    pub(crate) fn view(&self) -> View<'_> {
        let compact = self.groups.iter().map(Group::compact).collect();
        View { tables: self, compact, words: self.instance.ring().shape().table_words() }
    }
}
