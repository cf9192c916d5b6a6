//! Words of 1 to 32 bits, packed without gaps, lowest bit first.
//!
//! In memory words are left-aligned in 32 bits, as the server's wrapping arithmetic takes them.

use crate::error::{Error, Result};

/// Bytes of `count` words of `bits` bits.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends the top `bits` of every word; the other bits are ignored.
pub(crate) fn pack(words: &[u32], bits: u32, out: &mut Vec<u8>) {
    let len = out.len() + packed_len(words.len(), bits);
    out.reserve(packed_len(words.len(), bits) + size_of::<u32>());
    let (mut buffer, mut filled) = (0u64, 0);
    for word in words {
        buffer |= u64::from(word >> (32 - bits)) << filled;
        filled += bits;
        if filled >= 32 {
            out.extend_from_slice(&(buffer as u32).to_le_bytes());
            buffer >>= 32;
            filled -= 32;
        }
    }
    out.extend_from_slice(&(buffer as u32).to_le_bytes());
    out.truncate(len);
}

/// Reads `count` words, left-aligned.
///
/// # Errors
/// [`Error::Mismatch`] for another number of bytes, [`Error::Malformed`] unless the bits after the last word are zero.
pub(crate) fn unpack(what: &'static str, bytes: &[u8], count: usize, bits: u32) -> Result<Vec<u32>> {
    let mut words = vec![0; count];
    unpack_into(what, bytes, bits, &mut words)?;
    Ok(words)
}

/// As [`unpack`] for `words.len()` words.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpack_into(what: &'static str, bytes: &[u8], bits: u32, words: &mut [u32]) -> Result<()> {
    Error::check(what, packed_len(words.len(), bits), bytes.len())?;
    let used = words.len() * bits as usize % 8;
    if used > 0 && bytes.last().is_some_and(|last| last >> used != 0) {
        return Err(Error::Malformed { what, problem: "the bits after the last word are not zero" });
    }
    // A word lies within the eight bytes from its first byte on; the last words are read from a padded copy.
    let whole = words.len().min(bytes.len().saturating_sub(7) * 8 / bits as usize);
    let (head, tail) = words.split_at_mut(whole);
    let align = 64 - bits;
    for (index, word) in head.iter_mut().enumerate() {
        let at = index * bits as usize;
        let eight: [u8; 8] = bytes[at / 8..at / 8 + 8].try_into().expect("eight bytes");
        *word =
            (u64::from_le_bytes(eight) << (align - at as u32 % 8) >> 32) as u32 & (u32::MAX << (32 - bits));
    }
    let first = whole * bits as usize / 8;
    let mut padded = [0u8; 64];
    let rest = &bytes[first.min(bytes.len())..];
    padded[..rest.len()].copy_from_slice(rest);
    for (index, word) in tail.iter_mut().enumerate() {
        let at = (whole + index) * bits as usize - 8 * first;
        let eight: [u8; 8] = padded[at / 8..at / 8 + 8].try_into().expect("eight bytes");
        *word =
            (u64::from_le_bytes(eight) << (align - at as u32 % 8) >> 32) as u32 & (u32::MAX << (32 - bits));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit.
    fn reference(words: &[u32], bits: u32) -> Vec<u8> {
        let mut out = vec![0; packed_len(words.len(), bits)];
        for (index, word) in words.iter().enumerate() {
            for bit in 0..bits as usize {
                let at = index * bits as usize + bit;
                out[at / 8] |= ((word >> (32 - bits) >> bit & 1) as u8) << (at % 8);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn words_survive_and_match_the_reference(words in prop::collection::vec(any::<u32>(), 0..200), bits in 1u32..=32) {
            let mut packed = vec![7];
            pack(&words, bits, &mut packed);
            prop_assert_eq!(&packed[1..], reference(&words, bits));
            let kept: Vec<u32> = words.iter().map(|word| word & (u32::MAX << (32 - bits))).collect();
            prop_assert_eq!(unpack("words", &packed[1..], words.len(), bits).unwrap(), kept);
        }

        #[test]
        fn lengths_and_trailing_bits_are_checked(count in 0usize..50, bits in 1u32..=32, bit in 0u32..8) {
            let bytes = vec![0; packed_len(count, bits)];
            prop_assert!(unpack("words", &bytes, count, bits).is_ok());
            prop_assert!(unpack("words", &[bytes.as_slice(), &[0]].concat(), count, bits).is_err());
            if let Some((_, shorter)) = bytes.split_last() {
                prop_assert!(unpack("words", shorter, count, bits).is_err());
                let mut flipped = bytes.clone();
                *flipped.last_mut().unwrap() |= 1 << bit;
                let used = count * bits as usize % 8;
                let outside = used > 0 && bit as usize >= used;
                prop_assert_eq!(unpack("words", &flipped, count, bits).is_err(), outside);
            }
        }
    }
}
