//! Shapes of a model's rounds, and where every row and feature sits.
//!
//! Row order is global: rounds in order, matrices in order, rows in order. Row `R` sits in mask block `R / phi` at
//! `r = R mod phi`. Feature `i` of a round sits in public polynomial `i / phi` of that round at `f = i mod phi`.

use crate::error::{Error, Result};
use crate::kernels::MAX_COLUMNS;
use crate::params::Params;
use std::ops::Range;

/// One matrix of a round: it multiplies a range of the round's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixSpec {
    /// Outputs.
    pub rows: usize,
    /// Columns of the round's input that it uses.
    pub columns: Range<usize>,
}

/// One round: an input of `d_in` features and the matrices that multiply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundSpec {
    /// Features of the input, `1..=32768`.
    pub d_in: usize,
    /// Matrices, at least one.
    pub matrices: Vec<MatrixSpec>,
}

impl RoundSpec {
    /// Rows of all matrices.
    pub fn rows(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.rows).sum()
    }
}

/// The checked shapes of all rounds of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    rounds: Vec<RoundSpec>,
    phi: usize,
    /// First global row of each round, followed by the total.
    first_rows: Vec<usize>,
    /// First public polynomial of each round, followed by the total.
    first_polys: Vec<usize>,
}

/// Maximum rounds of a layout. Bounds allocation from an untrusted manifest.
pub const MAX_ROUNDS: usize = 4096;
/// Maximum rows of one matrix.
pub const MAX_ROWS: usize = 1 << 20;

impl Layout {
    /// Checks `rounds` against `params`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there is no round or matrix, a dimension is 0 or too large, or columns lie outside the input.
    pub fn new(params: &Params, rounds: Vec<RoundSpec>) -> Result<Self> {
        let fits = |what, range, inside, got| Error::check_range(what, range, inside, got);
        fits("rounds", "between 1 and 4096", (1..=MAX_ROUNDS).contains(&rounds.len()), rounds.len())?;
        let (mut first_rows, mut first_polys) = (vec![0], vec![0]);
        for round in &rounds {
            fits("d_in", "between 1 and 32768", (1..=MAX_COLUMNS).contains(&round.d_in), round.d_in)?;
            fits("matrices of a round", "at least 1", !round.matrices.is_empty(), 0)?;
            for matrix in &round.matrices {
                let Range { start, end } = matrix.columns;
                fits(
                    "rows of a matrix",
                    "between 1 and 2^20",
                    (1..=MAX_ROWS).contains(&matrix.rows),
                    matrix.rows,
                )?;
                fits(
                    "end of a matrix's columns",
                    "after their start, within d_in",
                    start < end && end <= round.d_in,
                    end,
                )?;
            }
            first_rows.push(first_rows.last().copied().unwrap_or(0) + round.rows());
            first_polys.push(first_polys.last().copied().unwrap_or(0) + round.d_in.div_ceil(params.phi()));
        }
        Ok(Self { rounds, phi: params.phi(), first_rows, first_polys })
    }

    /// The rounds.
    pub fn rounds(&self) -> &[RoundSpec] {
        &self.rounds
    }

    /// One round.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there is no such round.
    pub fn round(&self, round: usize) -> Result<&RoundSpec> {
        self.rounds.get(round).ok_or(Error::OutOfRange {
            what: "round",
            range: "below the number of rounds",
            got: round as u64,
        })
    }

    /// Rows of all rounds.
    pub fn total_rows(&self) -> usize {
        self.first_rows.last().copied().unwrap_or(0)
    }

    /// Mask blocks: `ceil(total_rows / phi)`.
    pub fn blocks(&self) -> usize {
        self.total_rows().div_ceil(self.phi)
    }

    /// Global rows of a round.
    ///
    /// # Panics
    /// If there is no such round.
    pub fn round_rows(&self, round: usize) -> Range<usize> {
        self.first_rows[round]..self.first_rows[round + 1]
    }

    /// Rounds that have rows in mask block `block`.
    pub fn rounds_of(&self, block: usize) -> Range<usize> {
        let (first, last) =
            (block * self.phi, ((block + 1) * self.phi).min(self.total_rows()).saturating_sub(1));
        let round_of = |row| self.first_rows.partition_point(|&start| start <= row).saturating_sub(1);
        if first >= self.total_rows() { 0..0 } else { round_of(first)..round_of(last) + 1 }
    }

    /// Public polynomials of a round, numbered over all rounds.
    ///
    /// # Panics
    /// If there is no such round.
    pub fn round_polys(&self, round: usize) -> Range<usize> {
        self.first_polys[round]..self.first_polys[round + 1]
    }

    /// Public polynomials of all rounds.
    pub fn total_polys(&self) -> usize {
        self.first_polys.last().copied().unwrap_or(0)
    }
}
