//! The transform in doubles, for AVX-512 without IFMA.
//!
//! Values are integers in doubles, between `-A q` and `A q` for a bound `A < 4` that is followed through the levels. A
//! factor `w` is a root of unity with `|w| <= q/2`: by [`crate::kernels::reduce_float`], a product is between `-1/2 - A/8`
//! and `1/2 + A/8` times `q`.
//!
//! # The bounds
//! Forward (Cooley and Tukey 1965), `(u, v) -> (u + w v, u - w v)`: `A` becomes `A + 1/2 + A/8`. The wide levels go in pairs,
//! of which the second first reduces `u` to `|u| <= q/2`: from `A <= 13/8` a pair leads to 2.33 and then to 1.30, and
//! the last three levels from there to 1.97, 2.72 and 3.56. Inverse (Gentleman and Sande 1966), `(u, v) -> (u + v, w (u - v))`:
//! `A` doubles unless the sum is reduced, which leaves `1/2 + 2A/8`. Of the first three levels, the first and the third
//! reduce: 0.75, 1.5, 0.88. A single wide level reduces; of a pair the second does, which takes `A < 1` to 2 and to less
//! than `1/2 + 4/8`. The last level multiplies its sums too, by `1/n`. Differences and sums stay below `4 q`.
#![allow(unsafe_code, reason = "AVX-512 intrinsics; the facade checks the processor")]

use std::arch::x86_64::*;
use std::array::from_fn;

use crate::arith::Modulus;
use crate::kernels::reduce_float::{FloatReducer, load_residues};
use crate::kernels::reduce52::{load8, store8};

/// Lanes of a vector.
const LANES: usize = 8;

/// Points that the last three levels work on together.
const TILE: usize = 2 * LANES;

/// Tiles whose butterflies are computed step by step together.
const TOGETHER: usize = 4;

/// Tiles that go through three levels before the next ones do, while the first-level cache has them.
const BLOCK: usize = 8;

/// The fewest points: a block of tiles.
const MIN_POINTS: usize = BLOCK * TILE;

/// Roots of unity of one direction. A node of the tree of levels is a pair of halves `len` apart.
struct Roots {
    /// For the levels with `len >= 8`, in the order of their use: a root per node.
    wide: Vec<f64>,
    /// For each tile: a root for each lane of the levels 4, 2 and 1, as [`LANE_POINTS`] arranges them.
    narrow: Vec<[[f64; LANES]; 3]>,
}

impl Roots {
    /// `wide`: the levels with `len >= 8` in the order of their use; `root(len, node)`.
    fn new<'a>(
        modulus: &Modulus,
        n: usize,
        wide: impl Iterator<Item = &'a usize>,
        root: impl Fn(usize, usize) -> u64,
    ) -> Self {
        let root = |len: usize, node: usize| balanced(modulus, root(len, node));
        let lanes = |tile: usize, level: usize, len: usize| {
            LANE_POINTS[level].map(|point| root(len, (tile * TILE + point) / (2 * len)))
        };
        Self {
            wide: wide
                .flat_map(|&len| (0..n / (2 * len)).map(move |node| (len, node)))
                .map(|(len, node)| root(len, node))
                .collect(),
            narrow: (0..n / TILE)
                .map(|tile| [lanes(tile, 0, 4), lanes(tile, 1, 2), lanes(tile, 2, 1)])
                .collect(),
        }
    }
}

/// The representative next to zero.
fn balanced(modulus: &Modulus, x: u64) -> f64 {
    modulus.centred(x) as f64
}

/// Tables of a transform in doubles.
pub(super) struct FloatNtt {
    n: usize,
    q: f64,
    forward: Roots,
    inverse: Roots,
    /// `1/n`.
    scale: f64,
    /// `1/n` times the root of the widest level.
    scaled_root: f64,
}

impl FloatNtt {
    /// From the evaluation points in the order of the output. `None` if they are not in the order of a tree of
    /// halves or too few.
    pub(super) fn new(modulus: &Modulus, points: &[u64]) -> Option<Self> {
        let n = points.len();
        if n < MIN_POINTS || !n.is_power_of_two() {
            return None;
        }
        // The left half of a node is taken modulo X^len - w, the right one modulo X^len + w.
        let root_at = |len: usize, point: usize| modulus.pow(points[point], len as u64);
        let root = |len: usize, node: usize| root_at(len, 2 * len * node);
        let lens: Vec<usize> = (0..n.ilog2()).rev().map(|log| 1 << log).collect();
        let is_tree = lens.iter().all(|&len| {
            (0..n / (2 * len))
                .all(|node| modulus.add(root(len, node), root_at(len, 2 * len * node + len)) == 0)
        });
        if !is_tree {
            return None;
        }
        // A transform exists, so `q` is prime.
        let invert = |x: u64| modulus.inv(x).expect("not zero modulo a prime");
        let scale = invert(n as u64);
        let wide: Vec<usize> = lens.into_iter().filter(|&len| len >= LANES).collect();
        Some(Self {
            n,
            q: modulus.q() as f64,
            forward: Roots::new(modulus, n, wide.iter(), root),
            inverse: Roots::new(modulus, n, wide.iter().rev(), |len, node| invert(root(len, node))),
            scale: balanced(modulus, scale),
            scaled_root: balanced(modulus, modulus.mul(scale, invert(root(n / 2, 0)))),
        })
    }

    pub(super) fn forward(&self, poly: &mut [u64]) {
        assert_eq!(poly.len(), self.n, "coefficients");
        // SAFETY: Ntt::new has called Isa::assert_supported for the set that names these features.
        unsafe { self.forward_levels(poly) }
    }

    pub(super) fn inverse(&self, poly: &mut [u64]) {
        assert_eq!(poly.len(), self.n, "values");
        // SAFETY: as in `forward`.
        unsafe { self.inverse_levels(poly) }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn forward_levels(&self, poly: &mut [u64]) {
        let levels = Levels { reducer: FloatReducer::new(self.q) };
        let roots = &mut &self.forward.wide[..];
        let mut len = self.n / 2;
        // The levels with `len >= 8` in pairs, after a single one if their number is odd.
        if self.wide_levels() % 2 == 1 {
            let root = _mm512_set1_pd(take(roots, 1)[0]);
            let (left, right) = poly.split_at_mut(len);
            for (left, right) in left.chunks_exact_mut(LANES).zip(right.chunks_exact_mut(LANES)) {
                let ([u], [v]) = levels.forward([load_residues(left)], [load_residues(right)], [root]);
                store(left, u);
                store(right, v);
            }
            len /= 2;
        } else {
            levels.forward_pair::<true>(poly, len, roots);
            len /= 4;
        }
        while len >= LANES {
            levels.forward_pair::<false>(poly, len, roots);
            len /= 4;
        }
        for (tiles, roots) in poly.chunks_exact_mut(BLOCK * TILE).zip(self.forward.narrow.chunks_exact(BLOCK))
        {
            levels.forward_narrow(tiles, roots);
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn inverse_levels(&self, poly: &mut [u64]) {
        let levels = Levels { reducer: FloatReducer::new(self.q) };
        for (tiles, roots) in poly.chunks_exact_mut(BLOCK * TILE).zip(self.inverse.narrow.chunks_exact(BLOCK))
        {
            levels.inverse_narrow(tiles, roots);
        }
        let roots = &mut &self.inverse.wide[..];
        let mut len = LANES;
        if self.wide_levels() % 2 == 1 {
            for (node, &root) in poly.chunks_exact_mut(2 * len).zip(take(roots, self.n / (2 * len))) {
                let (left, right) = node.split_at_mut(len);
                let (u, [v]) = levels.inverse([load(left)], [load(right)], [_mm512_set1_pd(root)]);
                let [u] = levels.reducer.reduce(u);
                store(left, u);
                store(right, v);
            }
            len *= 2;
        }
        while len < self.n / 4 {
            levels.inverse_pair(poly, len, roots);
            len *= 4;
        }
        levels.inverse_last(poly, roots, self.scale, self.scaled_root);
    }

    /// Levels with `len >= 8`: at least two.
    fn wide_levels(&self) -> u32 {
        (self.n / LANES).ilog2()
    }
}

/// The first `count` roots, taken off.
fn take<'a>(roots: &mut &'a [f64], count: usize) -> &'a [f64] {
    let (first, rest) = roots.split_at(count);
    *roots = rest;
    first
}

/// The four quarters of a node in vectors, side by side.
fn quarters(node: &mut [u64]) -> impl Iterator<Item = [&mut [u64]; 4]> {
    let (left, right) = node.split_at_mut(node.len() / 2);
    let (a, b) = left.split_at_mut(left.len() / 2);
    let (c, d) = right.split_at_mut(right.len() / 2);
    let left = a.chunks_exact_mut(LANES).zip(b.chunks_exact_mut(LANES));
    let right = c.chunks_exact_mut(LANES).zip(d.chunks_exact_mut(LANES));
    left.zip(right).map(|((a, b), (c, d))| [a, b, c, d])
}

/// Butterflies modulo `q`.
struct Levels {
    reducer: FloatReducer,
}

impl Levels {
    /// `K` butterflies `(u + w v, u - w v)`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn forward<const K: usize>(
        &self,
        u: [__m512d; K],
        v: [__m512d; K],
        roots: [__m512d; K],
    ) -> ([__m512d; K], [__m512d; K]) {
        let v = self.reducer.multiply(v, roots);
        (from_fn(|i| _mm512_add_pd(u[i], v[i])), from_fn(|i| _mm512_sub_pd(u[i], v[i])))
    }

    /// `K` butterflies `(u + v, w (u - v))`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn inverse<const K: usize>(
        &self,
        u: [__m512d; K],
        v: [__m512d; K],
        roots: [__m512d; K],
    ) -> ([__m512d; K], [__m512d; K]) {
        let sums = from_fn(|i| _mm512_add_pd(u[i], v[i]));
        let differences = from_fn(|i| _mm512_sub_pd(u[i], v[i]));
        (sums, self.reducer.multiply(differences, roots))
    }

    /// The levels `len` and `len / 2` of all nodes, with their roots from the front of `roots`; the first levels of all
    /// find residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn forward_pair<const FIRST: bool>(&self, poly: &mut [u64], len: usize, roots: &mut &[f64]) {
        let load = |words: &[u64]| if FIRST { load_residues(words) } else { load(words) };
        let nodes = poly.len() / (2 * len);
        let (outer, inner) = (take(roots, nodes), take(roots, 2 * nodes));
        let nodes = poly.chunks_exact_mut(2 * len).zip(outer.iter().zip(inner.chunks_exact(2)));
        for (node, (&outer, inner)) in nodes {
            let outer = [_mm512_set1_pd(outer); 2];
            let inner = [_mm512_set1_pd(inner[0]), _mm512_set1_pd(inner[1])];
            for [a, b, c, d] in quarters(node) {
                let ([u0, u1], [v0, v1]) = self.forward([load(a), load(b)], [load(c), load(d)], outer);
                let ([a0, c0], [b0, d0]) = self.forward(self.reducer.reduce([u0, v0]), [u1, v1], inner);
                store(a, a0);
                store(b, b0);
                store(c, c0);
                store(d, d0);
            }
        }
    }

    /// The last three levels of a block of tiles, to residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn forward_narrow(&self, tiles: &mut [u64], roots: &[[[f64; LANES]; 3]]) {
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| part4(load(a), load(b)));
            let (u, v) = self.forward(u, v, from_fn(|i| lanes(&roots[i][0])));
            store_pairs(tiles, u, v);
        }
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| part2(load(a), load(b)));
            let (u, v) = self.forward(u, v, from_fn(|i| lanes(&roots[i][1])));
            store_pairs(tiles, u, v);
        }
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| unpack(load(a), load(b)));
            let (u, v) = self.forward(u, v, from_fn(|i| lanes(&roots[i][2])));
            let (u, v) = (self.reducer.reduce(u), self.reducer.reduce(v));
            for (i, tile) in tiles.chunks_exact_mut(TILE).enumerate() {
                let (first, second) = join1(u[i], v[i]);
                store8(tile, self.reducer.residue(first));
                store8(&mut tile[LANES..], self.reducer.residue(second));
            }
        }
    }

    /// The first three levels of a block of tiles of residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn inverse_narrow(&self, tiles: &mut [u64], roots: &[[[f64; LANES]; 3]]) {
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| part1(load_residues(a), load_residues(b)));
            let (u, v) = self.inverse(u, v, from_fn(|i| lanes(&roots[i][2])));
            store_pairs(tiles, self.reducer.reduce(u), v);
        }
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| unpack(load(a), load(b)));
            let (u, v) = self.inverse(u, v, from_fn(|i| lanes(&roots[i][1])));
            store_pairs(tiles, u, v);
        }
        for (tiles, roots) in tiles.chunks_exact_mut(TOGETHER * TILE).zip(roots.chunks_exact(TOGETHER)) {
            let (u, v) = load_pairs(tiles, |a, b| join2(load(a), load(b)));
            let (u, v) = self.inverse(u, v, from_fn(|i| lanes(&roots[i][0])));
            let u = self.reducer.reduce(u);
            for (i, tile) in tiles.chunks_exact_mut(TILE).enumerate() {
                let (first, second) = part4(u[i], v[i]);
                store(tile, first);
                store(&mut tile[LANES..], second);
            }
        }
    }

    /// The levels `len` and `2 len` of all nodes, with their roots from the front of `roots`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn inverse_pair(&self, poly: &mut [u64], len: usize, roots: &mut &[f64]) {
        let nodes = poly.len() / (4 * len);
        let (inner, outer) = (take(roots, 2 * nodes), take(roots, nodes));
        let nodes = poly.chunks_exact_mut(4 * len).zip(outer.iter().zip(inner.chunks_exact(2)));
        for (node, (&outer, inner)) in nodes {
            let outer = [_mm512_set1_pd(outer); 2];
            let inner = [_mm512_set1_pd(inner[0]), _mm512_set1_pd(inner[1])];
            for [a, b, c, d] in quarters(node) {
                let ([u0, v0], [u1, v1]) = self.inverse([load(a), load(c)], [load(b), load(d)], inner);
                let (u, [c0, d0]) = self.inverse([u0, u1], [v0, v1], outer);
                let [a0, b0] = self.reducer.reduce(u);
                store(a, a0);
                store(b, b0);
                store(c, c0);
                store(d, d0);
            }
        }
    }

    /// The two widest levels, scaled, to residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn inverse_last(&self, poly: &mut [u64], roots: &[f64], scale: f64, scaled_root: f64) {
        let inner = [_mm512_set1_pd(roots[0]), _mm512_set1_pd(roots[1])];
        let (scale, root) = (_mm512_set1_pd(scale), _mm512_set1_pd(scaled_root));
        for [a, b, c, d] in quarters(poly) {
            let ([u0, v0], [u1, v1]) = self.inverse([load(a), load(c)], [load(b), load(d)], inner);
            let sums = [_mm512_add_pd(u0, v0), _mm512_add_pd(u1, v1)];
            let differences = [_mm512_sub_pd(u0, v0), _mm512_sub_pd(u1, v1)];
            let [left0, left1] = self.reducer.multiply(sums, [scale; 2]);
            let [right0, right1] = self.reducer.multiply(differences, [root; 2]);
            for (out, value) in [(a, left0), (b, left1), (c, right0), (d, right1)] {
                store8(out, self.reducer.residue(value));
            }
        }
    }
}

/// Points of a tile in the lanes of the left vector at the levels 4, 2 and 1; the right one holds those 4, 2 and 1
/// further.
const LANE_POINTS: [[usize; LANES]; 3] =
    [[0, 1, 2, 3, 8, 9, 10, 11], [0, 1, 8, 9, 4, 5, 12, 13], [0, 2, 8, 10, 4, 6, 12, 14]];

/// From two vectors in order to those of level 4, and back.
#[inline]
#[target_feature(enable = "avx512f")]
fn part4(a: __m512d, b: __m512d) -> (__m512d, __m512d) {
    (_mm512_shuffle_f64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_f64x2::<0b11_10_11_10>(a, b))
}

/// From the vectors of level 4 to those of level 2.
#[inline]
#[target_feature(enable = "avx512f")]
fn part2(u: __m512d, v: __m512d) -> (__m512d, __m512d) {
    (_mm512_shuffle_f64x2::<0b10_00_10_00>(u, v), _mm512_shuffle_f64x2::<0b11_01_11_01>(u, v))
}

/// From the vectors of level 2 to those of level 4.
#[inline]
#[target_feature(enable = "avx512f")]
fn join2(u: __m512d, v: __m512d) -> (__m512d, __m512d) {
    let left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let right = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    (_mm512_permutex2var_pd(u, left, v), _mm512_permutex2var_pd(u, right, v))
}

/// From the vectors of level 1 to two in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn join1(u: __m512d, v: __m512d) -> (__m512d, __m512d) {
    let first = _mm512_setr_epi64(0, 8, 1, 9, 4, 12, 5, 13);
    let second = _mm512_setr_epi64(2, 10, 3, 11, 6, 14, 7, 15);
    (_mm512_permutex2var_pd(u, first, v), _mm512_permutex2var_pd(u, second, v))
}

/// From the vectors of level 2 to those of level 1, and back.
#[inline]
#[target_feature(enable = "avx512f")]
fn unpack(u: __m512d, v: __m512d) -> (__m512d, __m512d) {
    (_mm512_unpacklo_pd(u, v), _mm512_unpackhi_pd(u, v))
}

/// From two vectors in order to those of level 1.
#[inline]
#[target_feature(enable = "avx512f")]
fn part1(a: __m512d, b: __m512d) -> (__m512d, __m512d) {
    let left = _mm512_setr_epi64(0, 2, 8, 10, 4, 6, 12, 14);
    let right = _mm512_setr_epi64(1, 3, 9, 11, 5, 7, 13, 15);
    (_mm512_permutex2var_pd(a, left, b), _mm512_permutex2var_pd(a, right, b))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(values: &[f64; LANES]) -> __m512d {
    // SAFETY: the reference covers the 64 bytes that the unaligned load reads.
    unsafe { _mm512_loadu_pd(values.as_ptr()) }
}

/// The two vectors of each of the tiles, as `arrange` puts them.
#[inline(always)]
fn load_pairs(
    tiles: &[u64],
    arrange: impl Fn(&[u64], &[u64]) -> (__m512d, __m512d),
) -> ([__m512d; TOGETHER], [__m512d; TOGETHER]) {
    let pairs: [_; TOGETHER] = from_fn(|i| {
        let (a, b) = tiles[i * TILE..(i + 1) * TILE].split_at(LANES);
        arrange(a, b)
    });
    (pairs.map(|(u, _)| u), pairs.map(|(_, v)| v))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_pairs(tiles: &mut [u64], u: [__m512d; TOGETHER], v: [__m512d; TOGETHER]) {
    for (i, tile) in tiles.chunks_exact_mut(TILE).enumerate() {
        store(tile, u[i]);
        store(&mut tile[LANES..], v[i]);
    }
}

/// Eight doubles that [`store`] left in words.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u64]) -> __m512d {
    _mm512_castsi512_pd(load8(words))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u64], values: __m512d) {
    store8(words, _mm512_castpd_si512(values));
}
