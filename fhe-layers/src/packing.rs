//! The packing chain of one mask block, from the rows' hints down to digits and final mask.
//!
//! `phi` rows `H_r` become `F_j = sum_r X^r sigma^j(H_r)`, `j` in `0..phi`. In orbit order the points of one orbit are
//! `x_(e,o) = x_(0,o) W^m(e,o)` with `W` a primitive `phi`-th root of unity, so for every point `(e', o)` the values
//! `F_j` at `(e' - j, o)` are a discrete Fourier transform of size `phi` of `x_(0,o)^r H_r(e', o)`: `phi log phi` products
//! instead of `phi^2`. Then the chain is collapsed from the top: `a <- F_(phi-1)`; for `j = phi-1 .. 1`:
//! `d_j = digits(a)`, `a <- F_(j-1) - sum_i d_(j,i) sigma^(j-1)(ka_i)`. What `d_j` rounds away, `rho_j`, is known here, and
//! so is the mean of the error that it causes: `1/2 sum_j rho_j sigma^j(1 + X + ...)`, see [`crate::server::digits::FoldStep`].

use crate::kernels::mask_mac::{LINE_WORDS, MacAccumulator, MacKey};
use crate::kernels::pointwise::{self, Gadget};
use crate::ring::Ring;
use crate::server::digits::FoldStep;

/// Constants of the packing transform of one ring.
pub(crate) struct Packing {
    gadget: Gadget,
    /// `x_(0,o)^r` for every point `(e, o)` in orbit order, `[phi][n]`.
    twists: Vec<u64>,
    /// `W^k` repeated over `n` words for the butterflies, `[phi/2][n]`.
    roots: Vec<u64>,
    /// For point `p = (e, o)` of `F_j`: `m(e, o)`, `[n]`.
    outputs: Vec<u32>,
    /// `1 + X + ... + X^(n-1)` in orbit order, `[n]`.
    all_ones: Vec<u64>,
    /// `2^(drop + base_log i)` in every word, `[levels][n]`.
    factors: Vec<Vec<u64>>,
    fold_step: FoldStep,
}

/// Buffers of one thread.
pub(crate) struct PackingScratch {
    rows: Vec<u64>,
    sums: Vec<u64>,
    natural: Vec<u64>,
    digits: Vec<i32>,
    product: Vec<u64>,
    /// What a rotation rounded away, and the all-ones polynomial rotated, in orbit order.
    rounded_away: Vec<u64>,
    rotated_ones: Vec<u64>,
    /// Twice the fold, in orbit order.
    fold: Vec<u64>,
    accumulator: MacAccumulator,
}

impl Packing {
    /// Tables for `ring` and `gadget`.
    pub(crate) fn new(ring: &Ring, gadget: Gadget) -> Self {
        let (shape, modulus, n) = (ring.shape(), ring.modulus(), ring.n());
        let phi = shape.phi();
        let mut twists = vec![1; phi * n];
        let mut outputs = vec![0; n];
        for o in 0..shape.tau() {
            let first = ring.points()[shape.position(0, o)];
            for e in 0..phi {
                let p = shape.position(e, o);
                outputs[p] = ring.twiddle_exponent(e, o) as u32;
                for r in 1..phi {
                    twists[r * n + p] = modulus.mul(twists[(r - 1) * n + p], first);
                }
            }
        }
        let root = ring.packing_root();
        let mut roots = Vec::with_capacity(phi / 2 * n);
        for k in 0..phi / 2 {
            roots.extend(std::iter::repeat_n(modulus.pow(root, k as u64), n));
        }
        let mut natural = vec![1; n];
        ring.forward(&mut natural);
        let mut all_ones = vec![0; n];
        ring.enter_orbit(&natural, &mut all_ones);
        let factor = |level| 1u64 << (gadget.drop_bits() + gadget.base_log() * level as u32);
        let factors = (0..gadget.levels()).map(|level| vec![factor(level); n]).collect();
        let fold_step = FoldStep::new(gadget.drop_bits());
        Self { gadget, twists, roots, outputs, all_ones, factors, fold_step }
    }

    /// Buffers for [`Packing::block`].
    pub(crate) fn scratch(&self, ring: &Ring) -> PackingScratch {
        let (n, phi) = (ring.n(), ring.shape().phi());
        PackingScratch {
            rows: vec![0; phi * n],
            sums: vec![0; phi * n],
            natural: vec![0; n],
            digits: vec![0; ring.shape().levels() * n],
            product: vec![0; n],
            rounded_away: vec![0; n],
            rotated_ones: vec![0; n],
            fold: vec![0; n],
            accumulator: MacAccumulator::new(ring.isa(), ring.shape()),
        }
    }

    /// `F_j` for all `j` into `scratch.sums`, `[phi][n]`; `hints`: the `phi` rows in orbit order, `[phi][n]`.
    fn sums(&self, ring: &Ring, hints: &[u64], scratch: &mut PackingScratch) {
        let (isa, modulus, n, phi) = (ring.isa(), ring.modulus(), ring.n(), ring.shape().phi());
        let bits = phi.trailing_zeros();
        for r in 0..phi {
            let to = r.reverse_bits() >> (usize::BITS - bits);
            let out = &mut scratch.rows[to * n..(to + 1) * n];
            pointwise::mul(isa, modulus, &hints[r * n..(r + 1) * n], &self.twists[r * n..(r + 1) * n], out);
        }
        let mut half = 1;
        while half < phi {
            for start in (0..phi).step_by(2 * half) {
                for k in 0..half {
                    let (low, high) = scratch.rows.split_at_mut((start + k + half) * n);
                    let low = &mut low[(start + k) * n..(start + k + 1) * n];
                    let high = &mut high[..n];
                    if k > 0 {
                        let root = &self.roots[k * (phi / 2 / half) * n..][..n];
                        pointwise::mul(isa, modulus, high, root, &mut scratch.product);
                    } else {
                        scratch.product.copy_from_slice(high);
                    }
                    high.copy_from_slice(low);
                    pointwise::sub_assign(isa, modulus, high, &scratch.product);
                    pointwise::add_assign(isa, modulus, low, &scratch.product);
                }
            }
            half *= 2;
        }
        self.gather(n, phi, scratch);
    }

    /// `F_j(e, o) = G_(m(e,o))((e + j) mod phi, o)`.
    fn gather(&self, n: usize, phi: usize, scratch: &mut PackingScratch) {
        let words = phi * LINE_WORDS;
        for (j, sum) in scratch.sums.chunks_exact_mut(n).enumerate() {
            for (column, sum) in sum.chunks_exact_mut(words).enumerate() {
                for (e, line) in sum.chunks_exact_mut(LINE_WORDS).enumerate() {
                    let source = column * words + (e + j) % phi * LINE_WORDS;
                    let outputs = &self.outputs[column * words + e * LINE_WORDS..][..LINE_WORDS];
                    for (lane, (value, &m)) in line.iter_mut().zip(outputs).enumerate() {
                        *value = scratch.rows[m as usize * n + source + lane];
                    }
                }
            }
        }
    }

    /// Packs `phi` hints. `term(j, level, digits, transformed)` receives the digits of rotation `j` (`0..phi-1`, as
    /// [`crate::kernels::mask_mac::MacShape::store_term`] counts) as coefficients and in orbit order; the final mask is
    /// written to `mask` as coefficients, `[n]`, the fold to `fold`, `[n]`.
    pub(crate) fn block(
        &self,
        ring: &Ring,
        key_masks: &MacKey,
        scratch: &mut PackingScratch,
        out: Packed<'_>,
        mut term: impl FnMut(usize, usize, &[i32], &[u64]),
    ) {
        let (isa, modulus, n, phi) = (ring.isa(), ring.modulus(), ring.n(), ring.shape().phi());
        self.sums(ring, out.hints, scratch);
        scratch.fold.fill(0);
        let mut orbit = vec![0; n];
        for j in (1..phi).rev() {
            let a = &scratch.sums[j * n..(j + 1) * n];
            scratch.rounded_away.copy_from_slice(a);
            ring.leave_orbit(a, &mut scratch.natural);
            ring.inverse(&mut scratch.natural);
            self.gadget.digits(isa, modulus, &scratch.natural, &mut scratch.digits);
            scratch.accumulator.clear();
            for (level, digits) in scratch.digits.chunks_exact(n).enumerate() {
                pointwise::residues(isa, modulus, digits, &mut scratch.natural);
                ring.forward(&mut scratch.natural);
                ring.enter_orbit(&scratch.natural, &mut orbit);
                scratch.accumulator.add(&orbit, key_masks, j - 1, level);
                pointwise::mul_sub(isa, modulus, &orbit, &self.factors[level], &mut scratch.rounded_away);
                term(j - 1, level, digits, &orbit);
            }
            ring.rotate(&self.all_ones, j, &mut scratch.rotated_ones);
            let PackingScratch { rounded_away, rotated_ones, fold, .. } = scratch;
            pointwise::mul_add(isa, modulus, rounded_away, rotated_ones, fold);
            scratch.accumulator.reduce(modulus, &mut scratch.product);
            let next = &mut scratch.sums[(j - 1) * n..j * n];
            pointwise::sub_assign(isa, modulus, next, &scratch.product);
        }
        ring.leave_orbit(&scratch.sums[..n], out.mask);
        ring.inverse(out.mask);
        ring.leave_orbit(&scratch.fold, &mut scratch.natural);
        ring.inverse(&mut scratch.natural);
        for (fold, &twice) in out.fold.iter_mut().zip(&scratch.natural) {
            *fold = self.fold_step.store(modulus.centred(twice));
        }
    }
}

/// Input and output of [`Packing::block`].
pub(crate) struct Packed<'a> {
    /// The `phi` rows in orbit order, `[phi][n]`.
    pub(crate) hints: &'a [u64],
    /// The final mask as coefficients, `[n]`.
    pub(crate) mask: &'a mut [u64],
    /// The fold in its steps, `[n]`.
    pub(crate) fold: &'a mut [i16],
}
