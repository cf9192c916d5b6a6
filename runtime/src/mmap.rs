//! Files as slices of memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a file for reading, and asks the system to read ahead.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|source| Error::io("opening", path, source))?;
    // SAFETY: the map is read-only and its bytes are checked against checksums as they are read. Tables are replaced
    // by renaming a new file over them, never written in place, so the mapped file does not change under the map.
    #[allow(unsafe_code, reason = "memory maps are unsafe because another process may truncate the file")]
    let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io("mapping", path, source))?;
    map.advise(memmap2::Advice::WillNeed).ok();
    Ok(map)
}
