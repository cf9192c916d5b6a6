//! Values as sums of small digits: `value = scale (d0 + B d1 + B^2 d2 + ..)`, each digit within int8.
//!
//! A row of weights becomes one row per digit. The products with an integer vector are integers, so the client rounds
//! away the noise of each and adds them up with their powers of `B`: the sum is exact, whatever the noise, as long as it
//! stays below a half.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Bits that the digits of a value have together: as many as an f32 holds.
const BITS: f64 = 24.0;

/// Bases to choose from: odd, so that the digits are balanced.
const BASES: [u32; 5] = [255, 63, 15, 7, 3];

/// Standard deviation of the noise of one product, at most, in units of the product of both norms: `2^-20`. The sets in use
/// have `2^-22.5` and less in the full form (docs/parameters.md); `rounded` notices if it were otherwise.
const NOISE: f64 = 1.0 / (1 << 20) as f64;

/// Deviations that a half must cover.
const SIGMAS: f64 = 7.0;

/// How values are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digits {
    /// The base, odd and at most 255.
    pub base: u32,
    /// Digits per value.
    pub count: usize,
}

impl Digits {
    /// The digits of the largest base with which sums stay exact, for values whose rows hold up to `row` of them and meet an
    /// input vector of norm `input`.
    ///
    /// # Errors
    /// If no base will do: the model is too large for exact sums.
    pub fn for_rows(row: usize, input: f64) -> Result<Self> {
        let exact = |base: u32| {
            // Digits of any sign and size, as if all were the largest.
            let norm = f64::from(base / 2) * (row as f64).sqrt();
            is_exact(norm, input)
        };
        let base = BASES.into_iter().find(|&base| exact(base)).ok_or_else(|| {
            Error::config(
                "model",
                format!("sums over {row} values are too long to be exact; use fewer trees or leaves"),
            )
        })?;
        Ok(Self::of_base(base))
    }

    /// As many digits of this base as make [`BITS`] bits, short of a few hundredths of a bit.
    fn of_base(base: u32) -> Self {
        Self { base, count: (BITS / f64::from(base).log2() - 0.02).ceil() as usize }
    }

    /// The largest integer that the digits can hold.
    fn largest(&self) -> f64 {
        (f64::from(self.base).powi(self.count as i32) - 1.0) / 2.0
    }

    /// The scale for values up to `largest` in magnitude; 1 if all are 0.
    pub fn scale(&self, largest: f64) -> f64 {
        if largest > 0.0 { largest / self.largest() } else { 1.0 }
    }

    /// The digits of `value / scale`, rounded.
    pub fn of(&self, value: f64, scale: f64) -> Vec<i8> {
        let base = i64::from(self.base);
        let mut rest = (value / scale).round() as i64;
        let mut digits = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let digit = (rest + base / 2).rem_euclid(base) - base / 2;
            digits.push(digit as i8);
            rest = (rest - digit) / base;
        }
        digits
    }

    /// What sums of digits are worth together.
    pub fn value(&self, sums: &[f64], scale: f64) -> f64 {
        scale * sums.iter().rev().fold(0.0, |value, sum| value * f64::from(self.base) + sum)
    }

    /// Whether a part's digits can be used.
    ///
    /// # Errors
    /// If not.
    pub fn validate(&self) -> Result<()> {
        let fits = self.base % 2 == 1 && (3..=255).contains(&self.base) && (1..=24).contains(&self.count);
        if fits {
            Ok(())
        } else {
            Err(Error::config("digits", format!("{} of base {}", self.count, self.base)))
        }
    }
}

/// Whether products of rows up to `norm` with inputs up to `input` are exact once they are rounded.
pub fn is_exact(norm: f64, input: f64) -> bool {
    SIGMAS * NOISE * norm * input < 0.5
}

/// The nearest integers, and whether one of `products` is so far from its own that noise may have moved it over.
///
/// The second depends on decrypted values: for the local user, when all traffic of the prediction has ended.
pub fn rounded(products: &[f32]) -> (Vec<f64>, bool) {
    let mut doubtful = false;
    let integers = products.iter().map(|&product| {
        let product = f64::from(product);
        let integer = product.round();
        // Not a number is as far from one as can be.
        doubtful |= product.is_nan() || (product - integer).abs() > 0.25;
        integer
    });
    (integers.collect(), doubtful)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_mean_the_value(value in -1e6f64..1e6, which in 0..BASES.len()) {
            let base = BASES[which];
            let digits = Digits::of_base(base);
            digits.validate().unwrap();
            let scale = digits.scale(1e6);
            let split: Vec<f64> = digits.of(value, scale).into_iter().map(f64::from).collect();
            prop_assert!(split.iter().all(|digit| digit.abs() <= f64::from(base / 2)));
            prop_assert!((digits.value(&split, scale) - value).abs() <= scale * 0.5001);
            prop_assert!(scale <= 1e6 / f64::from(1 << 22));
        }
    }

    #[test]
    fn larger_models_get_smaller_digits() {
        assert_eq!(Digits::for_rows(400, 50f64.sqrt()).unwrap(), Digits { base: 255, count: 3 });
        assert!(Digits::for_rows(30_000, 1000f64.sqrt()).unwrap().base < 255);
        assert!(Digits::for_rows(usize::MAX, 1e9).is_err());
    }

    #[test]
    fn what_is_between_integers_is_noticed() {
        assert_eq!(rounded(&[1.02, -3.98]), (vec![1.0, -4.0], false));
        assert!(rounded(&[0.4]).1 && rounded(&[f32::NAN]).1);
    }
}
