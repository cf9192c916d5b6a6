//! Int8 matrix times vectors of words split into byte planes: the body half, and clear int8 inference.
//!
//! A word `v < 2^(8P)` is the sum of its bytes `v_p 2^(8p)`, so `sum_i w_i v_i = sum_p 2^(8p) sum_i w_i v_(p,i)`:
//! `P` products of u8 by i8, summed in 32 bits, then recombined in 64. A 40-bit body takes five planes, a word body four
//! (only the sum modulo `2^32` counts then); one plane is the product of clear int8 inference, which the yardstick
//! `clear_int8` times.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_panel;
mod scalar;

use std::ops::Range;

use rayon::prelude::*;

use super::{AlignedBytes, Isa, LINE_BYTES, MAX_COLUMNS, PackedWeights};

/// Maximum planes of a word.
pub const MAX_PLANES: usize = 8;

/// Planes of a 40-bit body.
pub const BODY_PLANES: usize = 5;

/// Planes of a 32-bit word body, whose sums wrap modulo `2^32`.
pub const WORD_PLANES: usize = 4;

/// A thread takes at least this many bytes of weights: below, handing out work costs more than it gains.
const MIN_TASK_BYTES: usize = 1024 * 1024;

/// From this many tokens on, per-token work other than the product is done on all cores.
pub(crate) const PARALLEL_TOKENS: usize = 16;

/// Rows of a task are a multiple of this, so that no kernel's tile is cut short but the last.
const TASK_ROWS: usize = 32;

/// Rows handed to the vector kernels together while the tokens pass: they stay in the second-level cache.
const ROW_GROUP_BYTES: usize = 256 * 1024;

/// The byte planes of `tokens` vectors, `[tokens, stride / 64, planes, 64]` u8, zero-padded like [`PackedWeights`].
///
/// The planes are interleaved by cache lines so that a product reads one stream: planes apart by a multiple of 4096
/// bytes would compete with the rows for the same set of the first-level cache.
pub struct Planes {
    cols: usize,
    planes: usize,
    tokens: usize,
    stride: usize,
    data: AlignedBytes,
}

impl Planes {
    /// Planes of `tokens` zero vectors of length `cols`, to be filled by [`Planes::set_token`].
    ///
    /// # Panics
    /// If `cols` is not in `1..=MAX_COLUMNS` or `planes` not in `1..=8`.
    pub fn zeroed(cols: usize, planes: usize, tokens: usize) -> Self {
        assert!((1..=MAX_COLUMNS).contains(&cols), "columns: expected 1..={MAX_COLUMNS}, got {cols}");
        assert!((1..=MAX_PLANES).contains(&planes), "planes: expected 1..={MAX_PLANES}, got {planes}");
        let stride = cols.next_multiple_of(LINE_BYTES);
        Self { cols, planes, tokens, stride, data: AlignedBytes::zeroed(tokens * planes * stride) }
    }

    /// The planes of one vector of words; bits from `8 * planes` up are dropped.
    ///
    /// # Panics
    /// As [`Planes::zeroed`] with `cols = words.len()`.
    pub fn from_words(words: &[u64], planes: usize) -> Self {
        let mut all = Self::zeroed(words.len(), planes, 1);
        all.set_token(0, words);
        all
    }

    /// The planes of several vectors of one length; of many on the current rayon pool.
    ///
    /// # Panics
    /// As [`Planes::zeroed`], if there is no vector, or if their lengths differ.
    pub fn from_tokens<T: Word, W: AsRef<[T]> + Sync>(tokens: &[W], planes: usize) -> Self {
        let cols = tokens.first().map_or(0, |words| words.as_ref().len());
        let mut all = Self::zeroed(cols, planes, tokens.len());
        let size = planes * all.stride;
        let fill = |(data, words): (&mut [u8], &W)| fill_planes(data, planes, cols, words.as_ref());
        if tokens.len() < PARALLEL_TOKENS {
            all.data.chunks_exact_mut(size).zip(tokens).for_each(fill);
        } else {
            all.data.par_chunks_exact_mut(size).zip(tokens).for_each(fill);
        }
        all
    }

    /// Overwrites the vector of `token`.
    ///
    /// # Panics
    /// If `token` is out of range or `words.len() != cols`.
    pub fn set_token(&mut self, token: usize, words: &[u64]) {
        assert!(token < self.tokens, "token: expected below {}, got {token}", self.tokens);
        let size = self.planes * self.stride;
        fill_planes(&mut self.data[token * size..(token + 1) * size], self.planes, self.cols, words);
    }

    /// Length of a vector, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Planes per vector.
    pub fn planes(&self) -> usize {
        self.planes
    }

    /// Number of vectors.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// `[stride / 64, planes, 64]` of one token.
    fn token(&self, token: usize) -> &[u8] {
        let size = self.planes * self.stride;
        &self.data[token * size..(token + 1) * size]
    }
}

/// What is taken apart into byte planes: `u64`, or `u32` for bodies of 32-bit words.
pub trait Word: Copy + Sync {
    /// Byte `p`, counted from the lowest.
    fn byte(self, p: usize) -> u8;
}

impl Word for u64 {
    #[inline(always)]
    fn byte(self, p: usize) -> u8 {
        (self >> (8 * p)) as u8
    }
}

impl Word for u32 {
    #[inline(always)]
    fn byte(self, p: usize) -> u8 {
        (u64::from(self) >> (8 * p)) as u8
    }
}

/// Overwrites the planes of one vector, `[stride / 64, planes, 64]`.
///
/// # Panics
/// If `words.len() != cols`.
fn fill_planes<T: Word>(data: &mut [u8], planes: usize, cols: usize, words: &[T]) {
    assert_eq!(words.len(), cols, "words of a token");
    for (group, words) in data.chunks_exact_mut(planes * LINE_BYTES).zip(words.chunks(LINE_BYTES)) {
        for (p, line) in group.chunks_exact_mut(LINE_BYTES).enumerate() {
            for (byte, word) in line.iter_mut().zip(words) {
                *byte = word.byte(p);
            }
        }
    }
}

/// `out[r] = sum_i weights[rows.start + r][i] * v[i]`, exact modulo `2^64`, for one token.
///
/// # Panics
/// As [`gemm`], or if `planes` holds more than one token.
pub fn gemv(isa: Isa, weights: &PackedWeights, rows: Range<usize>, planes: &Planes, out: &mut [i64]) {
    assert_eq!(planes.tokens(), 1, "tokens of a matrix-vector product");
    gemm(isa, weights, rows, planes, out);
}

/// `out[r][t] = sum_i weights[rows.start + r][i] * v_t[i]`, exact modulo `2^64` (for words below `2^40`: exact).
///
/// `out`: `[rows.len(), tokens]` row-major. On one thread.
///
/// # Panics
/// If the columns of `weights` and `planes` differ, `rows` is out of range, `out` has another length than
/// `rows.len() * tokens`, or this processor lacks `isa`.
pub fn gemm(isa: Isa, weights: &PackedWeights, rows: Range<usize>, planes: &Planes, out: &mut [i64]) {
    isa.assert_supported();
    assert_eq!(weights.cols(), planes.cols(), "columns of weights and planes");
    assert!(rows.start <= rows.end && rows.end <= weights.rows(), "rows {rows:?} of {}", weights.rows());
    assert_eq!(out.len(), rows.len() * planes.tokens(), "outputs");
    let (stride, tokens) = (weights.stride(), planes.tokens());
    if tokens == 0 {
        return;
    }
    let group = (ROW_GROUP_BYTES / stride).next_multiple_of(8);
    let packed = &weights.padded()[rows.start * stride..rows.end * stride];
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512Vnni && tokens >= avx512_panel::PANEL_TOKENS {
        return avx512_panel::product(packed, stride, planes, out);
    }
    for (rows, out) in packed.chunks(group * stride).zip(out.chunks_mut(group * tokens)) {
        for token in 0..tokens {
            let product = Product { stride, rows, planes: planes.token(token), tokens, token };
            match isa {
                Isa::Scalar => scalar::product(&product, out),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::product(&product, out),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni | Isa::Avx512 => avx512::product(&product, out),
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("checked by assert_supported"),
            }
        }
    }
}

/// [`gemm`] of all rows on the current rayon pool; small matrices stay on the calling thread.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_parallel(isa: Isa, weights: &PackedWeights, planes: &Planes, out: &mut [i64]) {
    let (rows, tokens) = (weights.rows(), planes.tokens());
    assert_eq!(out.len(), rows * tokens, "outputs");
    let threads = rayon::current_num_threads();
    let smallest = MIN_TASK_BYTES.div_ceil(weights.stride() * tokens.max(1));
    // Four tasks per thread even out threads that run at different speeds.
    let chunk = smallest.max(rows.div_ceil(4 * threads)).next_multiple_of(TASK_ROWS);
    if threads == 1 || chunk >= rows || tokens == 0 {
        return gemm(isa, weights, 0..rows, planes, out);
    }
    out.par_chunks_mut(chunk * tokens).enumerate().for_each(|(i, out)| {
        let first = i * chunk;
        gemm(isa, weights, first..first + out.len() / tokens, planes, out);
    });
}

/// How far ahead of a tile of rows its lines are prefetched, in the order in which they lie in memory: a tile takes its rows
/// side by side, an order that no prefetcher of the processor follows. All 30 layers of SmolLM2, word bodies, one core with
/// AVX-512: 9.1 ms with a prefetch in each row, 3.1 ms in order (3.0 ms when all is in cache).
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 8192;

/// One token against a group of rows; lengths are checked by [`gemm`].
struct Product<'a> {
    /// Bytes per row and per plane, a multiple of 64, at most [`MAX_COLUMNS`].
    stride: usize,
    /// `[rows, stride]`
    rows: &'a [i8],
    /// `[stride / 64, planes, 64]`
    planes: &'a [u8],
    /// Outputs per row, and which of them this token is.
    tokens: usize,
    token: usize,
}

/// Adds the 32-bit sum of plane `p` to an output.
#[inline(always)]
fn recombine(out: &mut i64, p: usize, sum: i32) {
    *out = out.wrapping_add(i64::from(sum) << (8 * p));
}
