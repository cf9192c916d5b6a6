//! The server's int8 weights times activations rounded to 16 bits, in clear: the encrypted path
//! without its noise, and the yardstick for its speed.

use candle_core::Tensor;
use fhe_layers::kernels::planes::{Planes, gemm_parallel};
use fhe_layers::kernels::{Isa, PackedWeights};
use rayon::prelude::*;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::check_input;
use sotto_models::split::IntMatrix;
use sotto_models::split::ServerPart;
use sotto_models::split::plan::{PlanRound, SplitPlan};

use sotto_client::scales::{RoundScales, per_matrix, values};
use sotto_protocol::error::{Error, Result};

/// Largest magnitude of a rounded activation.
const MAX_ACTIVATION: f32 = 32767.0;

/// What is added to a rounded activation to make it an unsigned 16-bit word.
const OFFSET: i64 = 32768;

/// Byte planes of such a word.
const PLANES: usize = 2;

/// Exact integer products of the server's weights with rounded activations.
pub struct Int8Backend {
    plan: SplitPlan,
    scales: Vec<RoundScales>,
    rounds: Vec<Vec<Int8Matrix>>,
    isa: Isa,
}

struct Int8Matrix {
    weights: PackedWeights,
    /// `OFFSET` times the sum of each row: what the offset of the activations adds to a product.
    offsets: Vec<i64>,
}

impl Int8Matrix {
    fn new(matrix: &IntMatrix) -> Self {
        let sums = matrix.weights.chunks_exact(matrix.cols);
        Self {
            weights: PackedWeights::new(matrix.rows, matrix.cols, &matrix.weights),
            offsets: sums.map(|row| OFFSET * row.iter().map(|&w| i64::from(w)).sum::<i64>()).collect(),
        }
    }
}

impl Int8Backend {
    /// A backend with the weights of `server` and the scales of the client part.
    ///
    /// # Errors
    ///
    /// A damaged weights file, or scales that do not fit the plan.
    pub fn new(server: &ServerPart, scales: &[sotto_models::split::RoundScales]) -> Result<Self> {
        let plan = server.plan();
        Self::from_rounds(plan, scales, |round| Ok(server.round(round)?))
    }

    /// A backend for `plan` with the matrices that `matrices` gives for each round, in the plan's order.
    ///
    /// # Errors
    ///
    /// Those of `matrices`, or scales that do not fit the plan.
    ///
    /// # Panics
    ///
    /// If a matrix has another number of weights than its shape says.
    pub fn from_rounds(
        plan: &SplitPlan,
        scales: &[sotto_models::split::RoundScales],
        matrices: impl Fn(usize) -> Result<Vec<IntMatrix>> + Sync,
    ) -> Result<Self> {
        let scales = RoundScales::of_plan(plan, scales)?;
        let mut rounds = (0..plan.rounds.len())
            .into_par_iter()
            .map(|round| Ok(matrices(round)?.iter().map(Int8Matrix::new).collect()))
            .collect::<Result<Vec<Vec<Int8Matrix>>>>()?;
        PackedWeights::gather(rounds.iter_mut().flatten().map(|matrix| &mut matrix.weights))?;
        Ok(Self { plan: plan.clone(), scales, rounds, isa: active_isa()? })
    }

    /// The integer products of one round, scaled back; `x`: `[tokens, d_in]`, result `[tokens, rows]`.
    fn products(&self, round: usize, tokens: usize, x: &[f32]) -> Vec<f32> {
        let spec = &self.plan.rounds[round];
        let scales = &self.scales[round];
        let (words, steps) = round_inputs(spec, scales, x);
        let rows = spec.rows();
        let mut y = vec![0.0; tokens * rows];
        let mut first = 0;
        for (matrix, packed) in spec.matrices.iter().zip(&self.rounds[round]) {
            let mut planes = Planes::zeroed(matrix.columns.len(), PLANES, tokens);
            for (token, words) in words.chunks_exact(spec.d_in).enumerate() {
                planes.set_token(token, &words[matrix.columns.clone()]);
            }
            let mut products = vec![0_i64; matrix.rows * tokens];
            gemm_parallel(self.isa, &packed.weights, &planes, &mut products);
            for (row, (products, &offset)) in products.chunks_exact(tokens).zip(&packed.offsets).enumerate() {
                for (token, &product) in products.iter().enumerate() {
                    y[token * rows + first + row] = ((product - offset) as f64 * steps[token]) as f32;
                }
            }
            first += matrix.rows;
        }
        y.chunks_exact_mut(rows).for_each(|row| scales.scale_rows(row));
        y
    }
}

fn active_isa() -> Result<Isa> {
    Isa::active().map_err(|error| Error::Usage(format!("SOTTO_ISA: {error}")))
}

/// Rounds column-scaled inputs to 16 bits; returns them as unsigned words, `[tokens, d_in]`, and the
/// value of one unit per token.
fn round_inputs(spec: &PlanRound, scales: &RoundScales, x: &[f32]) -> (Vec<u64>, Vec<f64>) {
    let mut words = vec![0; x.len()];
    let mut scaled = vec![0.0; spec.d_in];
    let steps = x
        .chunks_exact(spec.d_in)
        .zip(words.chunks_exact_mut(spec.d_in))
        .map(|(x, words)| {
            scales.scale_columns(x, &mut scaled);
            let largest = scaled.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let factor = if largest > 0.0 { MAX_ACTIVATION / largest } else { 1.0 };
            for (word, &value) in words.iter_mut().zip(&scaled) {
                // The cast saturates, and turns NaN into 0; the sum is positive in any case.
                *word = ((value * factor).round_ties_even() as i16 as i64 + OFFSET).cast_unsigned();
            }
            1.0 / f64::from(factor)
        })
        .collect();
    (words, steps)
}

impl LinearBackend for Int8Backend {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        check_input(&self.plan, round, input)?;
        let (tokens, _) = input.dims2()?;
        let y = self.products(round, tokens, &values(input)?);
        per_matrix(&self.plan.rounds[round], tokens, &y)
    }

    fn begin_pass(&mut self, _tokens: usize) -> sotto_models::Result<()> {
        Ok(())
    }

    fn end_pass(&mut self) {}
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Two matrices of which the second uses the last two of three columns.
    fn backend() -> Int8Backend {
        let plan_round = PlanRound::new("r", 3, [("a".to_owned(), 2, 0..3), ("b".to_owned(), 1, 1..3)]);
        let plan = SplitPlan { kind: sotto_models::split::plan::PlanKind::Plain, rounds: vec![plan_round] };
        let scales = [sotto_models::split::RoundScales {
            column_scale: vec![1.0, 2.0, 0.5],
            row_scale: vec![vec![1.0, 0.1], vec![10.0]],
            max_row_norm: 200.0,
        }];
        let scales = RoundScales::of_plan(&plan, &scales).unwrap();
        let a = IntMatrix { rows: 2, cols: 3, weights: vec![127, -127, 3, 0, 5, -6] };
        let b = IntMatrix { rows: 1, cols: 2, weights: vec![-1, 100] };
        Int8Backend {
            plan,
            scales,
            rounds: vec![vec![Int8Matrix::new(&a), Int8Matrix::new(&b)]],
            isa: Isa::Scalar,
        }
    }

    #[test]
    fn products_are_those_of_the_scaled_matrices() {
        let x = [[1.0_f32, -2.0, 4.0], [0.0, 0.0, 0.0], [-32767.0, 3.0, 0.25]];
        let input = Tensor::new(&x, &Device::Cpu).unwrap();
        let y = backend().round(0, &input).unwrap();
        let (a, b) = (y[0].to_vec2::<f32>().unwrap(), y[1].to_vec2::<f32>().unwrap());
        for (token, x) in x.iter().enumerate() {
            let scaled = [x[0], 2.0 * x[1], 0.5 * x[2]];
            let expected = [
                127.0 * scaled[0] - 127.0 * scaled[1] + 3.0 * scaled[2],
                0.1 * (5.0 * scaled[1] - 6.0 * scaled[2]),
                10.0 * (-scaled[1] + 100.0 * scaled[2]),
            ];
            // Half a unit per input times the row's weights.
            let unit = scaled.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / MAX_ACTIVATION;
            for (got, (expected, weight)) in [a[token][0], a[token][1], b[token][0]]
                .into_iter()
                .zip(expected.into_iter().zip([257.0, 1.1, 1010.0]))
            {
                let tolerance = 0.5 * unit * weight + 1e-6 * expected.abs();
                assert!((got - expected).abs() <= tolerance, "token {token}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_broken_input_does_not_panic() {
        let input = Tensor::new(&[[f32::NAN, f32::INFINITY, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(backend().round(0, &input).unwrap().len(), 2);
    }
}
