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
    /// First global row of each round, and the total behind the last.
    first_rows: Vec<usize>,
    /// First public polynomial of each round, and the total behind the last.
    first_polys: Vec<usize>,
}

/// Rounds of a layout at most: bounds what a manifest can make us allocate.
pub const MAX_ROUNDS: usize = 4096;
/// Rows of one matrix at most.
pub const MAX_ROWS: usize = 1 << 20;

impl Layout {
    /// Checks `rounds` against `params`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when there is no round or matrix, a dimension is 0 or too large, or columns lie outside the input.
    pub fn new(params: &Params, rounds: Vec<RoundSpec>) -> Result<Self> {
        let bad = |what, expected: usize, got: usize| {
            Err(Error::Mismatch { what, expected: expected as u64, got: got as u64 })
        };
        if rounds.is_empty() || rounds.len() > MAX_ROUNDS {
            return bad("rounds (at least 1, at most)", MAX_ROUNDS, rounds.len());
        }
        let (mut first_rows, mut first_polys) = (vec![0], vec![0]);
        for round in &rounds {
            if round.d_in == 0 || round.d_in > MAX_COLUMNS {
                return bad("d_in (at least 1, at most)", MAX_COLUMNS, round.d_in);
            }
            if round.matrices.is_empty() {
                return bad("matrices of a round (at least)", 1, 0);
            }
            for matrix in &round.matrices {
                if matrix.rows == 0 || matrix.rows > MAX_ROWS {
                    return bad("rows of a matrix (at least 1, at most)", MAX_ROWS, matrix.rows);
                }
                if matrix.columns.start >= matrix.columns.end || matrix.columns.end > round.d_in {
                    return bad(
                        "columns of a matrix (not empty, end at most)",
                        round.d_in,
                        matrix.columns.end,
                    );
                }
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
    /// [`Error::Mismatch`] when there is no such round.
    pub fn round(&self, round: usize) -> Result<&RoundSpec> {
        self.rounds.get(round).ok_or(Error::Mismatch {
            what: "round (below)",
            expected: self.rounds.len() as u64,
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
