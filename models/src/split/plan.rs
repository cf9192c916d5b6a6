//! Split plans: what is computed in which round trip.
//!
//! A *round* is one input vector (`d_in` columns) multiplied by several *matrices*, each of which uses a contiguous
//! range of the input's columns. A plan is a list of rounds, in the order in which the model needs them.

use crate::limits::MAX_WIDTH;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, str::FromStr};

/// How linear layers are grouped into rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanKind {
    /// One round per group of linear layers with a common input: four per transformer block.
    Plain,
    /// Two rounds per transformer block and one more: products of consecutive linear maps are formed at split time.
    Fused,
}

impl PlanKind {
    /// Exponent of the columns' rms used as column scale, as measured best for this plan.
    pub fn column_power(self) -> f32 {
        match self {
            Self::Plain => 0.5,
            Self::Fused => 1.0,
        }
    }

    /// `"plain"` or `"fused"`: the name in manifests and directories.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fused => "fused",
        }
    }
}

impl fmt::Display for PlanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PlanKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "plain" => Ok(Self::Plain),
            "fused" => Ok(Self::Fused),
            other => Err(Error::config("plan", format!("expected plain or fused, got {other:?}"))),
        }
    }
}

/// One matrix of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMatrix {
    /// Unique in the plan, e.g. `blk.0.attn_q`.
    pub name: String,
    /// Outputs.
    pub rows: usize,
    /// The columns of the round's input that the matrix multiplies.
    pub columns: Range<usize>,
}

/// One round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRound {
    /// Unique in the plan, e.g. `blk.0.qkv`.
    pub name: String,
    /// Length of the input.
    pub d_in: usize,
    /// The matrices, in the order of the replies.
    pub matrices: Vec<PlanMatrix>,
}

impl PlanRound {
    /// A round from `(name, rows, columns)` of its matrices.
    pub fn new<const N: usize>(
        name: impl Into<String>,
        d_in: usize,
        matrices: [(String, usize, Range<usize>); N],
    ) -> Self {
        let matrices =
            matrices.into_iter().map(|(name, rows, columns)| PlanMatrix { name, rows, columns }).collect();
        Self { name: name.into(), d_in, matrices }
    }

    /// Rows of all matrices together.
    pub fn rows(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.rows).sum()
    }

    /// Weights of all matrices together.
    pub fn weights(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.rows * matrix.columns.len()).sum()
    }
}

/// The rounds of a model, in the order in which they are evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPlan {
    /// How the rounds were formed.
    pub kind: PlanKind,
    /// The rounds; the index is the layer input's id in the protocol.
    pub rounds: Vec<PlanRound>,
}

impl SplitPlan {
    /// Checks that names are unique, inputs within the limit, and every matrix within its round's input and not empty.
    ///
    /// # Errors
    /// If the plan (which may come from a file) is not usable.
    pub fn validate(&self) -> Result<()> {
        let mut names = std::collections::HashSet::new();
        for round in &self.rounds {
            if round.matrices.is_empty() || !names.insert(round.name.as_str()) {
                return Err(Error::config("plan", format!("round {} is empty or occurs twice", round.name)));
            }
            if round.d_in > MAX_WIDTH {
                let advice =
                    if self.kind == PlanKind::Fused { "; the plain plan has narrower ones" } else { "" };
                return Err(Error::config(
                    "plan",
                    format!(
                        "round {} has {} columns, at most {MAX_WIDTH} are supported{advice}",
                        round.name, round.d_in
                    ),
                ));
            }
            for matrix in &round.matrices {
                let Range { start, end } = matrix.columns;
                if matrix.rows == 0 || start >= end || end > round.d_in {
                    return Err(Error::config(
                        "plan",
                        format!(
                            "matrix {} has {} rows and columns {start}..{end} of {}",
                            matrix.name, matrix.rows, round.d_in
                        ),
                    ));
                }
                if !names.insert(matrix.name.as_str()) {
                    return Err(Error::config("plan", format!("matrix {} occurs twice", matrix.name)));
                }
            }
        }
        Ok(())
    }

    /// Rows of all rounds together.
    pub fn rows(&self) -> usize {
        self.rounds.iter().map(PlanRound::rows).sum()
    }

    /// Weights of all rounds together.
    pub fn weights(&self) -> usize {
        self.rounds.iter().map(PlanRound::weights).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_cannot_be_computed_are_refused() {
        let plan = |d_in, columns| SplitPlan {
            kind: PlanKind::Fused,
            rounds: vec![PlanRound::new("r", d_in, [("m".to_owned(), 1, columns)])],
        };
        plan(MAX_WIDTH, 0..MAX_WIDTH).validate().unwrap();
        let error = plan(MAX_WIDTH + 1, 0..1).validate().unwrap_err().to_string();
        assert!(error.contains("32769") && error.contains("plain plan"), "{error}");
        for columns in [0..0, 1..3, Range { start: 2, end: 1 }] {
            assert!(plan(2, columns).validate().is_err());
        }
        let mut twice = plan(2, 0..2);
        twice.rounds.push(twice.rounds[0].clone());
        assert!(twice.validate().is_err());
    }
}
