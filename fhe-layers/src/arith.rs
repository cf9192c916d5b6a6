//! Arithmetic modulo a word-sized `q < 2^50`.
//!
//! [`Modulus`] carries every precomputed constant that the scalar code and the vector kernels need, so that no
//! division happens after its construction. All operations take and return canonical residues in `[0, q)`
//! unless they say otherwise, and run in time independent of the values.

/// Moduli are below `2^MODULUS_BITS`: a product of residues has at most 100 bits, which two 52-bit halves hold.
pub const MODULUS_BITS: u32 = 50;

/// Why a [`Modulus`] was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModulusError {
    /// The modulus is not in `[3, 2^50)`.
    #[error("modulus {got} is outside [3, {limit})")]
    OutOfRange {
        /// The refused value.
        got: u64,
        /// The exclusive upper limit, `2^50`.
        limit: u64,
    },
}

/// A constant factor `c < q` with `floor(c 2^52 / q)`, for Shoup products with 52-bit operands.
///
/// For `x < 2^52`: `h = floor(x * quotient / 2^52)` and `r = x*factor - h*q` satisfy `0 <= r < 2q`, because
/// `quotient > factor 2^52/q - 1` gives `r < x q/2^52 + q`. As `2q < 2^52`, `r` is exact modulo `2^52`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Factor52 {
    pub(crate) factor: u64,
    pub(crate) quotient: u64,
}

impl Factor52 {
    fn new(factor: u64, q: u64) -> Self {
        let quotient = ((u128::from(factor) << 52) / u128::from(q)) as u64;
        Self { factor, quotient }
    }
}

/// An odd or even modulus `3 <= q < 2^50` with its precomputed constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulus {
    q: u64,
    /// Bit length `s` of `q`.
    bits: u32,
    /// `floor(2^(2s) / q)`, below `2^(s+1)`.
    barrett: u64,
    /// `floor(2^64 / q)`.
    barrett64: u64,
    /// `2^64 mod q`.
    two_pow_64: u64,
    one52: Factor52,
    two_pow_32: Factor52,
    two_pow_52: Factor52,
    two_pow_104: Factor52,
}

impl Modulus {
    /// Precomputes the constants of `q`.
    ///
    /// # Errors
    /// [`ModulusError::OutOfRange`] unless `3 <= q < 2^50`.
    pub fn new(q: u64) -> Result<Self, ModulusError> {
        let limit = 1 << MODULUS_BITS;
        if !(3..limit).contains(&q) {
            return Err(ModulusError::OutOfRange { got: q, limit });
        }
        let bits = u64::BITS - q.leading_zeros();
        let wide = u128::from(q);
        let power = |exponent: u32| ((1u128 << exponent) % wide) as u64;
        Ok(Self {
            q,
            bits,
            barrett: ((1u128 << (2 * bits)) / wide) as u64,
            barrett64: ((1u128 << 64) / wide) as u64,
            two_pow_64: power(64),
            one52: Factor52::new(1, q),
            two_pow_32: Factor52::new(power(32), q),
            two_pow_52: Factor52::new(power(52), q),
            two_pow_104: Factor52::new(power(104), q),
        })
    }

    /// The modulus itself.
    #[inline]
    pub fn q(&self) -> u64 {
        self.q
    }

    #[inline]
    pub(crate) fn factors52(&self) -> Factors52 {
        Factors52 {
            one: self.one52,
            two_pow_32: self.two_pow_32,
            two_pow_52: self.two_pow_52,
            two_pow_104: self.two_pow_104,
        }
    }

    /// `v - q` when `v >= q`, for `v < 2q`.
    #[inline(always)]
    pub(crate) fn fold(&self, v: u64) -> u64 {
        v.min(v.wrapping_sub(self.q))
    }

    /// `v mod q` for `-q < v < 2q`, negative ones as wrapped words.
    #[inline(always)]
    pub(crate) fn residue(&self, v: u64) -> u64 {
        self.fold(self.fold(v.wrapping_add(self.q)))
    }

    /// `a + b mod q`.
    #[inline(always)]
    pub fn add(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.q && b < self.q);
        self.fold(a + b)
    }

    /// `a - b mod q`.
    #[inline(always)]
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.q && b < self.q);
        let difference = a.wrapping_sub(b);
        difference.min(difference.wrapping_add(self.q))
    }

    /// `-a mod q`.
    #[inline(always)]
    pub fn neg(&self, a: u64) -> u64 {
        self.sub(0, a)
    }

    /// `a * b mod q`.
    ///
    /// Barrett: with `x < q^2 < 2^(2s)` the quotient estimate is at most 2 too small, so the remainder before the
    /// two corrections is below `3q < 2^52`.
    #[inline(always)]
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.q && b < self.q);
        let x = u128::from(a) * u128::from(b);
        let high = (x >> (self.bits - 1)) as u64;
        let quotient = ((u128::from(high) * u128::from(self.barrett)) >> (self.bits + 1)) as u64;
        let remainder = (x as u64).wrapping_sub(quotient.wrapping_mul(self.q));
        self.fold(self.fold(remainder))
    }

    /// `base^exponent mod q`. Variable time in the exponent.
    pub fn pow(&self, base: u64, mut exponent: u64) -> u64 {
        let mut square = self.reduce_u64(base);
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, square);
            }
            square = self.mul(square, square);
            exponent >>= 1;
        }
        result
    }

    /// The inverse of `a` modulo `q`, or `None` when they are not coprime. Variable time.
    pub fn inv(&self, a: u64) -> Option<u64> {
        let (mut r0, mut r1) = (i128::from(self.q), i128::from(self.reduce_u64(a)));
        let (mut t0, mut t1) = (0i128, 1i128);
        while r1 != 0 {
            let quotient = r0 / r1;
            (r0, r1) = (r1, r0 - quotient * r1);
            (t0, t1) = (t1, t0 - quotient * t1);
        }
        (r0 == 1).then(|| self.reduce_i128(t0))
    }

    /// Any 64-bit word modulo `q`.
    #[inline(always)]
    pub fn reduce_u64(&self, v: u64) -> u64 {
        let quotient = ((u128::from(v) * u128::from(self.barrett64)) >> 64) as u64;
        self.fold(v.wrapping_sub(quotient.wrapping_mul(self.q)))
    }

    /// Any 128-bit word modulo `q`.
    #[inline(always)]
    pub fn reduce_u128(&self, v: u128) -> u64 {
        let high = self.mul(self.reduce_u64((v >> 64) as u64), self.two_pow_64);
        self.add(high, self.reduce_u64(v as u64))
    }

    /// Any signed 128-bit integer modulo `q`, in `[0, q)`.
    #[inline(always)]
    pub fn reduce_i128(&self, v: i128) -> u64 {
        let residue = self.reduce_u128(v.unsigned_abs());
        if v < 0 { self.neg(residue) } else { residue }
    }

    /// The representative of `v` in `(-q/2, q/2]`: `v - q` when `v > floor(q/2)`.
    #[inline(always)]
    pub fn centred(&self, v: u64) -> i64 {
        debug_assert!(v < self.q);
        let wrap = if v > self.q / 2 { self.q as i64 } else { 0 };
        v as i64 - wrap
    }
}

/// The constants that 52-bit vector reductions use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors52 {
    pub(crate) one: Factor52,
    pub(crate) two_pow_32: Factor52,
    pub(crate) two_pow_52: Factor52,
    pub(crate) two_pow_104: Factor52,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const Q: u64 = 1125899906826241;

    fn moduli() -> impl Strategy<Value = u64> {
        prop_oneof![Just(Q), Just(3), Just((1 << 50) - 1), Just(1 << 49), 3u64..1 << 50]
    }

    proptest! {
        #[test]
        fn operations_match_wide_integers(q in moduli(), a: u64, b: u64, wide: u128, signed: i128) {
            let m = Modulus::new(q).unwrap();
            let wide_q = u128::from(q);
            for (a, b) in [(a % q, b % q), (q - 1, q - 1), (0, q - 1), (q - 1, 0), (0, 0)] {
                let (wa, wb) = (u128::from(a), u128::from(b));
                prop_assert_eq!(u128::from(m.add(a, b)), (wa + wb) % wide_q);
                prop_assert_eq!(u128::from(m.sub(a, b)), (wa + wide_q - wb) % wide_q);
                prop_assert_eq!(u128::from(m.mul(a, b)), wa * wb % wide_q);
            }
            prop_assert_eq!(m.reduce_u64(a), a % q);
            for v in [wide, u128::MAX, 0] {
                prop_assert_eq!(u128::from(m.reduce_u128(v)), v % wide_q);
            }
            for v in [signed, i128::MIN, i128::MAX, -1] {
                prop_assert_eq!(i128::from(m.reduce_i128(v)), v.rem_euclid(i128::from(q)));
            }
        }

        #[test]
        fn inverse_inverts(a in 1..Q) {
            let m = Modulus::new(Q).unwrap();
            prop_assert_eq!(m.mul(a, m.inv(a).unwrap()), 1);
            prop_assert_eq!(m.pow(a, Q - 2), m.inv(a).unwrap());
        }

        #[test]
        fn centred_is_the_nearest_representative(v in 0..Q) {
            let m = Modulus::new(Q).unwrap();
            let c = m.centred(v);
            prop_assert!(c.unsigned_abs() <= Q / 2);
            prop_assert_eq!(c.rem_euclid(Q as i64) as u64, v);
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        for q in [0, 1, 2, 1 << 50, u64::MAX] {
            assert!(Modulus::new(q).is_err(), "{q}");
        }
        assert_eq!(Modulus::new(9).unwrap().inv(6), None);
    }
}
