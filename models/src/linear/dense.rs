//! The reference backend: float weights, in the clear.

use super::LinearBackend;
use crate::families::ModelConfig;
use crate::formats::WeightSource;
use crate::linear::quantize::QuantizedRound;
use crate::split::plan::SplitPlan;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Evaluates rounds with f32 matrices in memory.
#[derive(Clone, Debug)]
pub struct DenseBackend {
    plan: SplitPlan,
    /// Per round, the matrices `[rows, columns]`.
    weights: Vec<Vec<Tensor>>,
}

impl DenseBackend {
    /// A backend of these float matrices: per round and matrix of `plan` one `[rows, columns.len()]` tensor.
    ///
    /// # Errors
    /// If a shape contradicts the plan.
    pub fn new(plan: SplitPlan, weights: Vec<Vec<Tensor>>) -> Result<Self> {
        plan.validate()?;
        if weights.len() != plan.rounds.len() {
            return Err(shape_error(plan.rounds.len(), "weights of every round", weights.len()));
        }
        for (index, (round, matrices)) in plan.rounds.iter().zip(&weights).enumerate() {
            let expected: Vec<_> = round.matrices.iter().map(|m| vec![m.rows, m.columns.len()]).collect();
            let got: Vec<_> = matrices.iter().map(|m| m.dims().to_vec()).collect();
            if expected != got {
                return Err(shape_error(index, format!("{expected:?}"), format!("{got:?}")));
            }
        }
        Ok(Self { plan, weights })
    }

    /// A backend of a model's plan with the float weights of `source`.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub fn from_source(config: &ModelConfig, source: &dyn WeightSource, plan: SplitPlan) -> Result<Self> {
        use rayon::prelude::*;
        let weights = (0..plan.rounds.len())
            .into_par_iter()
            .map(|round| config.round_weights(source, &plan, round))
            .collect::<Result<Vec<_>>>()?;
        Self::new(plan, weights)
    }

    /// A backend of dequantized int8 weights, to see what quantizing them costs.
    ///
    /// # Errors
    /// If the rounds contradict the plan.
    ///
    /// # Panics
    /// If a round has another number of matrices or columns than in the plan.
    pub fn from_quantized(plan: SplitPlan, rounds: &[QuantizedRound]) -> Result<Self> {
        let weights = plan
            .rounds
            .iter()
            .zip(rounds)
            .map(|(spec, round)| round.dequantize(spec))
            .collect::<Result<Vec<_>>>()?;
        Self::new(plan, weights)
    }

    /// The plan.
    pub fn plan(&self) -> &SplitPlan {
        &self.plan
    }
}

impl LinearBackend for DenseBackend {
    fn round(&mut self, round: usize, input: &Tensor) -> Result<Vec<Tensor>> {
        let spec = check_input(&self.plan, round, input)?;
        let mut outputs = Vec::with_capacity(spec.matrices.len());
        for (matrix, weight) in spec.matrices.iter().zip(&self.weights[round]) {
            let columns = input.narrow(1, matrix.columns.start, matrix.columns.len())?;
            outputs.push(columns.matmul(&weight.t()?)?);
        }
        Ok(outputs)
    }

    fn begin_pass(&mut self, _tokens: usize) -> Result<()> {
        Ok(())
    }

    fn end_pass(&mut self) {}
}

/// Checks a round's input, `[tokens >= 1, d_in]` f32, against the plan and returns the round.
///
/// # Errors
/// If there is no such round or the input has another shape or type.
pub fn check_input<'a>(
    plan: &'a SplitPlan,
    round: usize,
    input: &Tensor,
) -> Result<&'a crate::split::plan::PlanRound> {
    let spec =
        plan.rounds.get(round).ok_or_else(|| shape_error(round, "a round of the plan", plan.rounds.len()))?;
    match input.dims() {
        &[tokens, d_in] if tokens > 0 && d_in == spec.d_in && input.dtype() == DType::F32 => Ok(spec),
        dims => Err(shape_error(
            round,
            format!("an f32 input of shape [tokens, {}]", spec.d_in),
            format!("{dims:?} {:?}", input.dtype()),
        )),
    }
}

fn shape_error(round: usize, expected: impl ToString, got: impl ToString) -> Error {
    Error::RoundShape { round, expected: expected.to_string(), got: got.to_string() }
}
