//! Element-wise operations on polynomials: products, sums, gadget digits.
//!
//! Slices hold canonical residues in `[0, q)` on both sides unless stated; a value outside gives a wrong result,
//! never an unsound one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_float;
mod scalar;

use super::Isa;
use crate::arith::{MODULUS_BITS, Modulus};
use crate::switch::Switch;

/// Runs a scalar body, or the same body compiled for a vector instruction set.
macro_rules! dispatch {
    ($isa:expr, $function:ident ( $($argument:expr),* )) => {{
        let isa: Isa = $isa;
        isa.assert_supported();
        match isa {
            Isa::Scalar => scalar::$function($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::$function($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512_float::$function($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::$function($($argument),*),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked by assert_supported"),
        }
    }};
}

/// `out = a * b mod q`, element by element.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn mul(isa: Isa, modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()), "lengths of the factors");
    dispatch!(isa, mul(modulus, a, b, out));
}

/// `acc -= a * b mod q`, element by element.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn mul_sub(isa: Isa, modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    assert_eq!((a.len(), b.len()), (acc.len(), acc.len()), "lengths of the factors");
    dispatch!(isa, mul_sub(modulus, a, b, acc));
}

/// `acc += a * b mod q`, element by element.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn mul_add(isa: Isa, modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    assert_eq!((a.len(), b.len()), (acc.len(), acc.len()), "lengths of the factors");
    dispatch!(isa, mul_add(modulus, a, b, acc));
}

/// `acc += a mod q`, element by element.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn add_assign(isa: Isa, modulus: &Modulus, acc: &mut [u64], a: &[u64]) {
    assert_eq!(a.len(), acc.len(), "lengths of the terms");
    dispatch!(isa, add_assign(modulus, acc, a));
}

/// `acc -= a mod q`, element by element.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn sub_assign(isa: Isa, modulus: &Modulus, acc: &mut [u64], a: &[u64]) {
    assert_eq!(a.len(), acc.len(), "lengths of the terms");
    dispatch!(isa, sub_assign(modulus, acc, a));
}

/// `a = -a mod q`, element by element.
///
/// # Panics
/// If this processor lacks `isa`.
pub fn neg_assign(isa: Isa, modulus: &Modulus, a: &mut [u64]) {
    dispatch!(isa, neg_assign(modulus, a));
}

/// The representatives of `a` in `(-q/2, q/2]`.
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub fn centred(isa: Isa, modulus: &Modulus, a: &[u64], out: &mut [i64]) {
    assert_eq!(a.len(), out.len(), "length of the output");
    dispatch!(isa, centred(modulus, a, out));
}

/// Signed digits to residues: `out = d mod q` in `[0, q)`.
///
/// # Panics
/// If the lengths differ, `q <= 2^31`, or this processor lacks `isa`.
pub fn residues(isa: Isa, modulus: &Modulus, digits: &[i32], out: &mut [u64]) {
    assert_eq!(digits.len(), out.len(), "length of the output");
    assert!(modulus.q() > 1 << 31, "modulus: expected above 2^31, got {}", modulus.q());
    dispatch!(isa, residues(modulus, digits, out));
}

/// `words[i] + noise[i]`, above `-q` and below `2q` as a wrapped word, to a word of a power of two: [`Switch::down`].
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub(crate) fn switch_noisy(isa: Isa, switch: &Switch, words: &mut [u64], noise: &[i8]) {
    assert_eq!(noise.len(), words.len(), "length of the noise");
    dispatch!(isa, switch_noisy(switch, words, noise));
}

/// What is subtracted from a mask body before it is switched: `steps[i] 2^shift`, below `2^37` in magnitude.
pub(crate) struct Fold<'a> {
    /// `[n]`
    pub(crate) steps: &'a [i16],
    pub(crate) shift: u32,
}

/// `values[i]`, in `[0, q)`, less its fold, switched and left-aligned in 32 bits: in one pass.
///
/// # Panics
/// If the lengths differ, the switch has more than 32 bits, or this processor lacks `isa`.
pub(crate) fn switch_folded(isa: Isa, switch: &Switch, fold: &Fold<'_>, values: &[u64], out: &mut [u32]) {
    assert_eq!((values.len(), fold.steps.len()), (out.len(), out.len()), "lengths of the fold");
    assert!(switch.bits() <= u32::BITS && fold.shift <= 22, "switch to {} bits", switch.bits());
    dispatch!(isa, switch_folded(switch, fold, values, out));
}

/// The bits of `bytes` as words 0 or 1, lowest first.
///
/// # Panics
/// Unless `out` has eight words per byte, or if this processor lacks `isa`.
pub(crate) fn spread_bits(isa: Isa, bytes: &[u8], out: &mut [u64]) {
    assert_eq!(8 * bytes.len(), out.len(), "bits");
    dispatch!(isa, spread_bits(bytes, out));
}

/// 32-bit words to residues: [`crate::switch::up`].
///
/// # Panics
/// If the lengths differ or this processor lacks `isa`.
pub(crate) fn switch_up(isa: Isa, modulus: &Modulus, words: &[u32], out: &mut [u64]) {
    assert_eq!(words.len(), out.len(), "length of the output");
    dispatch!(isa, switch_up(modulus, words, out));
}

/// `out[i] = src[order[i]]`: into or out of orbit order.
///
/// # Panics
/// If the three lengths differ or an index is out of range.
pub fn permute(order: &[u32], src: &[u64], out: &mut [u64]) {
    assert_eq!((order.len(), src.len()), (out.len(), out.len()), "lengths of a permutation");
    for (out, &index) in out.iter_mut().zip(order) {
        *out = src[index as usize];
    }
}

/// A signed, top-aligned gadget: digits in base `2^base_log`, after rounding `drop` bits away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gadget {
    levels: usize,
    base_log: u32,
    drop: u32,
}

impl Gadget {
    /// `levels` digits of `base_log` bits above `drop` bits.
    ///
    /// The lower digits are in `[-2^(base_log-1), 2^(base_log-1))`. The top digit is in
    /// `[-2^(base_log-1), 2^(base_log-1)]`, ends included: a centred value has magnitude at most `2^49`, dividing by
    /// `2^drop` and `levels - 1` times by `2^base_log` with rounding keeps a power of two a power of two, and
    /// `49 - drop - base_log (levels-1) = base_log - 1`. So every digit fits `ceil((base_log + 1) / 8)`
    /// bytes: two when `base_log <= 15`, three when `base_log <= 23`.
    ///
    /// # Panics
    /// Unless `levels >= 1`, `2 <= base_log <= 23`, `drop >= 1`, and `drop + levels * base_log == 50`.
    pub fn new(levels: usize, base_log: u32, drop: u32) -> Self {
        assert!(
            levels >= 1 && (2..=23).contains(&base_log) && drop >= 1,
            "gadget {levels} x {base_log} + {drop}"
        );
        let bits = drop as usize + levels * base_log as usize;
        assert_eq!(bits, MODULUS_BITS as usize, "bits of the gadget");
        Self { levels, base_log, drop }
    }

    /// Digits per value.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Bits per digit.
    pub fn base_log(&self) -> u32 {
        self.base_log
    }

    /// Bytes that hold a digit in compact tables: 2 or 3.
    pub fn digit_bytes(&self) -> usize {
        (self.base_log as usize + 1).div_ceil(8).max(2)
    }

    /// Bits rounded away.
    pub fn drop_bits(&self) -> u32 {
        self.drop
    }

    /// Digits of `values`, `[n]` in `[0, q)`: `digits` is `[levels, n]`, lowest level first, with
    /// `sum_l digits[l] 2^(drop + base_log l)` within `2^(drop-1)` of the centred value.
    ///
    /// # Panics
    /// If `digits.len() != levels * values.len()` or this processor lacks `isa`.
    pub fn digits(&self, isa: Isa, modulus: &Modulus, values: &[u64], digits: &mut [i32]) {
        assert_eq!(digits.len(), self.levels * values.len(), "length of the digits");
        if values.is_empty() {
            return;
        }
        dispatch!(isa, digits(self, modulus, values, digits));
    }
}
