//! Weights to int8: columns equalized, then each row scaled to its largest weight.
//!
//! With column scales `c` and row scales `r`, `W = diag(r) Q diag(c)` up to rounding, `Q` in -127..=127. The client
//! multiplies its input by `c`, the server computes `Q (c x)`, the client multiplies the result by `r`. Both scales
//! stay with the client.

use crate::split::plan::PlanRound;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

/// The largest magnitude of a quantized weight.
pub const MAX_WEIGHT: i8 = 127;

/// A matrix of small integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs: the length of the matrix's column range.
    pub cols: usize,
    /// `[rows, cols]`, row-major, each in -127..=127.
    pub weights: Vec<i8>,
}

/// What the integers of a round are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundScales {
    /// `[d_in]`: the client multiplies its input by these; 0 for a column that no matrix uses.
    pub column_scale: Vec<f32>,
    /// Per matrix `[rows]`: the client multiplies the integer products by these; 0 for a row of zeros.
    pub row_scale: Vec<Vec<f32>>,
    /// Largest Euclidean norm of a row of integers in the round.
    pub max_row_norm: f64,
}

/// A round in int8.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedRound {
    /// The matrices, in the plan's order: the server's.
    pub matrices: Vec<IntMatrix>,
    /// Their scales: the client's.
    pub scales: RoundScales,
}

/// Quantizes the float matrices of a round.
///
/// `matrices`: `[rows, columns.len()]` f32 in the plan's order. A column's scale is `rms^power`, the rms taken over all
/// rows of all matrices that use the column.
///
/// # Errors
/// If a matrix contradicts the plan or has weights that are not finite.
pub fn quantize(round: &PlanRound, matrices: &[Tensor], power: f32) -> Result<QuantizedRound> {
    if matrices.len() != round.matrices.len() {
        return Err(Error::config(
            "weights",
            format!("{}: expected {} matrices, got {}", round.name, round.matrices.len(), matrices.len()),
        ));
    }
    let tensors = matrices.iter().map(|matrix| Ok(matrix.to_dtype(DType::F32)?.contiguous()?));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut floats = Vec::with_capacity(matrices.len());
    for ((spec, matrix), (storage, layout)) in round.matrices.iter().zip(matrices).zip(&storages) {
        let expected = [spec.rows, spec.columns.len()];
        if matrix.dims() != expected {
            return Err(Error::TensorShape {
                name: spec.name.clone(),
                expected: expected.to_vec(),
                got: matrix.dims().to_vec(),
            });
        }
        // A view: the matrices of a round may be the largest things in memory.
        let values = match (&**storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => &values[start..end],
            _ => return Err(Error::config("weights", format!("{} is not on the CPU", spec.name))),
        };
        floats.push(values);
    }
    let column_scale = column_scales(round, &floats, power)?;
    let mut max_square = 0u64;
    let (mut matrices, mut row_scale) = (Vec::new(), Vec::new());
    for (spec, weights) in round.matrices.iter().zip(&floats) {
        let inverse: Vec<f32> = column_scale[spec.columns.clone()]
            .iter()
            // A column whose scale is subnormal is as good as zero, and the inverse would not be finite.
            .map(|&scale| if scale >= f32::MIN_POSITIVE { scale.recip() } else { 0.0 })
            .collect();
        let (matrix, scales, square) = quantize_rows(weights, spec.rows, &inverse);
        max_square = max_square.max(square);
        matrices.push(matrix);
        row_scale.push(scales);
    }
    let max_row_norm = (max_square as f64).sqrt();
    Ok(QuantizedRound { matrices, scales: RoundScales { column_scale, row_scale, max_row_norm } })
}

impl IntMatrix {
    /// The matrix in float, `[rows, cols]`: `row_scale * weight * column_scale`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    ///
    /// # Panics
    /// If there is not one column scale per column and one row scale per row.
    pub fn dequantize(&self, column_scale: &[f32], row_scale: &[f32]) -> Result<Tensor> {
        let scales = (column_scale.len(), row_scale.len());
        assert_eq!(scales, (self.cols, self.rows), "column and row scales of a matrix");
        let weights = self
            .weights
            .chunks_exact(self.cols)
            .zip(row_scale)
            .flat_map(|(row, &scale)| {
                row.iter().zip(column_scale).map(move |(&w, &column)| f32::from(w) * scale * column)
            })
            .collect::<Vec<f32>>();
        Ok(Tensor::from_vec(weights, (self.rows, self.cols), &Device::Cpu)?)
    }
}

impl QuantizedRound {
    /// The matrices in float, in the plan's order.
    ///
    /// # Errors
    /// If a tensor operation fails.
    ///
    /// # Panics
    /// If `round` is not the plan's round this was quantized from.
    pub fn dequantize(&self, round: &PlanRound) -> Result<Vec<Tensor>> {
        assert_eq!(round.matrices.len(), self.matrices.len(), "matrices of round {}", round.name);
        let specs = round.matrices.iter().zip(&self.matrices).zip(&self.scales.row_scale);
        specs
            .map(|((spec, matrix), row_scale)| {
                matrix.dequantize(&self.scales.column_scale[spec.columns.clone()], row_scale)
            })
            .collect()
    }
}

fn column_scales(round: &PlanRound, floats: &[&[f32]], power: f32) -> Result<Vec<f32>> {
    let mut squares = vec![0f64; round.d_in];
    let mut rows = vec![0usize; round.d_in];
    for (spec, weights) in round.matrices.iter().zip(floats) {
        let squares = &mut squares[spec.columns.clone()];
        for row in weights.chunks_exact(spec.columns.len()) {
            for (square, &w) in squares.iter_mut().zip(row) {
                *square += f64::from(w) * f64::from(w);
            }
        }
        if squares.iter().any(|square| !square.is_finite()) {
            return Err(Error::config("weights", format!("{} has weights that are not finite", spec.name)));
        }
        for count in &mut rows[spec.columns.clone()] {
            *count += spec.rows;
        }
    }
    Ok(squares
        .iter()
        .zip(rows)
        .map(
            |(&square, rows)| {
                if square > 0.0 { (square / rows as f64).sqrt().powf(power.into()) as f32 } else { 0.0 }
            },
        )
        .collect())
}

/// Quantizes rows of `weights * inverse`; returns the integers, the rows' scales and the largest squared norm of a row of
/// integers.
fn quantize_rows(weights: &[f32], rows: usize, inverse: &[f32]) -> (IntMatrix, Vec<f32>, u64) {
    let cols = inverse.len();
    let mut quantized = vec![0i8; weights.len()];
    let mut scales = vec![0f32; rows];
    let squares =
        weights.par_chunks_exact(cols).zip(quantized.par_chunks_exact_mut(cols)).zip(&mut scales).map(
            |((row, out), scale)| {
                let largest = row.iter().zip(inverse).map(|(w, i)| (w * i).abs()).fold(0f32, f32::max);
                if largest == 0.0 {
                    return 0;
                }
                *scale = largest / f32::from(MAX_WEIGHT);
                let to_int = f32::from(MAX_WEIGHT) / largest;
                let mut square = 0u64;
                for ((q, w), i) in out.iter_mut().zip(row).zip(inverse) {
                    // `as` saturates; the product is within rounding of -127..=127.
                    *q = ((w * i * to_int).round() as i8).max(-MAX_WEIGHT);
                    square += i32::from(*q).pow(2) as u64;
                }
                square
            },
        );
    let max_square = squares.max().unwrap_or(0);
    (IntMatrix { rows, cols, weights: quantized }, scales, max_square)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(d_in: usize, specs: &[(usize, std::ops::Range<usize>)]) -> PlanRound {
        PlanRound {
            name: "round".into(),
            d_in,
            matrices: specs
                .iter()
                .enumerate()
                .map(|(i, (rows, columns))| crate::split::plan::PlanMatrix {
                    name: format!("m{i}"),
                    rows: *rows,
                    columns: columns.clone(),
                })
                .collect(),
        }
    }

    fn matrix(rows: usize, cols: usize, values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (rows, cols), &Device::Cpu).unwrap()
    }

    #[test]
    fn columns_are_shared_where_ranges_overlap() {
        let spec = round(3, &[(1, 0..2), (1, 0..3)]);
        let q = quantize(&spec, &[matrix(1, 2, &[3.0, 0.0]), matrix(1, 3, &[4.0, 0.0, 8.0])], 1.0).unwrap();
        // Column 0: sqrt((9 + 16) / 2); column 1 is zero; column 2 is used by one row.
        assert!((q.scales.column_scale[0] - 12.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(q.scales.column_scale[1], 0.0);
        assert_eq!(q.scales.column_scale[2], 8.0);
        assert_eq!(q.matrices[0].weights, [127, 0]);
        // 4 / 3.5355 is the largest: 127; 8 / 8 = 1 against 1.1314: 112.
        assert_eq!(q.matrices[1].weights, [127, 0, 112]);
        assert!((q.scales.max_row_norm - f64::from(127 * 127 + 112 * 112).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn zero_rows_stay_zero() {
        let q = quantize(&round(2, &[(2, 0..2)]), &[matrix(2, 2, &[0.0, 0.0, 1.0, -1.0])], 0.5).unwrap();
        assert_eq!(q.matrices[0].weights, [0, 0, 127, -127]);
        assert_eq!(q.scales.row_scale[0][0], 0.0);
        let empty = quantize(&round(2, &[(1, 0..2)]), &[matrix(1, 2, &[0.0; 2])], 1.0).unwrap();
        assert_eq!((empty.scales.max_row_norm, empty.scales.column_scale), (0.0, vec![0.0, 0.0]));
    }

    #[test]
    fn weights_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(quantize(&round(1, &[(1, 0..1)]), &[matrix(1, 1, &[bad])], 1.0).is_err());
        }
    }

    #[test]
    fn columns_of_subnormal_weights_count_as_zero() {
        // Channels that weight decay has shrunk to nothing, as dead ones of a trained model.
        let weights = matrix(2, 2, &[1e-42, 1.0, -1e-42, -0.5]);
        for power in [0.5, 1.0] {
            let q = quantize(&round(2, &[(2, 0..2)]), std::slice::from_ref(&weights), power).unwrap();
            assert!(
                q.scales.row_scale[0].iter().chain(&q.scales.column_scale).all(|scale| scale.is_finite())
            );
            let back = q.dequantize(&round(2, &[(2, 0..2)])).unwrap()[0].to_vec2::<f32>().unwrap();
            assert!((back[0][1] - 1.0).abs() < 1e-6 && (back[1][1] + 0.5).abs() < 1e-6, "{back:?}");
        }
    }

    proptest! {
        #[test]
        fn the_error_of_a_weight_is_half_a_step(
            values in prop::collection::vec(-1e3f32..1e3, 24),
            power in 0f32..1.0,
        ) {
            let spec = round(6, &[(4, 0..6)]);
            let q = quantize(&spec, &[matrix(4, 6, &values)], power).unwrap();
            let back = q.dequantize(&spec).unwrap()[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (i, (w, b)) in values.iter().zip(back).enumerate() {
                let step = q.scales.row_scale[0][i / 6] * q.scales.column_scale[i % 6];
                prop_assert!((w - b).abs() <= step * 0.5 * 1.0001 + 1e-6, "{w} became {b}, step {step}");
            }
        }
    }
}
