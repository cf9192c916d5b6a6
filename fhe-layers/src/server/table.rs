//! What preparing leaves: per block the digits of the packing chain, in one of two forms, and the final mask.

use super::huge::HugeWords;
use crate::error::Result;
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::ring::Ring;
use std::ops::Range;
use std::sync::Arc;

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

/// Digits of all blocks.
enum Digits {
    /// `[blocks][n * terms]`, each block as the mask half's kernel streams it.
    Ntt(HugeWords),
    /// `[blocks][phi - 1][levels][n]`.
    Compact(Vec<i16>),
}

/// Digits of one block.
#[derive(Clone, Copy)]
pub(super) enum BlockDigits<'a> {
    /// `n * terms` words.
    Ntt(&'a [u64]),
    /// `[phi - 1][levels][n]`.
    Compact(&'a [i16]),
}

/// One block being filled.
pub(super) struct BlockMut<'a> {
    /// Final mask, coefficients, `[n]`.
    pub(super) mask: &'a mut [u64],
    pub(super) digits: BlockDigitsMut<'a>,
}

/// Digits of one block being filled.
pub(super) enum BlockDigitsMut<'a> {
    Ntt(&'a mut [u64]),
    Compact(&'a mut [i16]),
}

impl BlockDigitsMut<'_> {
    /// Stores the digits of one term of the chain, given as coefficients and in orbit order.
    pub(super) fn store(&mut self, ring: &Ring, j: usize, level: usize, digits: &[i16], orbit: &[u64]) {
        let (shape, n) = (ring.shape(), ring.n());
        match self {
            Self::Ntt(words) => shape.store_term(words, j, level, orbit),
            Self::Compact(all) => all[(j * shape.levels() + level) * n..][..n].copy_from_slice(digits),
        }
    }

    /// Fills the block from compact digits, `[phi - 1][levels][n]`: one transform per term for the NTT form.
    pub(super) fn expand(&mut self, ring: &Ring, digits: &[i16], scratch: &mut [Vec<u64>; 2]) {
        let (shape, n) = (ring.shape(), ring.n());
        let words = match self {
            Self::Compact(all) => return all.copy_from_slice(digits),
            Self::Ntt(words) => words,
        };
        let [natural, orbit] = scratch;
        for (term, digits) in digits.chunks_exact(n).enumerate() {
            pointwise::residues(ring.isa(), ring.modulus(), digits, natural);
            ring.forward(natural);
            ring.enter_orbit(natural, orbit);
            shape.store_term(words, term / shape.levels(), term % shape.levels(), orbit);
        }
    }
}

impl BlockDigits<'_> {
    /// The compact form of either: the digits of NTT tables are small again after the inverse transform.
    pub(super) fn compact(&self, ring: &Ring) -> Vec<i16> {
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
pub struct PreparedModel {
    instance: Arc<Instance>,
    form: TableForm,
    /// Final masks, coefficients, `[blocks][n]`.
    masks: Vec<u64>,
    digits: Digits,
}

impl PreparedModel {
    /// Room for the tables of `instance`; memory is taken as blocks are filled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system gives no memory.
    pub(super) fn zeroed(instance: Arc<Instance>, form: TableForm) -> Result<Self> {
        let (blocks, words) = (instance.layout().blocks(), instance.ring().shape().table_words());
        let digits = match form {
            TableForm::Ntt => Digits::Ntt(HugeWords::zeroed(blocks * words)?),
            TableForm::Compact => Digits::Compact(vec![0; blocks * words]),
        };
        let masks = vec![0; blocks * instance.params().n()];
        Ok(Self { instance, form, masks, digits })
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The form of the digits.
    pub fn form(&self) -> TableForm {
        self.form
    }

    /// Memory of digits and final masks.
    pub fn table_bytes(&self) -> usize {
        let digits = match &self.digits {
            Digits::Ntt(words) => words.len() * size_of::<u64>(),
            Digits::Compact(digits) => digits.len() * size_of::<i16>(),
        };
        digits + self.masks.len() * size_of::<u64>()
    }

    /// Number of mask blocks.
    pub(super) fn blocks(&self) -> usize {
        self.instance.layout().blocks()
    }

    /// Final mask of a block, coefficients, `[n]`.
    pub(super) fn mask(&self, block: usize) -> &[u64] {
        let n = self.instance.params().n();
        &self.masks[block * n..(block + 1) * n]
    }

    /// Digits of a block.
    pub(super) fn digits(&self, block: usize) -> BlockDigits<'_> {
        let words = self.instance.ring().shape().table_words();
        let range = block * words..(block + 1) * words;
        match &self.digits {
            Digits::Ntt(all) => BlockDigits::Ntt(&all[range]),
            Digits::Compact(all) => BlockDigits::Compact(&all[range]),
        }
    }

    /// Blocks to fill, in parallel.
    pub(super) fn blocks_mut(&mut self, range: Range<usize>) -> Vec<BlockMut<'_>> {
        let (n, words) = (self.instance.params().n(), self.instance.ring().shape().table_words());
        let masks = self.masks[range.start * n..range.end * n].chunks_exact_mut(n);
        let span = range.start * words..range.end * words;
        match &mut self.digits {
            Digits::Ntt(all) => masks
                .zip(all[span].chunks_exact_mut(words))
                .map(|(mask, digits)| BlockMut { mask, digits: BlockDigitsMut::Ntt(digits) })
                .collect(),
            Digits::Compact(all) => masks
                .zip(all[span].chunks_exact_mut(words))
                .map(|(mask, digits)| BlockMut { mask, digits: BlockDigitsMut::Compact(digits) })
                .collect(),
        }
    }
}
