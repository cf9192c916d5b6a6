//! AVX2 form: even and odd bytes widened to 16 bits, `vpmaddwd`, exact 32-bit sums (see `planes/avx2.rs`).
#![allow(unsafe_code, reason = "AVX2 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{HINT_PLANES, LINE_BYTES, PANEL_POINTS, Product, QUAD, QUAD_BYTES, recombine};

/// Points of a vector.
const LANES: usize = 8;

/// Sums of one row at half of the points.
type Sums = [__m256i; HINT_PLANES];

pub(super) fn product(product: &Product<'_>, out: &mut [u64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { all_rows(product, out) }
}

#[target_feature(enable = "avx2")]
fn all_rows(product: &Product<'_>, out: &mut [u64]) {
    let rows = product.rows.chunks_exact(product.stride);
    for (row, out) in rows.zip(out.chunks_mut(product.out_stride)) {
        for first in (0..PANEL_POINTS).step_by(LANES) {
            let sums = points(row, product.panel, first * QUAD);
            let mut lanes = [[0i32; LANES]; HINT_PLANES];
            for (lanes, sum) in lanes.iter_mut().zip(sums) {
                // SAFETY: the array has the 32 bytes that the unaligned store writes.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) }
            }
            for (k, out) in out[first..first + LANES].iter_mut().enumerate() {
                *out = recombine(lanes.map(|plane| plane[k]), product.modulus);
            }
        }
    }
}

/// Sums of one row at the eight points whose bytes start at `offset` in every line.
#[inline]
#[target_feature(enable = "avx2")]
fn points(row: &[i8], panel: &[u8], offset: usize) -> Sums {
    assert!(offset + LANES * QUAD <= LINE_BYTES);
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut sums = [_mm256_setzero_si256(); HINT_PLANES];
    for (w, lines) in row.chunks_exact(QUAD).zip(panel.chunks_exact(QUAD_BYTES)) {
        let w: &[i8; QUAD] = w.try_into().expect("chunks have four weights");
        let pair = |a: i8, b: i8| _mm256_set1_epi32(i32::from(b) << 16 | i32::from(a as i16 as u16));
        let (w_even, w_odd) = (pair(w[0], w[2]), pair(w[1], w[3]));
        for (sum, line) in sums.iter_mut().zip(lines.chunks_exact(LINE_BYTES)) {
            // SAFETY: `offset + 32 <= 64`, the length of the line.
            let bytes = unsafe { _mm256_loadu_si256(line.as_ptr().add(offset).cast()) };
            let (even, odd) = (_mm256_and_si256(bytes, low_bytes), _mm256_srli_epi16::<8>(bytes));
            let products = _mm256_add_epi32(_mm256_madd_epi16(even, w_even), _mm256_madd_epi16(odd, w_odd));
            *sum = _mm256_add_epi32(*sum, products);
        }
    }
    sums
}
