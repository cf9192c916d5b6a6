//! The int8 product kernels against wide integers, and every instruction set against the scalar form, bit for bit.

mod kernels_support;

use fhe_layers::arith::Modulus;
use fhe_layers::kernels::hint::{HintPanel, PANEL_POINTS, StridedRows, hint_panel_product};
use fhe_layers::kernels::planes::{Planes, gemm, gemm_parallel, gemv};
use fhe_layers::kernels::{Isa, MAX_COLUMNS, PackedWeights};
use kernels_support::{Q, Stream, isas};
use proptest::prelude::*;

/// `sum_i w_ji v_i` modulo `2^64`, `[rows, tokens]`.
fn schoolbook(weights: &PackedWeights, tokens: &[Vec<u64>]) -> Vec<i64> {
    let row_products = |r: usize| {
        tokens.iter().map(move |words| {
            let products = weights.row(r).iter().zip(words).map(|(&w, &v)| i128::from(w) * i128::from(v));
            products.sum::<i128>() as i64
        })
    };
    (0..weights.rows()).flat_map(row_products).collect()
}

fn check_planes(weights: &PackedWeights, tokens: &[Vec<u64>], planes: usize) {
    let split = Planes::from_tokens(tokens, planes);
    let expected = schoolbook(weights, tokens);
    for isa in isas() {
        let mut out = vec![-1; expected.len()];
        gemm(isa, weights, 0..weights.rows(), &split, &mut out);
        assert_eq!(out, expected, "{isa}");
        out.fill(-1);
        gemm_parallel(isa, weights, &split, &mut out);
        assert_eq!(out, expected, "{isa}, parallel");
        // A range of rows gives its part of the whole.
        let (first, end) = (weights.rows() / 3, weights.rows() - weights.rows() / 4);
        let mut part = vec![-1; (end - first) * tokens.len()];
        gemm(isa, weights, first..end, &split, &mut part);
        assert_eq!(part, expected[first * tokens.len()..end * tokens.len()], "{isa}, rows {first}..{end}");
    }
}

fn columns() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(3), Just(63), Just(64), Just(65), Just(576), 1usize..300]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn planes_match_schoolbook(
        rows in 1usize..70, cols in columns(), tokens in 1usize..20, planes in 1usize..=8, seed: u64,
    ) {
        let mut stream = Stream::new(seed);
        let weights = PackedWeights::new(rows, cols, &stream.weights(rows * cols));
        let limit = u64::MAX >> (64 - 8 * planes);
        let tokens: Vec<_> = (0..tokens).map(|_| stream.words(cols, limit)).collect();
        check_planes(&weights, &tokens, planes);
    }

    #[test]
    fn hint_matches_schoolbook(rows in 1usize..10, cols in columns(), gap in 0usize..3, seed: u64) {
        let mut stream = Stream::new(seed);
        let weights = PackedWeights::new(rows, cols, &stream.weights(rows * cols));
        let values = stream.words(cols * PANEL_POINTS, Q - 1);
        check_hint(&weights, &values, PANEL_POINTS + gap);
    }
}

fn check_hint(weights: &PackedWeights, values: &[u64], stride: usize) {
    let modulus = Modulus::new(Q).unwrap();
    let mut panel = HintPanel::new(weights.cols());
    panel.fill(values);
    for isa in isas() {
        let mut out = vec![u64::MAX; (weights.rows() - 1) * stride + PANEL_POINTS];
        let target = StridedRows { values: &mut out, stride };
        hint_panel_product(isa, weights, 0..weights.rows(), &panel, &modulus, target);
        for (r, out) in out.chunks(stride).enumerate() {
            for (k, &out) in out.iter().enumerate() {
                let expected = if k < PANEL_POINTS {
                    let points = values.chunks_exact(PANEL_POINTS).map(|points| i128::from(points[k]));
                    let sum: i128 = weights.row(r).iter().zip(points).map(|(&w, v)| i128::from(w) * v).sum();
                    sum.rem_euclid(i128::from(Q)) as u64
                } else {
                    u64::MAX
                };
                assert_eq!(out, expected, "{isa}, row {r}, point {k}");
            }
        }
    }
}

#[test]
fn the_longest_sums_do_not_overflow() {
    for weight in [-128, -127, 127] {
        let weights = PackedWeights::new(5, MAX_COLUMNS, &vec![weight; 5 * MAX_COLUMNS]);
        check_planes(&weights, &[vec![(1 << 40) - 1; MAX_COLUMNS]], 5);
        check_planes(&weights, &[vec![u64::from(u32::MAX); MAX_COLUMNS]], 4);
        check_planes(&weights, &vec![vec![u64::from(u32::MAX); MAX_COLUMNS]; 7], 4);
        check_planes(&weights, &[vec![255; MAX_COLUMNS]], 1);
        check_planes(&weights, &[vec![u64::from(u16::MAX); MAX_COLUMNS]], 2);
        check_planes(&weights, &[vec![u64::MAX; MAX_COLUMNS]], 8);
        check_planes(&weights, &vec![vec![(1 << 40) - 1; MAX_COLUMNS]; 5], 5);
        check_planes(&weights, &vec![vec![255; MAX_COLUMNS]; 9], 1);
        check_hint(&weights, &vec![Q - 1; PANEL_POINTS * MAX_COLUMNS], PANEL_POINTS);
    }
}

#[test]
fn many_tokens_and_rows_beyond_one_group() {
    let mut stream = Stream::new(9);
    let weights = PackedWeights::new(700, 513, &stream.weights(700 * 513));
    let tokens: Vec<_> = (0..7).map(|_| stream.words(513, (1 << 40) - 1)).collect();
    check_planes(&weights, &tokens, 5);
}

#[test]
fn gathered_matrices_stay_the_same() {
    let mut stream = Stream::new(11);
    // None, one row, rows with padding, and more than is gathered at once.
    let shapes = [(0, 5), (1, 1), (3, 65), (2100, 32_768), (7, 576)];
    let plain: Vec<_> = shapes.map(|(rows, cols)| (rows, cols, stream.weights(rows * cols))).into();
    let mut matrices: Vec<_> =
        plain.iter().map(|(rows, cols, w)| PackedWeights::new(*rows, *cols, w)).collect();
    PackedWeights::gather(&mut matrices).unwrap();
    for (matrix, (rows, cols, weights)) in matrices.iter().zip(&plain) {
        assert_eq!((matrix.rows(), matrix.cols(), matrix.bytes()), (*rows, *cols, rows * matrix.stride()));
        (0..*rows)
            .for_each(|r| assert_eq!(matrix.row(r), &weights[r * cols..(r + 1) * cols], "row {r} of {rows}"));
        assert!(
            rows * cols == 0 || matrix.padded_row(0).as_ptr().addr().is_multiple_of(64),
            "rows begin on lines"
        );
    }
    let copy = matrices[2].clone();
    drop(matrices);
    check_planes(&copy, &[stream.words(65, 0xffff)], 2);
    PackedWeights::gather([]).unwrap();
}

#[test]
fn empty_shapes_are_allowed() {
    let weights = PackedWeights::new(0, 5, &[]);
    for isa in isas() {
        gemv(isa, &weights, 0..0, &Planes::from_words(&[1; 5], 5), &mut []);
        gemm(isa, &weights, 0..0, &Planes::zeroed(5, 5, 0), &mut []);
    }
}

#[test]
#[should_panic(expected = "columns of weights and planes")]
fn different_columns_are_refused() {
    let weights = PackedWeights::new(1, 5, &[0; 5]);
    gemv(Isa::Scalar, &weights, 0..1, &Planes::from_words(&[1; 6], 5), &mut [0]);
}
