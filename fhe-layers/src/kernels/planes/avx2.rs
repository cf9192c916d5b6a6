//! AVX2 form.
//!
//! `vpmaddubsw` saturates (two products reach `2 * 255 * 127 > 2^15`), so even and odd bytes are widened to 16 bits
//! and multiplied by `vpmaddwd`, whose 32-bit sums are exact. Lane sums stay in range as in the AVX-512 form.
#![allow(unsafe_code, reason = "AVX2 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{LINE_BYTES, PREFETCH_BYTES, Product, WORD_PLANES, recombine};

/// Rows that share a plane's loads and widening.
const ROWS: usize = 4;

/// Bytes of a vector.
const LANES: usize = 32;

/// Overwrites `out[r][token]`.
pub(super) fn product(product: &Product<'_>, out: &mut [i64]) {
    // SAFETY: the facade has called Isa::assert_supported.
    unsafe { all_rows(product, out) }
}

#[target_feature(enable = "avx2")]
fn all_rows(product: &Product<'_>, out: &mut [i64]) {
    let stride = product.stride;
    let count = product.rows.len() / stride;
    for r in 0..count {
        out[r * product.tokens + product.token] = 0;
    }
    let planes = product.planes.len() / stride;
    if planes == WORD_PLANES {
        return word_rows(product, count, out);
    }
    for p in 0..planes {
        let plane = Plane { lines: product.planes, index: p, count: planes };
        let mut store = |r: usize, sum| recombine(&mut out[r * product.tokens + product.token], p, sum);
        let whole = count / ROWS * ROWS;
        for r in (0..whole).step_by(ROWS) {
            let sums = tile::<ROWS>(&product.rows[r * stride..(r + ROWS) * stride], &plane);
            (0..ROWS).for_each(|i| store(r + i, sums[i]));
        }
        for r in whole..count {
            let [sum] = tile::<1>(&product.rows[r * stride..(r + 1) * stride], &plane);
            store(r, sum);
        }
    }
}

/// All four planes of word bodies, two rows at a time: eight sums and the widened weights fill the registers, and weights are
/// widened once instead of once per plane.
#[target_feature(enable = "avx2")]
fn word_rows(product: &Product<'_>, count: usize, out: &mut [i64]) {
    const PAIR: usize = 2;
    let stride = product.stride;
    let mut store = |r: usize, sums: [i32; WORD_PLANES]| {
        let out = &mut out[r * product.tokens + product.token];
        sums.into_iter().enumerate().for_each(|(p, sum)| recombine(out, p, sum));
    };
    let whole = count / PAIR * PAIR;
    for r in (0..whole).step_by(PAIR) {
        let sums = word_tile::<PAIR>(&product.rows[r * stride..(r + PAIR) * stride], product.planes);
        (r..).zip(sums).for_each(|(r, sums)| store(r, sums));
    }
    if whole < count {
        let [sums] = word_tile::<1>(&product.rows[whole * stride..count * stride], product.planes);
        store(whole, sums);
    }
}

/// Sums of `R` rows times each of four interleaved planes.
#[inline]
#[target_feature(enable = "avx2")]
fn word_tile<const R: usize>(rows: &[i8], lines: &[u8]) -> [[i32; WORD_PLANES]; R] {
    let stride = lines.len() / WORD_PLANES;
    assert!(
        rows.len() == R * stride && stride.is_multiple_of(LINE_BYTES) && lines.len() == WORD_PLANES * stride
    );
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut sums = [[_mm256_setzero_si256(); WORD_PLANES]; R];
    for at in (0..stride).step_by(LANES) {
        let (chunk, half) = (at / LINE_BYTES, at % LINE_BYTES);
        // SAFETY: `at + 32 <= stride`, and every line is one of the chunk's four: every load stays inside; a prefetch may name
        // any address.
        unsafe {
            // `R` half lines of the tile after next, in the order of memory.
            for r in (0..R).step_by(2) {
                _mm_prefetch::<_MM_HINT_T0>(rows.as_ptr().wrapping_add(R * at + r * LANES + PREFETCH_BYTES));
            }
            let weights: [_; R] =
                std::array::from_fn(|r| widen(_mm256_loadu_si256(rows.as_ptr().add(r * stride + at).cast())));
            let group = lines.as_ptr().add(chunk * WORD_PLANES * LINE_BYTES + half);
            for p in 0..WORD_PLANES {
                let bytes = _mm256_loadu_si256(group.add(p * LINE_BYTES).cast());
                let (even, odd) = (_mm256_and_si256(bytes, low_bytes), _mm256_srli_epi16::<8>(bytes));
                for (sums, (w_even, w_odd)) in sums.iter_mut().zip(weights) {
                    let products =
                        _mm256_add_epi32(_mm256_madd_epi16(even, w_even), _mm256_madd_epi16(odd, w_odd));
                    sums[p] = _mm256_add_epi32(sums[p], products);
                }
            }
        }
    }
    sums.map(|sums| sums.map(|sum| horizontal(sum)))
}

/// One of the interleaved planes, `[stride / 64, count, 64]`.
struct Plane<'a> {
    lines: &'a [u8],
    index: usize,
    count: usize,
}

/// Sums of `R` rows times one plane.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const R: usize>(rows: &[i8], plane: &Plane<'_>) -> [i32; R] {
    let stride = plane.lines.len() / plane.count;
    let group = plane.count * LINE_BYTES;
    assert!(rows.len() == R * stride && plane.lines.len().is_multiple_of(group) && plane.index < plane.count);
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut sums = [_mm256_setzero_si256(); R];
    for at in (0..stride).step_by(LANES) {
        let (chunk, half) = (at / LINE_BYTES, at % LINE_BYTES);
        // SAFETY: `at + 32 <= stride`, and the plane's line is one of the chunk's `count`: every load stays inside.
        unsafe {
            let bytes = _mm256_loadu_si256(
                plane.lines.as_ptr().add(chunk * group + plane.index * LINE_BYTES + half).cast(),
            );
            let (even, odd) = (_mm256_and_si256(bytes, low_bytes), _mm256_srli_epi16::<8>(bytes));
            for (r, sum) in sums.iter_mut().enumerate() {
                let weights = _mm256_loadu_si256(rows.as_ptr().add(r * stride + at).cast());
                let (w_even, w_odd) = widen(weights);
                let products =
                    _mm256_add_epi32(_mm256_madd_epi16(even, w_even), _mm256_madd_epi16(odd, w_odd));
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
    }
    sums.map(|sum| horizontal(sum))
}

/// Even and odd bytes, sign-extended to 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(weights: __m256i) -> (__m256i, __m256i) {
    (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights)), _mm256_srai_epi16::<8>(weights))
}

#[inline]
#[target_feature(enable = "avx2")]
fn horizontal(sum: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let pair = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b00_00_00_01>(pair)))
}
