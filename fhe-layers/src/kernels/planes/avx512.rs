//! AVX-512 VNNI form: `vpdpbusd` adds four u8 x i8 products to a 32-bit lane without saturation.
//!
//! A lane sums at most `MAX_COLUMNS / 16` products, all lanes together `MAX_COLUMNS`: no overflow (see `MAX_COLUMNS`).
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{BODY_PLANES, LINE_BYTES, Product, recombine};

/// Bytes ahead in each row that are asked for (rows come from memory, once); past the end of a row, the row that
/// takes its place in the next tile. 4 KiB are some 300 ns of a five-plane tile: more than the latency of memory
/// (measured at 8192 x 8192: 3.9 ms, against 4.8 ms with 1 KiB).
const PREFETCH_BYTES: usize = 4096;

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
    let planes = Planes { lines: product.planes, first, count: product.planes.len() / stride };
    let mut store = |r: usize, sums: &[__m512i; P]| {
        for (p, sum) in sums.iter().enumerate() {
            recombine(&mut out[r * product.tokens + product.token], first + p, _mm512_reduce_add_epi32(*sum));
        }
    };
    let whole = count / R * R;
    for r in (0..whole).step_by(R) {
        let sums = tile::<R, P>(&product.rows[r * stride..(r + R) * stride], &planes, stride);
        (0..R).for_each(|i| store(r + i, &sums[i]));
    }
    for r in whole..count {
        let [sums] = tile::<1, P>(&product.rows[r * stride..(r + 1) * stride], &planes, stride);
        store(r, &sums);
    }
}

/// The interleaved planes, `[stride / 64, count, 64]`, from plane `first` on.
struct Planes<'a> {
    lines: &'a [u8],
    first: usize,
    count: usize,
}

/// Lane sums of `R` rows times `P` planes, all accumulators in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const R: usize, const P: usize>(
    rows: &[i8],
    planes: &Planes<'_>,
    stride: usize,
) -> [[__m512i; P]; R] {
    let group = planes.count * LINE_BYTES;
    assert!(rows.len() == R * stride && stride.is_multiple_of(LINE_BYTES));
    assert!(planes.lines.len() == stride * planes.count && planes.first + P <= planes.count);
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    for chunk in 0..stride / LINE_BYTES {
        let at = chunk * LINE_BYTES;
        let ahead = at + PREFETCH_BYTES;
        let ahead = if ahead < stride { ahead } else { ahead + (R - 1) * stride };
        // SAFETY: `at + 64 <= stride` and lines `first .. first + P` are among the chunk's `count`, so every load
        // stays in its row or in the planes; a prefetch may name any address.
        unsafe {
            let lines = planes.lines.as_ptr().add(chunk * group + planes.first * LINE_BYTES);
            let bytes: [__m512i; P] =
                std::array::from_fn(|p| _mm512_loadu_si512(lines.add(p * LINE_BYTES).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = rows.as_ptr().add(r * stride);
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(ahead));
                let weights = _mm512_loadu_si512(row.add(at).cast());
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    *sum = _mm512_dpbusd_epi32(*sum, bytes, weights);
                }
            }
        }
    }
    sums
}
