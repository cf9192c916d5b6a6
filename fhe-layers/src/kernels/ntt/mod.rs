//! The number-theoretic transform of `Z_q[X]/(X^n+1)`: that of `tfhe-ntt`, and on processors with AVX-512 but without
//! IFMA, where `tfhe-ntt` has no fast form for such a modulus, our own in doubles.
//!
//! Both return the same bits in the same order: ours takes the order and the roots of unity from the library's
//! transform of `X`, and the tests compare them.

#[cfg(target_arch = "x86_64")]
mod avx512_float;

use super::Isa;
use crate::arith::Modulus;

/// A transform of one length and modulus.
pub struct Ntt {
    plan: tfhe_ntt::prime64::Plan,
    #[cfg(target_arch = "x86_64")]
    float: Option<avx512_float::FloatNtt>,
}

impl Ntt {
    /// The transform of length `n` modulo `modulus`, for `isa`; `None` if there is none.
    ///
    /// # Panics
    /// If this processor lacks `isa`.
    pub fn new(isa: Isa, n: usize, modulus: &Modulus) -> Option<Self> {
        isa.assert_supported();
        let plan = tfhe_ntt::prime64::Plan::try_new(n, modulus.q())?;
        #[cfg(target_arch = "x86_64")]
        let float = (isa == Isa::Avx512Vnni).then(|| evaluation_points(&plan, n));
        Some(Self {
            #[cfg(target_arch = "x86_64")]
            float: float.and_then(|points| avx512_float::FloatNtt::new(modulus, &points)),
            plan,
        })
    }

    /// Coefficients to values at the evaluation points, in place, `[n]` residues in `[0, q)` on both sides.
    ///
    /// # Panics
    /// If `poly.len() != n`.
    pub fn forward(&self, poly: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(float) = &self.float {
            return float.forward(poly);
        }
        self.plan.fwd(poly);
    }

    /// Values at the evaluation points to coefficients, in place, `[n]` residues in `[0, q)` on both sides.
    ///
    /// # Panics
    /// If `poly.len() != n`.
    pub fn inverse(&self, poly: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(float) = &self.float {
            return float.inverse(poly);
        }
        self.plan.inv(poly);
        self.plan.normalize(poly);
    }
}

/// The points in the order of the transform's output: the transform of `X`.
#[cfg(target_arch = "x86_64")]
fn evaluation_points(plan: &tfhe_ntt::prime64::Plan, n: usize) -> Vec<u64> {
    let mut points = vec![0; n];
    points[1] = 1;
    plan.fwd(&mut points);
    points
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::params::sets::Q;

    /// A transform that fell back to the library would agree with it in every test.
    #[test]
    fn doubles_are_used_where_they_are_meant() {
        let modulus = Modulus::new(Q).unwrap();
        for isa in Isa::supported() {
            for n in [128, 256, 2048] {
                let ntt = Ntt::new(isa, n, &modulus).unwrap();
                assert_eq!(ntt.float.is_some(), isa == Isa::Avx512Vnni, "{isa}, n {n}");
            }
        }
    }
}
