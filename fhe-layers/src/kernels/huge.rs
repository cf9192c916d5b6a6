//! Memory in anonymous maps with huge pages, for what is read whole again and again: a stream in 4 KB pages misses the
//! translation cache at every page, and its prefetcher stops there (one core, 108 MB of weights: 18 GB/s in small pages, 30 in
//! huge ones); and a table of 5 GB costs more in page faults than in arithmetic.

use crate::error::{Error, Result};
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Bytes that start as zeros; memory is taken when they are first written.
pub struct HugeBytes {
    map: MmapMut,
    len: usize,
}

impl HugeBytes {
    /// `len` zeros, page-aligned.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses the memory.
    pub fn zeroed(len: usize) -> Result<Self> {
        let map = MmapMut::map_anon(len.max(1))?;
        // Where the system has no huge pages, small ones serve.
        #[cfg(target_os = "linux")]
        map.advise(memmap2::Advice::HugePage).ok();
        Ok(Self { map, len })
    }
}

impl Deref for HugeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

impl DerefMut for HugeBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}

/// Words that start as zeros; memory is taken when they are first written.
pub(crate) struct HugeWords(HugeBytes);

impl HugeWords {
    /// `len` zeros, page-aligned.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses the memory.
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        let too_large = || Error::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        Ok(Self(HugeBytes::zeroed(len.checked_mul(size_of::<u64>()).ok_or_else(too_large)?)?))
    }
}

impl Deref for HugeWords {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for HugeWords {
    fn deref_mut(&mut self) -> &mut [u64] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
