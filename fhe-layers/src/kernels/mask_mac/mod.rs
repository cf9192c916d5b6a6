//! The mask half's dot product of prepared digits with a rotated key, in the NTT domain.
//!
//! # Orbit order
//! The automorphism `sigma` permutes the `n` evaluation points in `tau` orbits of `phi = n / tau` points. Number the
//! orbits `o` and the points of one orbit by the power `e` of `sigma` that leads to them from its first point:
//! `sigma^j(f)` at `(e, o)` is `f` at `((e + j) mod phi, o)`. *Orbit order* stores `(e, o)` at word
//! [`MacShape::position`]` = (floor(o/8) phi + e) 8 + o mod 8`: eight orbits make the lanes of a vector, and a
//! rotation moves whole lines. With [`MacShape`] built, callers only permute polynomials into and out of this order.
//!
//! # What is computed
//! For digit polynomials `d[j][l]`, `j` in `0..phi-1`, `l` in `0..levels` (the terms, `l` fastest), and key polynomials
//! `k[l]`: `out = sum_j sum_l d[j][l] * sigma^j(k[l]) mod q`, pointwise. A table block stores, for each line of eight
//! points in orbit order, the lines of all terms one after the other, and is streamed once from front to back.

/// A `mask_mac` that calls `batches::<K>` for `K` keys.
#[cfg(target_arch = "x86_64")]
macro_rules! by_batches {
    () => {
        pub(super) fn mask_mac(
            shape: &MacShape,
            table: &[u64],
            keys: &[&MacKey],
            modulus: &Modulus,
            outs: &mut [&mut [u64]],
        ) {
            // SAFETY: the facade has called Isa::assert_supported.
            unsafe {
                match keys.len() {
                    1 => batches::<1>(shape, table, keys, modulus, outs),
                    2 => batches::<2>(shape, table, keys, modulus, outs),
                    3 => batches::<3>(shape, table, keys, modulus, outs),
                    _ => batches::<4>(shape, table, keys, modulus, outs),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_float;
mod scalar;

use super::{AlignedWords, Isa};
use crate::arith::{MODULUS_BITS, Modulus};

/// Words of a line: the lanes of the widest vector.
pub const LINE_WORDS: usize = 8;

/// Batches that share one pass over a table.
pub const MAX_BATCHES: usize = 4;

/// The most terms of a dot product: what keeps its unreduced sums in range.
pub const MAX_TERMS: usize = 4096;

/// Bits of the halves whose products are summed without IFMA.
const HALF_BITS: u32 = MODULUS_BITS / 2;

/// Sums of such products: outer low, middle, outer high.
const HALF_SUMS: usize = 3;

/// Lines of the table ahead of the one in use that AVX-512 asks for; they come from memory, once.
#[cfg(target_arch = "x86_64")]
const PREFETCH_LINES: usize = 32;

// AVX-512: 52-bit halves of products, summed in 64 bits.
const _: () = assert!((MAX_TERMS as u128) << 52 <= 1 << 64);
// AVX2: products of 25-bit halves, the two middle ones in one 64-bit sum.
const _: () = assert!(MODULUS_BITS == 50 && (2 * MAX_TERMS as u128) << 50 <= 1 << 64);

/// Shape of a mask block: ring degree, orbits and gadget levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacShape {
    n: usize,
    tau: usize,
    levels: usize,
}

impl MacShape {
    /// Ring degree `n`, `tau` orbits, `levels` digits per automorphism.
    ///
    /// # Panics
    /// Unless `tau` is a multiple of 8 that divides `n`, `n / tau >= 2`, and `1 <= terms <= MAX_TERMS`.
    pub fn new(n: usize, tau: usize, levels: usize) -> Self {
        assert!(tau > 0 && tau.is_multiple_of(LINE_WORDS), "tau: expected a multiple of 8, got {tau}");
        assert!(
            n.is_multiple_of(tau) && n / tau >= 2,
            "n: expected a multiple of tau = {tau} above it, got {n}"
        );
        let shape = Self { n, tau, levels };
        let terms = shape.terms();
        assert!((1..=MAX_TERMS).contains(&terms), "terms: expected 1..={MAX_TERMS}, got {terms}");
        shape
    }

    /// Ring degree.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Orbits.
    pub fn tau(&self) -> usize {
        self.tau
    }

    /// Points of an orbit.
    pub fn phi(&self) -> usize {
        self.n / self.tau
    }

    /// Digits per automorphism.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Products per output: `levels * (phi - 1)`.
    pub fn terms(&self) -> usize {
        self.levels * (self.phi() - 1)
    }

    /// Words of a table block: `n * terms`.
    pub fn table_words(&self) -> usize {
        self.n * self.terms()
    }

    /// Where orbit order stores the `e`-th point of orbit `o`.
    ///
    /// # Panics
    /// If `e >= phi` or `o >= tau`.
    pub fn position(&self, e: usize, o: usize) -> usize {
        assert!(e < self.phi() && o < self.tau, "point ({e}, {o}) of {} x {}", self.phi(), self.tau);
        (o / LINE_WORDS * self.phi() + e) * LINE_WORDS + o % LINE_WORDS
    }

    /// Puts the digit polynomial of rotation `j` and `level`, in orbit order, into a table block.
    ///
    /// # Panics
    /// If `block.len() != n * terms`, `poly.len() != n`, or `j`, `level` are out of range.
    pub fn store_term(&self, block: &mut [u64], j: usize, level: usize, poly: &[u64]) {
        assert_eq!(block.len(), self.table_words(), "words of a table block");
        assert_eq!(poly.len(), self.n, "words of a polynomial");
        let term = self.term(j, level);
        let chunks = block.chunks_exact_mut(self.terms() * LINE_WORDS);
        for (lines, line) in chunks.zip(poly.chunks_exact(LINE_WORDS)) {
            lines[term * LINE_WORDS..][..LINE_WORDS].copy_from_slice(line);
        }
    }

    /// Reads back what [`MacShape::store_term`] put in.
    ///
    /// # Panics
    /// As [`MacShape::store_term`].
    pub fn load_term(&self, block: &[u64], j: usize, level: usize, poly: &mut [u64]) {
        assert_eq!(block.len(), self.table_words(), "words of a table block");
        assert_eq!(poly.len(), self.n, "words of a polynomial");
        let term = self.term(j, level);
        let chunks = block.chunks_exact(self.terms() * LINE_WORDS);
        for (lines, line) in chunks.zip(poly.chunks_exact_mut(LINE_WORDS)) {
            line.copy_from_slice(&lines[term * LINE_WORDS..][..LINE_WORDS]);
        }
    }

    fn term(&self, j: usize, level: usize) -> usize {
        assert!(
            j + 1 < self.phi() && level < self.levels,
            "term ({j}, {level}) of {} rotations",
            self.phi() - 1
        );
        j * self.levels + level
    }
}

/// The key polynomials of one batch in the order that the kernels read:
/// `[tau/8][phi][levels][8]`, so that consecutive terms are consecutive lines.
pub struct MacKey {
    shape: MacShape,
    words: AlignedWords,
}

impl MacKey {
    /// Interleaves `levels` key polynomials, each `[n]` in orbit order with values in `[0, q)`.
    ///
    /// # Panics
    /// If there are not `levels` polynomials of `n` words.
    pub fn new<P: AsRef<[u64]>>(shape: MacShape, polys: &[P]) -> Self {
        assert_eq!(polys.len(), shape.levels, "key polynomials");
        let mut words = AlignedWords::zeroed(shape.n * shape.levels);
        for (level, poly) in polys.iter().enumerate() {
            assert_eq!(poly.as_ref().len(), shape.n, "words of a key polynomial");
            let rows = words.chunks_exact_mut(shape.levels * LINE_WORDS);
            for (row, line) in rows.zip(poly.as_ref().chunks_exact(LINE_WORDS)) {
                row[level * LINE_WORDS..][..LINE_WORDS].copy_from_slice(line);
            }
        }
        Self { shape, words }
    }

    /// The shape it was built for.
    pub fn shape(&self) -> MacShape {
        self.shape
    }
}

/// `outs[b] = sum_j sum_l d[j][l] * sigma^j(keys[b][l]) mod q` for up to four batches `b` in one pass over the table.
///
/// `table`: a block filled by [`MacShape::store_term`], values in `[0, q)`. `outs[b]`: `[n]` in orbit order,
/// overwritten. A value that is not below `q` gives a wrong result, never an unsound one.
///
/// # Panics
/// If there are no or more than [`MAX_BATCHES`] keys, another number of outputs, shapes or lengths disagree, or this
/// processor lacks `isa`.
pub fn mask_mac(isa: Isa, table: &[u64], keys: &[&MacKey], modulus: &Modulus, outs: &mut [&mut [u64]]) {
    isa.assert_supported();
    let batches = keys.len();
    assert!((1..=MAX_BATCHES).contains(&batches), "batches: expected 1..={MAX_BATCHES}, got {batches}");
    assert_eq!(outs.len(), batches, "outputs");
    let shape = keys[0].shape;
    assert!(keys.iter().all(|key| key.shape == shape), "keys of different shapes");
    assert_eq!(table.len(), shape.table_words(), "words of a table block");
    assert!(outs.iter().all(|out| out.len() == shape.n), "outputs: expected {} words each", shape.n);
    match isa {
        Isa::Scalar => scalar::mask_mac(&shape, table, keys, modulus, outs),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::mask_mac(&shape, table, keys, modulus, outs),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512_float::mask_mac(&shape, table, keys, modulus, outs),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::mask_mac(&shape, table, keys, modulus, outs),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("checked by assert_supported"),
    }
}

/// Unreduced sums of one batch, for tables whose digits are transformed as they are used.
///
/// Holds what [`mask_mac`] keeps in registers; the meaning of the words belongs to the instruction set.
pub struct MacAccumulator {
    isa: Isa,
    shape: MacShape,
    terms: usize,
    /// `[n/8][parts][8]`
    words: AlignedWords,
}

/// Words per point: with IFMA and scalar two, else three.
fn parts(isa: Isa) -> usize {
    if matches!(isa, Isa::Avx2 | Isa::Avx512Vnni) { HALF_SUMS } else { 2 }
}

impl MacAccumulator {
    /// A sum of zero terms.
    pub fn new(isa: Isa, shape: MacShape) -> Self {
        Self { isa, shape, terms: 0, words: AlignedWords::zeroed(shape.n * parts(isa)) }
    }

    /// Back to a sum of zero terms.
    pub fn clear(&mut self) {
        self.terms = 0;
        self.words.fill(0);
    }

    /// `self += digits * sigma^j(key[level])`; `digits`: `[n]` in orbit order, values in `[0, q)`.
    ///
    /// # Panics
    /// If shapes or lengths disagree, `j >= phi` or `level >= levels`, [`MAX_TERMS`] terms were added already, or this
    /// processor lacks the accumulator's instruction set.
    pub fn add(&mut self, digits: &[u64], key: &MacKey, j: usize, level: usize) {
        self.isa.assert_supported();
        let shape = self.shape;
        assert_eq!(key.shape, shape, "shape of the key");
        assert_eq!(digits.len(), shape.n, "words of a polynomial");
        assert!(j < shape.phi() && level < shape.levels, "term ({j}, {level})");
        assert!(self.terms < MAX_TERMS, "terms: expected at most {MAX_TERMS}");
        self.terms += 1;
        let term = Term { shape, digits, key: &key.words, j, level };
        match self.isa {
            Isa::Scalar => scalar::accumulate(&term, &mut self.words),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::accumulate(&term, &mut self.words),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512_float::accumulate(&term, &mut self.words),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::accumulate(&term, &mut self.words),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked by assert_supported"),
        }
    }

    /// The sum modulo `q`, `[n]` in orbit order, overwriting `out`.
    ///
    /// # Panics
    /// If `out.len() != n`.
    pub fn reduce(&self, modulus: &Modulus, out: &mut [u64]) {
        self.isa.assert_supported();
        assert_eq!(out.len(), self.shape.n, "outputs");
        match self.isa {
            Isa::Scalar => scalar::reduce(&self.words, modulus, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::reduce(&self.words, modulus, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512_float::reduce(&self.words, modulus, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::reduce(&self.words, modulus, out),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked by assert_supported"),
        }
    }
}

/// Checked operands of one accumulation.
struct Term<'a> {
    shape: MacShape,
    /// `[n]`
    digits: &'a [u64],
    /// `[tau/8][phi][levels][8]`
    key: &'a [u64],
    j: usize,
    level: usize,
}

/// For line `chunk` of the output: the two runs of table lines, as `(first term, first key line, terms)`, whose key
/// lines are consecutive. The rotation wraps at the end of the orbits' `phi` rows.
#[inline(always)]
fn runs(shape: &MacShape, chunk: usize) -> [(usize, usize, usize); 2] {
    let (phi, levels) = (shape.phi(), shape.levels);
    let (column, e) = (chunk / phi, chunk % phi);
    let first_line = column * phi * levels;
    let before = (phi - e).min(phi - 1) * levels;
    [(0, first_line + e * levels, before), (before, first_line, shape.terms() - before)]
}

/// Lines of the key that a rotation by `j` reads, line after line of the output.
#[inline(always)]
fn rotated_lines(term: &Term<'_>) -> impl Iterator<Item = usize> {
    let (phi, levels) = (term.shape.phi(), term.shape.levels);
    let (mut column, mut row) = (0, term.j);
    let mut left = phi;
    std::iter::from_fn(move || {
        if left == 0 {
            (column, row, left) = (column + phi, term.j, phi);
        }
        let line = (column + row) * levels + term.level;
        left -= 1;
        row = if row + 1 == phi { 0 } else { row + 1 };
        Some(line)
    })
}
