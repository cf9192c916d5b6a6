//! Int8 matrix times a panel of residues modulo `q`: the hint `H = W A`, at sixteen evaluation points at a time.
//!
//! A residue below `2^50` is seven bytes. A panel holds the bytes of `B[i][k]` for all inputs `i` and sixteen points
//! `k`, ordered so that four consecutive inputs of sixteen points fill one vector of each plane:
//! `[quads of i][plane][point][i mod 4]`. Every plane is an int8 product with sums in 32 bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::ops::Range;

use super::{AlignedBytes, Isa, LINE_BYTES, MAX_COLUMNS, PackedWeights};
use crate::arith::{MODULUS_BITS, Modulus};

/// Evaluation points of a panel.
pub const PANEL_POINTS: usize = 16;

/// Byte planes of a residue.
pub const HINT_PLANES: usize = 7;

const _: () = assert!(MODULUS_BITS as usize <= 8 * HINT_PLANES);

/// Inputs whose bytes share a 32-bit lane.
const QUAD: usize = 4;

/// Bytes of one quad: a line per plane.
const QUAD_BYTES: usize = HINT_PLANES * LINE_BYTES;

const _: () = assert!(PANEL_POINTS * QUAD == LINE_BYTES);

/// The bytes of `[d_in, 16]` residues in the order that [`hint_panel_product`] streams.
pub struct HintPanel {
    d_in: usize,
    data: AlignedBytes,
}

impl HintPanel {
    /// A panel of zeros for `d_in` inputs: `448 ceil(d_in / 4)` bytes.
    ///
    /// # Panics
    /// If `d_in` is not in `1..=MAX_COLUMNS`.
    pub fn new(d_in: usize) -> Self {
        assert!((1..=MAX_COLUMNS).contains(&d_in), "inputs: expected 1..={MAX_COLUMNS}, got {d_in}");
        Self { d_in, data: AlignedBytes::zeroed(d_in.div_ceil(QUAD) * QUAD_BYTES) }
    }

    /// Number of inputs.
    pub fn d_in(&self) -> usize {
        self.d_in
    }

    /// Memory of a panel, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Overwrites the panel with `values`, `[d_in, 16]` row-major, each below `2^50`.
    ///
    /// # Panics
    /// If `values.len() != 16 * d_in`.
    pub fn fill(&mut self, values: &[u64]) {
        assert_eq!(values.len(), PANEL_POINTS * self.d_in, "values of a panel");
        for (i, points) in values.chunks_exact(PANEL_POINTS).enumerate() {
            self.set_input(i, points.try_into().expect("chunks have sixteen values"));
        }
    }

    /// Overwrites the residues of input `i` at the sixteen points.
    ///
    /// # Panics
    /// If `i >= d_in`.
    #[inline]
    pub fn set_input(&mut self, i: usize, points: &[u64; PANEL_POINTS]) {
        assert!(i < self.d_in, "input: expected below {}, got {i}", self.d_in);
        let quad = &mut self.data[i / QUAD * QUAD_BYTES..][..QUAD_BYTES];
        for (p, line) in quad.chunks_exact_mut(LINE_BYTES).enumerate() {
            for (lane, value) in line.chunks_exact_mut(QUAD).zip(points) {
                lane[i % QUAD] = (value >> (8 * p)) as u8;
            }
        }
    }
}

/// `out[r * out_stride + k] = sum_i weights[rows.start + r][i] * panel[i][k] mod q` for the sixteen points `k`.
///
/// `out` reaches from the first to the last value written: `(rows.len() - 1) * out_stride + 16` words at least;
/// values between the rows' sixteen points are left alone.
///
/// # Panics
/// If the columns of `weights` and the inputs of `panel` differ, `rows` is out of range, `out_stride < 16`, `out` is
/// too short, or this processor lacks `isa`.
pub fn hint_panel_product(
    isa: Isa,
    weights: &PackedWeights,
    rows: Range<usize>,
    panel: &HintPanel,
    modulus: &Modulus,
    out: StridedRows<'_>,
) {
    isa.assert_supported();
    assert_eq!(weights.cols(), panel.d_in, "columns of weights and inputs of the panel");
    assert!(rows.start <= rows.end && rows.end <= weights.rows(), "rows {rows:?} of {}", weights.rows());
    if rows.is_empty() {
        return;
    }
    let StridedRows { values: out, stride: out_stride } = out;
    assert!(out_stride >= PANEL_POINTS, "stride of the outputs: expected at least 16, got {out_stride}");
    let needed = (rows.len() - 1) * out_stride + PANEL_POINTS;
    assert!(out.len() >= needed, "outputs: expected at least {needed}, got {}", out.len());
    let stride = weights.stride();
    let product = Product {
        stride,
        rows: &weights.padded()[rows.start * stride..rows.end * stride],
        panel: &panel.data,
        modulus,
        out_stride,
    };
    match isa {
        Isa::Scalar => scalar::product(&product, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::product(&product, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512::product_without_ifma(&product, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::product(&product, out),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("checked by assert_supported"),
    }
}

/// Rows of sixteen outputs at a fixed distance, such as sixteen columns of a `[rows, n]` matrix.
pub struct StridedRows<'a> {
    /// From the first value of the first row on.
    pub values: &'a mut [u64],
    /// Words from one row to the next, at least 16.
    pub stride: usize,
}

/// Checked operands of the kernels.
struct Product<'a> {
    /// Bytes per row, a multiple of 64 that covers every quad of the panel.
    stride: usize,
    /// `[rows, stride]`
    rows: &'a [i8],
    /// `[quads, HINT_PLANES, 64]`
    panel: &'a [u8],
    modulus: &'a Modulus,
    out_stride: usize,
}

/// `sum_p sums[p] 2^(8p) mod q` for sums of at most `MAX_COLUMNS` u8 x i8 products.
///
/// `|sums[p]| < 2^30`, so four planes stay below `2^55` and three below `2^47`: both fit an i64.
#[inline(always)]
fn recombine(sums: [i32; HINT_PLANES], modulus: &Modulus) -> u64 {
    let combine = |planes: &[i32]| planes.iter().rev().fold(0i64, |high, &sum| (high << 8) + i64::from(sum));
    let (low, high) = sums.split_at(4);
    modulus.reduce_i128((i128::from(combine(high)) << 32) + i128::from(combine(low)))
}
