//! Owned slices aligned to cache lines.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Bytes of a cache line and of the widest vector.
pub const LINE_BYTES: usize = 64;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES && align_of::<Line>() == LINE_BYTES);

/// An owned slice of plain values whose first element is aligned to 64 bytes; starts as zeros.
#[derive(Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<T>,
}

/// Bytes aligned to 64.
pub type AlignedBytes = Aligned<u8>;

/// Words aligned to 64 bytes, such as a table of prepared digits.
pub type AlignedWords = Aligned<u64>;

impl<T: Pod> Aligned<T> {
    /// `len` zeros.
    ///
    /// # Panics
    /// If `len` elements overflow the address space.
    pub fn zeroed(len: usize) -> Self {
        assert!(
            size_of::<T>() > 0 && LINE_BYTES.is_multiple_of(size_of::<T>()),
            "element size must divide a line"
        );
        let bytes = len.checked_mul(size_of::<T>()).expect("size in bytes overflows usize");
        let lines = bytemuck::zeroed_vec(bytes.div_ceil(LINE_BYTES));
        Self { lines, len, element: PhantomData }
    }
}

impl<T: Pod> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::zeroed(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_keeps_its_length() {
        for len in [0, 1, 7, 8, 9, 1000] {
            let words = AlignedWords::zeroed(len);
            assert_eq!(words.len(), len);
            assert_eq!(words.as_ptr() as usize % LINE_BYTES, 0);
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(*AlignedBytes::from(bytes.as_slice()), bytes);
        }
    }
}
