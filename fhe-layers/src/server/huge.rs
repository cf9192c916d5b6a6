//! Large tables in anonymous maps with huge pages: a 5 GB table in 4 KB pages costs more in page faults than in
//! arithmetic, and its stream misses the translation cache at every page.

use crate::error::{Error, Result};
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Words that start as zeros; memory is taken when they are first written.
pub(super) struct HugeWords {
    map: MmapMut,
    len: usize,
}

impl HugeWords {
    /// `len` zeros, page-aligned.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses the memory.
    pub(super) fn zeroed(len: usize) -> Result<Self> {
        let too_large = || Error::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        let bytes = len.checked_mul(size_of::<u64>()).ok_or_else(too_large)?;
        let map = MmapMut::map_anon(bytes.max(1))?;
        // Where the system has no huge pages, small ones serve.
        #[cfg(target_os = "linux")]
        map.advise(memmap2::Advice::HugePage).ok();
        Ok(Self { map, len })
    }
}

impl Deref for HugeWords {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &bytemuck::cast_slice(&self.map[..self.len * size_of::<u64>()])[..self.len]
    }
}

impl DerefMut for HugeWords {
    fn deref_mut(&mut self) -> &mut [u64] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<u64>()])
    }
}
