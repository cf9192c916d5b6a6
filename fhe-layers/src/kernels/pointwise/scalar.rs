//! Portable forms. The bodies without wide products are inlined into the vector files and compiled there again.

use super::{Fold, Gadget};
use crate::arith::Modulus;
use crate::switch::{self, Switch};

pub(super) fn mul(modulus: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = modulus.mul(a, b);
    }
}

pub(super) fn mul_sub(modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    for ((acc, &a), &b) in acc.iter_mut().zip(a).zip(b) {
        *acc = modulus.sub(*acc, modulus.mul(a, b));
    }
}

pub(super) fn mul_add(modulus: &Modulus, a: &[u64], b: &[u64], acc: &mut [u64]) {
    for ((acc, &a), &b) in acc.iter_mut().zip(a).zip(b) {
        *acc = modulus.add(*acc, modulus.mul(a, b));
    }
}

#[inline(always)]
pub(super) fn add_assign(modulus: &Modulus, acc: &mut [u64], a: &[u64]) {
    for (acc, &a) in acc.iter_mut().zip(a) {
        *acc = modulus.add(*acc, a);
    }
}

#[inline(always)]
pub(super) fn sub_assign(modulus: &Modulus, acc: &mut [u64], a: &[u64]) {
    for (acc, &a) in acc.iter_mut().zip(a) {
        *acc = modulus.sub(*acc, a);
    }
}

#[inline(always)]
pub(super) fn neg_assign(modulus: &Modulus, a: &mut [u64]) {
    for a in a {
        *a = modulus.neg(*a);
    }
}

#[inline(always)]
pub(super) fn centred(modulus: &Modulus, a: &[u64], out: &mut [i64]) {
    for (out, &a) in out.iter_mut().zip(a) {
        *out = modulus.centred(a);
    }
}

#[inline(always)]
pub(super) fn residues(modulus: &Modulus, digits: &[i32], out: &mut [u64]) {
    let q = modulus.q();
    for (out, &digit) in out.iter_mut().zip(digits) {
        let wide = i64::from(digit);
        *out = (wide as u64).wrapping_add(q & (wide >> 63) as u64);
    }
}

#[inline(always)]
pub(super) fn digits(gadget: &Gadget, modulus: &Modulus, values: &[u64], digits: &mut [i32]) {
    let (half_drop, base) = (1i64 << (gadget.drop - 1), 1i64 << gadget.base_log);
    let top = gadget.levels - 1;
    for (level, digits) in digits.chunks_exact_mut(values.len()).enumerate() {
        for (digit, &value) in digits.iter_mut().zip(values) {
            let mut rest = (modulus.centred(value) + half_drop) >> gadget.drop;
            // Rounding to a multiple of base^level is what subtracting the lower digits and dividing does.
            for _ in 0..level {
                rest = (rest + base / 2) >> gadget.base_log;
            }
            let low = ((rest + base / 2) & (base - 1)) - base / 2;
            *digit = if level == top { rest } else { low } as i32;
        }
    }
}

#[inline(always)]
pub(super) fn switch_noisy(switch: &Switch, words: &mut [u64], noise: &[i8]) {
    for (word, &noise) in words.iter_mut().zip(noise) {
        *word = switch.down(*word, noise);
    }
}

#[inline(always)]
pub(super) fn switch_folded(switch: &Switch, fold: &Fold<'_>, values: &[u64], out: &mut [u32]) {
    let left = u32::BITS - switch.bits();
    for ((out, &value), &steps) in out.iter_mut().zip(values).zip(fold.steps) {
        let folded = value.wrapping_sub((i64::from(steps) << fold.shift) as u64);
        *out = (switch.down(folded, 0) as u32) << left;
    }
}

#[inline(always)]
pub(super) fn spread_bits(bytes: &[u8], out: &mut [u64]) {
    for (bits, &byte) in out.chunks_exact_mut(8).zip(bytes) {
        for (index, bit) in bits.iter_mut().enumerate() {
            *bit = u64::from(byte) >> index & 1;
        }
    }
}

#[inline(always)]
pub(super) fn switch_up(modulus: &Modulus, words: &[u32], out: &mut [u64]) {
    for (out, &word) in out.iter_mut().zip(words) {
        *out = switch::up(modulus, word);
    }
}
