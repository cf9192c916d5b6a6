//! The ring `Z_q[X]/(X^N+1)`, its number-theoretic transform, and orbit order.
//!
//! The transform is [`Ntt`]; *natural order* below means the order of its output. *Orbit order* is a
//! permutation of it in which the automorphism `sigma: X -> X^gamma` is a rotation, see
//! [`crate::kernels::mask_mac`].

use crate::arith::Modulus;
use crate::error::ParamsError;
use crate::kernels::mask_mac::{LINE_WORDS, MacShape};
use crate::kernels::ntt::Ntt;
use crate::kernels::{Isa, pointwise};
use crate::params::Params;
use std::collections::HashMap;

/// Everything that computing in the ring needs: transform, modulus, orbits.
pub struct Ring {
    ntt: Ntt,
    modulus: Modulus,
    isa: Isa,
    shape: MacShape,
    /// `x_p`: the evaluation point at position `p` of orbit order.
    points: Vec<u64>,
    /// Natural index of position `p`.
    to_orbit: Vec<u32>,
    /// Position of natural index `k`.
    from_orbit: Vec<u32>,
    /// For orbit `o`: the exponent `a` with `x_(0,o) = w^a`, `w` the point at natural index 0.
    exponents: Vec<u32>,
}

impl Ring {
    /// Builds the transform and the orbits of `params`.
    ///
    /// # Errors
    /// [`ParamsError`] when `q` has no transform of length `N`.
    pub fn new(params: &Params, isa: Isa) -> Result<Self, ParamsError> {
        let (n, q) = (params.n(), params.q());
        let no_transform = ParamsError::NoTransform { n, q };
        let modulus = Modulus::new(q).map_err(|_| no_transform.clone())?;
        let ntt = Ntt::new(isa, n, &modulus).ok_or(no_transform)?;
        let shape = MacShape::new(n, params.tau(), params.levels());
        let mut natural = vec![0; n];
        natural[1] = 1;
        ntt.forward(&mut natural);
        let index: HashMap<u64, u32> = natural.iter().enumerate().map(|(k, &x)| (x, k as u32)).collect();
        let root = natural[0];
        let mut log = HashMap::with_capacity(2 * n);
        let mut power = 1;
        for exponent in 0..2 * n as u32 {
            log.insert(power, exponent);
            power = modulus.mul(power, root);
        }
        let mut ring = Self {
            ntt,
            modulus,
            isa,
            shape,
            points: vec![0; n],
            to_orbit: vec![0; n],
            from_orbit: vec![u32::MAX; n],
            exponents: vec![0; params.tau()],
        };
        let gamma = 2 * params.tau() as u64 + 1;
        let mut orbit = 0;
        for (first, &point) in natural.iter().enumerate() {
            if ring.from_orbit[first] != u32::MAX {
                continue;
            }
            let mut x = point;
            ring.exponents[orbit] = log[&x];
            for e in 0..shape.phi() {
                let k = index[&x];
                let p = shape.position(e, orbit);
                ring.points[p] = x;
                ring.to_orbit[p] = k;
                ring.from_orbit[k as usize] = p as u32;
                x = modulus.pow(x, gamma);
            }
            orbit += 1;
        }
        Ok(ring)
    }

    /// Ring degree.
    pub fn n(&self) -> usize {
        self.shape.n()
    }

    /// Arithmetic modulo `q`.
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// Instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Shape of the mask half's dot product.
    pub fn shape(&self) -> MacShape {
        self.shape
    }

    /// Evaluation points in orbit order, `[n]`.
    pub fn points(&self) -> &[u64] {
        &self.points
    }

    /// Coefficients to values in natural order, in place.
    pub fn forward(&self, poly: &mut [u64]) {
        self.ntt.forward(poly);
    }

    /// Values in natural order to coefficients, in place.
    pub fn inverse(&self, poly: &mut [u64]) {
        self.ntt.inverse(poly);
    }

    /// Natural order to orbit order.
    pub fn enter_orbit(&self, natural: &[u64], out: &mut [u64]) {
        pointwise::permute(&self.to_orbit, natural, out);
    }

    /// Orbit order to natural order.
    pub fn leave_orbit(&self, orbit: &[u64], out: &mut [u64]) {
        pointwise::permute(&self.from_orbit, orbit, out);
    }

    /// `sigma^j(f)` for `f` in orbit order.
    pub fn rotate(&self, f: &[u64], j: usize, out: &mut [u64]) {
        let words = self.shape.phi() * LINE_WORDS;
        let shift = j % self.shape.phi() * LINE_WORDS;
        for (column, out) in f.chunks_exact(words).zip(out.chunks_exact_mut(words)) {
            out[..words - shift].copy_from_slice(&column[shift..]);
            out[words - shift..].copy_from_slice(&column[..shift]);
        }
    }

    /// `x_(e,o) / x_(0,o) = W^(m(e,o))` with `W = root^(2 tau)`: the exponent `m`.
    pub fn twiddle_exponent(&self, e: usize, o: usize) -> usize {
        let (tau, phi) = (self.shape.tau() as u64, self.shape.phi() as u64);
        let gamma = 2 * tau + 1;
        let order = 2 * self.n() as u64;
        let power = (0..e).fold(1, |power, _| power * gamma % order);
        let s = (power + order - 1) % order / (2 * tau);
        (u64::from(self.exponents[o]) * s % phi) as usize
    }

    /// `W`, a primitive `phi`-th root of unity.
    pub fn packing_root(&self) -> u64 {
        let root = self.points[self.from_orbit[0] as usize];
        self.modulus.pow(root, 2 * self.shape.tau() as u64)
    }
}
