//! Files as slices of memory.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use fhe_layers::TableBytes;
use memmap2::{Mmap, UncheckedAdvice};

use sotto_protocol::error::{Error, Result};

/// A file in memory, read-only.
pub(crate) struct MappedFile(Mmap);

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TableBytes for MappedFile {
    /// Gives the pages back to the system; reading them again reads the file again.
    #[cfg(unix)]
    #[allow(
        unsafe_code,
        reason = "dropping pages is unsafe because private maps would lose what was written"
    )]
    fn release(&self, range: Range<usize>) {
        // SAFETY: the map is shared and read-only, so its pages only mirror the file: dropping them changes no byte.
        unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) }.ok();
    }
}

/// Maps a file for reading, and asks the system to read ahead.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> Result<MappedFile> {
    let file = File::open(path).map_err(|source| Error::io("opening", path, source))?;
    // SAFETY: the map is read-only and its bytes are checked against checksums as they are read. Tables are replaced
    // by renaming a new file over them, never written in place, so the mapped file does not change under the map.
    #[allow(unsafe_code, reason = "memory maps are unsafe because another process may truncate the file")]
    let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io("mapping", path, source))?;
    map.advise(memmap2::Advice::WillNeed).ok();
    Ok(MappedFile(map))
}
