//! AVX-512 VNNI form: `vpdpbusd` adds four u8 x i8 products to a 32-bit lane without saturation.
//!
//! A lane sums at most `MAX_COLUMNS / 16` products, all lanes together `MAX_COLUMNS`: no overflow (see `MAX_COLUMNS`).
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{BODY_PLANES, LINE_BYTES, PREFETCH_BYTES, Product, WORD_PLANES};

/// Prefetch distance in each row of a tile that is longer than [`PREFETCH_BYTES`]; past the end of a row, the row that takes
/// its place in the next tile. 4 KiB are some 300 ns of a five-plane tile: more than the latency of memory
/// (measured at 8192 x 8192: 3.9 ms, against 4.8 ms with 1 KiB).
const ROW_PREFETCH_BYTES: usize = 4096;

/// Planes of an activation rounded to 16 bits: the clear integer path.
const ACTIVATION_PLANES: usize = 2;

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
            WORD_PLANES => all_rows::<4, WORD_PLANES>(product, 0, out),
            ACTIVATION_PLANES => all_rows::<4, ACTIVATION_PLANES>(product, 0, out),
            _ => (0..planes).for_each(|p| all_rows::<8, 1>(product, p, out)),
        }
    }
}

/// Planes `first .. first + P` against all rows, `R` (a multiple of four) at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn all_rows<const R: usize, const P: usize>(product: &Product<'_>, first: usize, out: &mut [i64]) {
    let stride = product.stride;
    let count = product.rows.len() / stride;
    let planes = Planes { lines: product.planes, first, count: product.planes.len() / stride };
    let mut store = |r: usize, sum: i64| {
        let out = &mut out[r * product.tokens + product.token];
        *out = out.wrapping_add(sum);
    };
    let whole = count / R * R;
    for r in (0..whole).step_by(R) {
        let sums = tile::<R, P>(&product.rows[r * stride..(r + R) * stride], &planes, stride);
        for (r, rows) in (r..).step_by(4).zip(sums.chunks_exact(4)) {
            (r..).zip(four_rows(rows, first)).for_each(|(r, sum)| store(r, sum));
        }
    }
    for r in whole..count {
        let [sums] = tile::<1, P>(&product.rows[r * stride..(r + 1) * stride], &planes, stride);
        let zero = [_mm512_setzero_si512(); P];
        let [sum, ..] = four_rows(&[sums, zero, zero, zero], first);
        store(r, sum);
    }
}

/// The lane sums of four rows, added across lanes and recombined from planes `first .. first + P`.
///
/// Four vectors are added across lanes together: 13 instructions, where one alone takes seven.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four_rows<const P: usize>(rows: &[[__m512i; P]], first: usize) -> [i64; 4] {
    let mut words = _mm256_setzero_si256();
    for (p, [a, b, c, d]) in (0..P).map(|p| (p, [rows[0][p], rows[1][p], rows[2][p], rows[3][p]])) {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        let shift = _mm_cvtsi32_si128(8 * (first + p) as i32);
        words = _mm256_add_epi64(words, _mm256_sll_epi64(_mm256_cvtepi32_epi64(sums), shift));
    }
    let mut values = [0i64; 4];
    // SAFETY: four words.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), words) };
    values
}

/// The interleaved planes, `[stride / 64, count, 64]`, from plane `first` on.
struct Planes<'a> {
    lines: &'a [u8],
    first: usize,
    count: usize,
}

/// Lane sums of `R` rows times `P` planes, all accumulators in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const R: usize, const P: usize>(
    rows: &[i8],
    planes: &Planes<'_>,
    stride: usize,
) -> [[__m512i; P]; R] {
    let group = planes.count * LINE_BYTES;
    assert!(rows.len() == R * stride && stride.is_multiple_of(LINE_BYTES));
    assert!(planes.lines.len() == stride * planes.count && planes.first + P <= planes.count);
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    let in_order = R * stride <= PREFETCH_BYTES;
    for chunk in 0..stride / LINE_BYTES {
        let at = chunk * LINE_BYTES;
        // The first line to prefetch, and how far the next is.
        let (ahead, step) = if in_order {
            (R * at + PREFETCH_BYTES, LINE_BYTES)
        } else {
            let ahead = at + ROW_PREFETCH_BYTES;
            (if ahead < stride { ahead } else { ahead + (R - 1) * stride }, stride)
        };
        // SAFETY: `at + 64 <= stride` and lines `first .. first + P` are among the chunk's `count`, so every load
        // stays in its row or in the planes; a prefetch may name any address.
        unsafe {
            let lines = planes.lines.as_ptr().add(chunk * group + planes.first * LINE_BYTES);
            let bytes: [__m512i; P] =
                std::array::from_fn(|p| _mm512_loadu_si512(lines.add(p * LINE_BYTES).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                _mm_prefetch::<_MM_HINT_T0>(rows.as_ptr().wrapping_add(ahead + r * step));
                let weights = _mm512_loadu_si512(rows.as_ptr().add(r * stride + at).cast());
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    *sum = _mm512_dpbusd_epi32(*sum, bytes, weights);
                }
            }
        }
    }
    sums
}
