//! AVX-512 VNNI form: `vpdpbusd` adds four u8 x i8 products to a 32-bit lane without saturation.
//!
//! A lane sums at most `MAX_COLUMNS / 16` products, all lanes together `MAX_COLUMNS`: no overflow (see `MAX_COLUMNS`).
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{BODY_PLANES, LINE_BYTES, Product, recombine};

/// Bytes ahead in each row that are asked for: rows come from memory, once.
const PREFETCH_BYTES: usize = 1024;

/// Overwrites `out[r][token]`.
pub(super) fn product(product: &Product<'_>, out: &mut [i64]) {
    let count = product.rows.len() / product.stride;
    for r in 0..count {
        out[r * product.tokens + product.token] = 0;
    }
    let planes = product.planes.len() / product.stride;
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe {
        match planes {
            BODY_PLANES => all_rows::<4, BODY_PLANES>(product, 0, out),
            _ => (0..planes).for_each(|p| all_rows::<8, 1>(product, p, out)),
        }
    }
}

/// Planes `first .. first + P` against all rows, `R` at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn all_rows<const R: usize, const P: usize>(product: &Product<'_>, first: usize, out: &mut [i64]) {
    let stride = product.stride;
    let count = product.rows.len() / stride;
    let planes = &product.planes[first * stride..(first + P) * stride];
    let mut store = |r: usize, sums: &[__m512i; P]| {
        for (p, sum) in sums.iter().enumerate() {
            recombine(&mut out[r * product.tokens + product.token], first + p, _mm512_reduce_add_epi32(*sum));
        }
    };
    let whole = count / R * R;
    for r in (0..whole).step_by(R) {
        let sums = tile::<R, P>(&product.rows[r * stride..(r + R) * stride], planes, stride);
        (0..R).for_each(|i| store(r + i, &sums[i]));
    }
    for r in whole..count {
        let [sums] = tile::<1, P>(&product.rows[r * stride..(r + 1) * stride], planes, stride);
        store(r, &sums);
    }
}

/// Lane sums of `R` rows times `P` planes, all accumulators in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const R: usize, const P: usize>(rows: &[i8], planes: &[u8], stride: usize) -> [[__m512i; P]; R] {
    assert!(rows.len() == R * stride && planes.len() == P * stride && stride.is_multiple_of(LINE_BYTES));
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    for at in (0..stride).step_by(LINE_BYTES) {
        // SAFETY: `at + 64 <= stride`, so every load stays in its row or plane; a prefetch may name any address.
        unsafe {
            let bytes: [__m512i; P] =
                std::array::from_fn(|p| _mm512_loadu_si512(planes.as_ptr().add(p * stride + at).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = rows.as_ptr().add(r * stride + at);
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(PREFETCH_BYTES));
                let weights = _mm512_loadu_si512(row.cast());
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    *sum = _mm512_dpbusd_epi32(*sum, bytes, weights);
                }
            }
        }
    }
    sums
}
