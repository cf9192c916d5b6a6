//! What preparing leaves: per block the digits of the packing chain, in one of two forms, and the final mask.

use crate::instance::Instance;
use crate::kernels::AlignedWords;
use crate::kernels::pointwise;
use crate::ring::Ring;
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

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ntt" => Ok(Self::Ntt),
            "compact" => Ok(Self::Compact),
            _ => Err(format!("table form: expected ntt or compact, got {text}")),
        }
    }
}

/// Digits of one block.
pub(super) enum Digits {
    /// As the mask half's kernel streams them, `n * terms` words.
    Ntt(AlignedWords),
    /// `[phi - 1][levels][n]`.
    Compact(Vec<i16>),
}

/// One block.
pub(super) struct BlockTable {
    /// Final mask, coefficients, `[n]`.
    pub(super) mask: Vec<u64>,
    pub(super) digits: Digits,
}

impl BlockTable {
    /// Collects what a packing chain emits.
    pub(super) fn build(
        form: TableForm,
        ring: &Ring,
        chain: impl FnOnce(&mut [u64], &mut dyn FnMut(usize, usize, &[i16], &[u64])),
    ) -> Self {
        let (shape, n) = (ring.shape(), ring.n());
        let mut mask = vec![0; n];
        let digits = match form {
            TableForm::Ntt => {
                let mut words = AlignedWords::zeroed(shape.table_words());
                chain(&mut mask, &mut |j, level, _, orbit| shape.store_term(&mut words, j, level, orbit));
                Digits::Ntt(words)
            }
            TableForm::Compact => {
                let mut all = vec![0; shape.table_words()];
                chain(&mut mask, &mut |j, level, digits, _| {
                    all[(j * shape.levels() + level) * n..][..n].copy_from_slice(digits);
                });
                Digits::Compact(all)
            }
        };
        Self { mask, digits }
    }

    /// The NTT form of compact digits: one transform per term.
    pub(super) fn expand(ring: &Ring, digits: &[i16]) -> AlignedWords {
        let (shape, n) = (ring.shape(), ring.n());
        let mut words = AlignedWords::zeroed(shape.table_words());
        let (mut natural, mut orbit) = (vec![0; n], vec![0; n]);
        for (term, digits) in digits.chunks_exact(n).enumerate() {
            pointwise::residues(ring.isa(), ring.modulus(), digits, &mut natural);
            ring.forward(&mut natural);
            ring.enter_orbit(&natural, &mut orbit);
            shape.store_term(&mut words, term / shape.levels(), term % shape.levels(), &orbit);
        }
        words
    }

    /// The compact form of either: the digits of NTT tables are small again after the inverse transform.
    pub(super) fn compact(&self, ring: &Ring) -> Vec<i16> {
        let (shape, n) = (ring.shape(), ring.n());
        match &self.digits {
            Digits::Compact(digits) => digits.clone(),
            Digits::Ntt(words) => {
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
    }

    pub(super) fn bytes(&self) -> usize {
        let digits = match &self.digits {
            Digits::Ntt(words) => words.len() * size_of::<u64>(),
            Digits::Compact(digits) => digits.len() * size_of::<i16>(),
        };
        digits + self.mask.len() * size_of::<u64>()
    }
}

/// The prepared tables of one instance.
pub struct PreparedModel {
    instance: Arc<Instance>,
    form: TableForm,
    blocks: Vec<BlockTable>,
}

impl PreparedModel {
    pub(super) fn from_tables(instance: Arc<Instance>, form: TableForm, blocks: Vec<BlockTable>) -> Self {
        Self { instance, form, blocks }
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
        self.blocks.iter().map(BlockTable::bytes).sum()
    }

    pub(super) fn blocks(&self) -> &[BlockTable] {
        &self.blocks
    }
}
