//! AVX-512 VNNI form for many tokens: rows lie across the lanes of a vector, tokens and planes across vectors.
//!
//! A lane then holds the sum of one row, and nothing is summed across lanes: for rows of a few hundred bytes those
//! sums cost the single-token form more than the products themselves. Laying rows across lanes costs a pass over
//! them, which from [`PANEL_TOKENS`] tokens on is little.
//!
//! The functions name `avx512vl` though they need it nowhere: without it the compiler keeps every vector of which it ever
//! takes a half in the lower sixteen registers, and has no room for the sums.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor and the lengths")]

use std::arch::x86_64::*;

use super::{AlignedBytes, BODY_PLANES, LINE_BYTES, Planes, WORD_PLANES};
use crate::kernels::reduce52::{load8, store8};

/// Fewest tokens that pay for reordering the rows.
pub(super) const PANEL_TOKENS: usize = 4;

/// Lanes of a vector.
const LANES: usize = 16;

/// Rows of a panel: two vectors of 32-bit lanes.
pub(super) const PANEL_ROWS: usize = 2 * LANES;

/// Columns whose products one instruction adds to a lane.
const QUAD: usize = 4;

/// Overwrites `out`, `[rows, tokens]`; `rows`: `[rows, stride]`.
pub(super) fn product(rows: &[i8], stride: usize, planes: &Planes, out: &mut [i64]) {
    let mut panel = AlignedBytes::zeroed(PANEL_ROWS * stride);
    out.fill(0);
    for (rows, out) in rows.chunks(PANEL_ROWS * stride).zip(out.chunks_mut(PANEL_ROWS * planes.tokens())) {
        // SAFETY: the facade has called Isa::assert_supported.
        unsafe {
            fill(&mut panel, rows, stride);
            match planes.planes() {
                BODY_PLANES => all_tokens::<2, BODY_PLANES>(&panel, planes, 0, out),
                WORD_PLANES => all_tokens::<3, WORD_PLANES>(&panel, planes, 0, out),
                count => (0..count).for_each(|p| all_tokens::<8, 1>(&panel, planes, p, out)),
            }
        }
    }
}

/// Lays up to [`PANEL_ROWS`] rows across lanes, `[stride / 4, PANEL_ROWS, 4]`; rows that are missing are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn fill(panel: &mut [u8], rows: &[i8], stride: usize) {
    for (chunk, quads) in panel.chunks_exact_mut(PANEL_ROWS * LINE_BYTES).enumerate() {
        for half in 0..PANEL_ROWS / LANES {
            let lines = std::array::from_fn(|lane| {
                let at = (half * LANES + lane) * stride + chunk * LINE_BYTES;
                let line = rows.get(at..at + LINE_BYTES);
                line.map_or(_mm512_setzero_si512(), |line| load8(bytemuck::cast_slice(line)))
            });
            for (quad, lanes) in transposed(lines).into_iter().enumerate() {
                let to = &mut quads[quad * PANEL_ROWS * QUAD + half * LINE_BYTES..][..LINE_BYTES];
                store8(bytemuck::cast_slice_mut(to), lanes);
            }
        }
    }
}

/// Lane `i` of vector `k` becomes lane `k` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    // fours[g][k]: in quarter `l`, lane `4 l + k` of the four rows from `4 g` on.
    let fours: [[__m512i; 4]; 4] = std::array::from_fn(|g| {
        let [a, b, c, d] = std::array::from_fn(|i| rows[4 * g + i]);
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    });
    let mut columns = [_mm512_setzero_si512(); LANES];
    for k in 0..4 {
        let [a, b, c, d] = fours.map(|four| four[k]);
        let (even_ab, even_cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        let (odd_ab, odd_cd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        columns[k] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
        columns[4 + k] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
        columns[8 + k] = _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd);
        columns[12 + k] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
    }
    columns
}

/// Adds planes `first .. first + P` of every token, `T` tokens at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn all_tokens<const T: usize, const P: usize>(panel: &[u8], planes: &Planes, first: usize, out: &mut [i64]) {
    let tokens = planes.tokens();
    let whole = tokens / T * T;
    for token in (0..whole).step_by(T) {
        let lines: [&[u8]; T] = std::array::from_fn(|t| planes.token(token + t));
        let sums = tile::<T, P>(panel, lines, planes.planes(), first);
        (0..T).for_each(|t| add(&sums[t], first, token + t, tokens, out));
    }
    for token in whole..tokens {
        let [sums] = tile::<1, P>(panel, [planes.token(token)], planes.planes(), first);
        add(&sums, first, token, tokens, out);
    }
}

/// Sums of the panel's rows times `P` planes of `T` tokens, all in registers: `[T][P]`, two vectors of rows each.
///
/// `lines`: `[stride / 64, count, 64]` per token. A lane sums at most `MAX_COLUMNS` products: no overflow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const T: usize, const P: usize>(
    panel: &[u8],
    lines: [&[u8]; T],
    count: usize,
    first: usize,
) -> [[[__m512i; 2]; P]; T] {
    const QUADS: usize = LINE_BYTES / QUAD;
    let chunks = panel.len() / (PANEL_ROWS * LINE_BYTES);
    assert!(first + P <= count && lines.iter().all(|lines| lines.len() == chunks * count * LINE_BYTES));
    let mut sums = [[[_mm512_setzero_si512(); 2]; P]; T];
    for chunk in 0..chunks {
        for quad in 0..QUADS {
            // SAFETY: quad `chunk * QUADS + quad` of the panel's `chunks * QUADS`, each of `PANEL_ROWS * QUAD` bytes;
            // in the tokens, four bytes of lines `first .. first + P` of the chunk's `count`.
            unsafe {
                let weights = panel.as_ptr().add((chunk * QUADS + quad) * PANEL_ROWS * QUAD);
                let weights: [__m512i; 2] =
                    std::array::from_fn(|half| _mm512_loadu_si512(weights.add(half * LINE_BYTES).cast()));
                for (sums, lines) in sums.iter_mut().zip(lines) {
                    let at = lines.as_ptr().add((chunk * count + first) * LINE_BYTES + quad * QUAD);
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let bytes = at.add(p * LINE_BYTES).cast::<i32>().read_unaligned();
                        let bytes = _mm512_set1_epi32(bytes);
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = _mm512_dpbusd_epi32(*sum, bytes, weights);
                        }
                    }
                }
            }
        }
    }
    sums
}

/// Recombines the planes of one token and adds them to its outputs; `out`: at most [`PANEL_ROWS`] rows of `tokens`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add<const P: usize>(sums: &[[__m512i; 2]; P], first: usize, token: usize, tokens: usize, out: &mut [i64]) {
    let mut words = [_mm512_setzero_si512(); 4];
    for (p, halves) in sums.iter().enumerate() {
        let shift = _mm_cvtsi32_si128(8 * (first + p) as i32);
        for (words, half) in words.chunks_exact_mut(2).zip(halves) {
            let quarters = [_mm512_castsi512_si256(*half), _mm512_extracti64x4_epi64::<1>(*half)];
            for (word, quarter) in words.iter_mut().zip(quarters) {
                *word = _mm512_add_epi64(*word, _mm512_sll_epi64(_mm512_cvtepi32_epi64(quarter), shift));
            }
        }
    }
    let mut values = [0i64; PANEL_ROWS];
    for (values, word) in values.chunks_exact_mut(8).zip(words) {
        // SAFETY: eight words.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), word) };
    }
    for (out, value) in out.iter_mut().skip(token).step_by(tokens).zip(values) {
        *out = out.wrapping_add(value);
    }
}
