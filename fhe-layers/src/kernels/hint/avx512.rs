//! AVX-512 VNNI form: a lane of `vpdpbusd` is one evaluation point, its four bytes are four inputs.
//!
//! Four rows times seven planes are 28 accumulators. A lane sums at most `MAX_COLUMNS` products: no overflow.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{HINT_PLANES, LINE_BYTES, PANEL_POINTS, Product, QUAD, QUAD_BYTES, recombine};
use crate::arith::Modulus;
use crate::kernels::reduce52::{Reducer, store8};

/// Rows that share the panel's loads.
const ROWS: usize = 4;

/// Sums of one row.
type Sums = [__m512i; HINT_PLANES];

/// The product of all rows, whose sums become residues by `$recombiner` on processors with `$features`.
macro_rules! product {
    ($(#[$attribute:meta])* $name:ident, $recombiner:ty, $features:literal) => {
        $(#[$attribute])*
        pub(super) fn $name(product: &Product<'_>, out: &mut [u64]) {
            #[target_feature(enable = $features)]
            fn all_rows(product: &Product<'_>, out: &mut [u64]) {
                let stride = product.stride;
                let count = product.rows.len() / stride;
                let recombiner = <$recombiner>::new(product.modulus);
                let whole = count / ROWS * ROWS;
                for r in (0..whole).step_by(ROWS) {
                    let sums = tile::<ROWS>(&product.rows[r * stride..(r + ROWS) * stride], product.panel, stride);
                    for (i, sums) in sums.iter().enumerate() {
                        recombiner.store(sums, &mut out[(r + i) * product.out_stride..]);
                    }
                }
                for r in whole..count {
                    let [sums] = tile::<1>(&product.rows[r * stride..(r + 1) * stride], product.panel, stride);
                    recombiner.store(&sums, &mut out[r * product.out_stride..]);
                }
            }
            // SAFETY: the facade has called Isa::assert_supported.
            unsafe { all_rows(product, out) }
        }
    };
}

product!(product, Recombiner, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512ifma");
product!(
    /// [`product`] for processors without IFMA: sums are reduced with quotients in doubles.
    product_without_ifma,
    FloatRecombiner,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const R: usize>(rows: &[i8], panel: &[u8], stride: usize) -> [Sums; R] {
    let quads = panel.len() / QUAD_BYTES;
    assert!(rows.len() == R * stride && quads * QUAD <= stride && panel.len() == quads * QUAD_BYTES);
    let mut sums = [[_mm512_setzero_si512(); HINT_PLANES]; R];
    for quad in 0..quads {
        // SAFETY: `quad < quads`: the seven lines are inside the panel and the four weights inside each row.
        unsafe {
            let lines = panel.as_ptr().add(quad * QUAD_BYTES);
            let weights: [__m512i; R] = std::array::from_fn(|r| {
                _mm512_set1_epi32(rows.as_ptr().add(r * stride + quad * QUAD).cast::<i32>().read_unaligned())
            });
            for p in 0..HINT_PLANES {
                let line = _mm512_loadu_si512(lines.add(p * LINE_BYTES).cast());
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    sums[p] = _mm512_dpbusd_epi32(sums[p], line, weights);
                }
            }
        }
    }
    sums
}

/// Turns the sums of seven planes into residues by a quotient in doubles.
///
/// The value `high 2^32 + low` is below `2^79` in magnitude. Its quotient by `q >= 2^40` is below `2^39`, so the double
/// that stands for it is off by far less than one, and the rest by the integer next to it is between `-q` and `q`: the
/// arithmetic of 64-bit words gives it exactly, whatever overflows on the way. Smaller moduli are reduced one sum after
/// the other.
struct FloatRecombiner {
    modulus: Modulus,
    q: __m512i,
    high_by_q: __m512d,
    low_by_q: __m512d,
}

impl FloatRecombiner {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(modulus: &Modulus) -> Self {
        let q = modulus.q();
        Self {
            modulus: *modulus,
            q: _mm512_set1_epi64(q as i64),
            high_by_q: _mm512_set1_pd((1u64 << 32) as f64 / q as f64),
            low_by_q: _mm512_set1_pd(1.0 / q as f64),
        }
    }

    /// Overwrites the first sixteen words of `out`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn store(&self, sums: &Sums, out: &mut [u64]) {
        let points = &mut out[..PANEL_POINTS];
        if self.modulus.q() < 1 << 40 {
            return store_scalar(sums, &self.modulus, points);
        }
        let half = |sum: __m512i, upper: bool| {
            if upper { _mm512_extracti64x4_epi64::<1>(sum) } else { _mm512_castsi512_si256(sum) }
        };
        for (i, points) in points.chunks_exact_mut(PANEL_POINTS / 2).enumerate() {
            let wide = sums.map(|sum| _mm512_cvtepi32_epi64(half(sum, i == 1)));
            let combine = |planes: &[__m512i]| {
                let shifted = |high, &plane| _mm512_add_epi64(_mm512_slli_epi64::<8>(high), plane);
                planes.iter().rev().fold(_mm512_setzero_si512(), shifted)
            };
            let (low, high) = (combine(&wide[..4]), combine(&wide[4..]));
            let by_low = _mm512_mul_pd(_mm512_cvtepi64_pd(low), self.low_by_q);
            let quotient = _mm512_fmadd_pd(_mm512_cvtepi64_pd(high), self.high_by_q, by_low);
            let multiple = _mm512_mullo_epi64(_mm512_cvtpd_epi64(quotient), self.q);
            let value = _mm512_add_epi64(_mm512_slli_epi64::<32>(high), low);
            let rest = _mm512_sub_epi64(value, multiple);
            let negative = _mm512_srai_epi64::<63>(rest);
            store8(points, _mm512_add_epi64(rest, _mm512_and_si512(negative, self.q)));
        }
    }
}

/// Overwrites the first sixteen words of `out`.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_scalar(sums: &Sums, modulus: &Modulus, out: &mut [u64]) {
    let mut lanes = [[0i32; PANEL_POINTS]; HINT_PLANES];
    for (lanes, &sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: the array has the 64 bytes that the unaligned store writes.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), sum) }
    }
    for (k, out) in out[..PANEL_POINTS].iter_mut().enumerate() {
        *out = recombine(lanes.map(|plane| plane[k]), modulus);
    }
}

/// Turns the sums of seven planes into residues.
///
/// `|sum| < 2^30`. The low four planes combine to less than `2^55` in magnitude, the high three to less than `2^47`;
/// adding a multiple of `q` of at least `2^55` and `2^47` makes both non-negative and leaves them below `2^57` and
/// `2^51` (a multiple exceeds its bound by less than `q < 2^50`).
struct Recombiner {
    reducer: Reducer,
    low_offset: __m512i,
    high_offset: __m512i,
}

impl Recombiner {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new(modulus: &Modulus) -> Self {
        let offset = |bound: u64| _mm512_set1_epi64(bound.next_multiple_of(modulus.q()) as i64);
        Self { reducer: Reducer::new(modulus), low_offset: offset(1 << 55), high_offset: offset(1 << 47) }
    }

    /// Overwrites the first sixteen words of `out`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn store(&self, sums: &Sums, out: &mut [u64]) {
        let points = &mut out[..PANEL_POINTS];
        let half = |sum: __m512i, upper: bool| {
            if upper { _mm512_extracti64x4_epi64::<1>(sum) } else { _mm512_castsi512_si256(sum) }
        };
        for (i, points) in points.chunks_exact_mut(PANEL_POINTS / 2).enumerate() {
            let wide = sums.map(|sum| _mm512_cvtepi32_epi64(half(sum, i == 1)));
            let combine = |start: __m512i, planes: &[__m512i]| {
                let shifted = |high, &plane| _mm512_add_epi64(_mm512_slli_epi64::<8>(high), plane);
                let sum = planes.iter().rev().fold(_mm512_setzero_si512(), shifted);
                _mm512_add_epi64(sum, start)
            };
            let low = combine(self.low_offset, &wide[..4]);
            let high = combine(self.high_offset, &wide[4..]);
            store8(points, self.reducer.reduce_planes(low, high));
        }
    }
}
