//! Scales around a round's integer product, and tensors in and out of plain slices.

use candle_core::{Device, Tensor};
use sotto_models::split::plan::{PlanRound, SplitPlan};

use sotto_protocol::error::{Error, Result};

/// What the client applies before and after one round's product. Part of the client part, not secret.
#[derive(Clone, Debug)]
pub struct RoundScales {
    /// Factor of each input column, `[d_in]`.
    pub column_scale: Vec<f32>,
    /// Step of each weight row, all matrices of the round one after another, `[rows]`.
    pub row_scale: Vec<f32>,
    /// Largest Euclidean norm of an int8 weight row of the round.
    pub max_row_norm: f64,
}

impl RoundScales {
    /// The scales of a whole plan, checked.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when they do not fit the plan.
    pub fn of_plan(plan: &SplitPlan, scales: &[sotto_models::split::RoundScales]) -> Result<Vec<Self>> {
        if plan.rounds.len() != scales.len() {
            return Err(Error::Malformed {
                field: "scales of the client part",
                expected: format!("{} rounds", plan.rounds.len()),
                got: format!("{} rounds", scales.len()),
            });
        }
        plan.rounds
            .iter()
            .zip(scales)
            .map(|(round, scales)| {
                let scales = Self {
                    column_scale: scales.column_scale.clone(),
                    row_scale: scales.row_scale.concat(),
                    max_row_norm: scales.max_row_norm,
                };
                scales.check(round).map(|()| scales)
            })
            .collect()
    }

    fn check(&self, round: &PlanRound) -> Result<()> {
        let finite = self.column_scale.iter().chain(&self.row_scale).all(|scale| scale.is_finite());
        let fits = self.column_scale.len() == round.d_in && self.row_scale.len() == round.rows();
        if fits && finite && self.max_row_norm.is_finite() && self.max_row_norm >= 0.0 {
            return Ok(());
        }
        Err(Error::Malformed {
            field: "scales of the client part",
            expected: format!(
                "{} columns and {} rows, all finite ({})",
                round.d_in,
                round.rows(),
                round.name
            ),
            got: format!("{} columns and {} rows", self.column_scale.len(), self.row_scale.len()),
        })
    }

    /// `x * column_scale` for one token, into `out`.
    pub fn scale_columns(&self, x: &[f32], out: &mut [f32]) {
        for ((out, &x), &scale) in out.iter_mut().zip(x).zip(&self.column_scale) {
            *out = x * scale;
        }
    }

    /// `y * row_scale` for one token, in place.
    pub fn scale_rows(&self, y: &mut [f32]) {
        for (y, &scale) in y.iter_mut().zip(&self.row_scale) {
            *y *= scale;
        }
    }
}

/// Cuts `[tokens, rows of the round]` into one tensor `[tokens, rows]` per matrix.
///
/// # Errors
///
/// A Candle error, if a tensor cannot be made.
pub fn per_matrix(round: &PlanRound, tokens: usize, y: &[f32]) -> sotto_models::Result<Vec<Tensor>> {
    let total = round.rows();
    let mut tensors = Vec::with_capacity(round.matrices.len());
    let mut start = 0;
    for matrix in &round.matrices {
        let mut values = Vec::with_capacity(tokens * matrix.rows);
        for row in y.chunks_exact(total) {
            values.extend_from_slice(&row[start..start + matrix.rows]);
        }
        tensors.push(Tensor::from_vec(values, (tokens, matrix.rows), &Device::Cpu)?);
        start += matrix.rows;
    }
    Ok(tensors)
}

/// A round's input as a plain vector, `[tokens * d_in]`.
///
/// # Errors
///
/// A Candle error when the tensor is not f32.
pub fn values(input: &Tensor) -> sotto_models::Result<Vec<f32>> {
    Ok(input.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round() -> PlanRound {
        PlanRound::new("r", 3, [("a".to_owned(), 2, 0..3), ("b".to_owned(), 1, 0..2)])
    }

    #[test]
    fn products_are_cut_by_matrix() {
        let tensors = per_matrix(&round(), 2, &[1., 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(tensors[0].to_vec2::<f32>().unwrap(), [[1., 2.], [4., 5.]]);
        assert_eq!(tensors[1].to_vec2::<f32>().unwrap(), [[3.], [6.]]);
    }

    #[test]
    fn scales_must_fit_the_plan() {
        let good = RoundScales { column_scale: vec![1.0; 3], row_scale: vec![1.0; 3], max_row_norm: 5.0 };
        good.check(&round()).unwrap();
        let bad = [
            RoundScales { column_scale: vec![1.0; 2], ..good.clone() },
            RoundScales { row_scale: vec![1.0, f32::NAN, 1.0], ..good.clone() },
            RoundScales { max_row_norm: f64::INFINITY, ..good.clone() },
        ];
        assert!(bad.iter().all(|scales| scales.check(&round()).is_err()));
    }
}
