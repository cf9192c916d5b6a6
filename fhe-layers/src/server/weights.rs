//! The server's int8 weights, packed for the kernels.

use super::LinearServer;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::kernels::{Isa, PackedWeights};
use crate::layout::{Layout, RoundSpec};
use rayon::prelude::*;
use std::ops::Range;

/// One matrix as it comes from a file.
pub struct RawMatrix<'a> {
    /// Columns of the round's input that it uses.
    pub columns: Range<usize>,
    /// `[rows, columns.len()]` int8, row-major, each in `-127..=127`.
    pub weights: &'a [i8],
}

/// The matrices of a round.
pub struct RawRound<'a> {
    /// In the layout's order.
    pub matrices: Vec<RawMatrix<'a>>,
}

/// A round's matrices packed for the kernels.
pub(crate) struct RoundWeights {
    pub(crate) d_in: usize,
    pub(crate) matrices: Vec<(Range<usize>, PackedWeights)>,
}

impl RoundWeights {
    /// Rows of all matrices.
    pub(crate) fn rows(&self) -> usize {
        self.matrices.iter().map(|(_, matrix)| matrix.rows()).sum()
    }
}

/// All weights of a model: what a replica of the body half needs, and nothing else.
pub struct ServerWeights {
    rounds: Vec<RoundWeights>,
    isa: Isa,
}

impl ServerWeights {
    /// Packs `rounds`, which must have the shapes of `layout`, on the current rayon pool.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another shape, [`Error::WeightOutOfRange`] for -128.
    pub fn new(layout: &Layout, rounds: &[RawRound<'_>]) -> Result<Self> {
        Self::with_isa(layout, rounds, Isa::active()?)
    }

    /// As [`ServerWeights::new`] with a named instruction set.
    ///
    /// # Errors
    /// As [`ServerWeights::new`].
    pub fn with_isa(layout: &Layout, rounds: &[RawRound<'_>], isa: Isa) -> Result<Self> {
        Error::check("rounds", layout.rounds().len(), rounds.len())?;
        let packed = layout.rounds().par_iter().zip(rounds).enumerate();
        let mut rounds: Vec<RoundWeights> =
            packed.map(|(index, (spec, raw))| pack_round(index, spec, raw)).collect::<Result<_>>()?;
        PackedWeights::gather(
            rounds.iter_mut().flat_map(|round| &mut round.matrices).map(|(_, matrix)| matrix),
        )?;
        Ok(Self { rounds, isa: isa.require()? })
    }

    pub(crate) fn rounds(&self) -> &[RoundWeights] {
        &self.rounds
    }

    pub(crate) fn round(&self, round: usize) -> Result<&RoundWeights> {
        self.rounds.get(round).ok_or(Error::OutOfRange {
            what: "round",
            range: "below the number of rounds",
            got: round as u64,
        })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Memory of the packed weights.
    pub fn bytes(&self) -> usize {
        self.rounds.iter().flat_map(|round| &round.matrices).map(|(_, matrix)| matrix.bytes()).sum()
    }
}

impl LinearServer for ServerWeights {
    type Input = Body;
    type Output = Reply;

    fn answer(&self, round: usize, bodies: &[Body]) -> Result<Vec<Reply>> {
        super::body_half(self, round, bodies)
    }
}

fn pack_round(round: usize, spec: &RoundSpec, raw: &RawRound<'_>) -> Result<RoundWeights> {
    Error::check("matrices of a round", spec.matrices.len(), raw.matrices.len())?;
    let mut matrices = Vec::with_capacity(raw.matrices.len());
    for (index, (spec, raw)) in spec.matrices.iter().zip(&raw.matrices).enumerate() {
        Error::check("first column of a matrix", spec.columns.start, raw.columns.start)?;
        Error::check("columns of a matrix", spec.columns.len(), raw.columns.len())?;
        Error::check("weights of a matrix", spec.rows * spec.columns.len(), raw.weights.len())?;
        if let Some(at) = raw.weights.iter().position(|&w| w == i8::MIN) {
            return Err(Error::WeightOutOfRange { round, matrix: index, index: at });
        }
        matrices.push((spec.columns.clone(), PackedWeights::new(spec.rows, spec.columns.len(), raw.weights)));
    }
    Ok(RoundWeights { d_in: spec.d_in, matrices })
}
