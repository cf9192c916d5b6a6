//! Which model each server had at the last visit: trust on first use.
//!
//! A digest names weights, plan, tau and parameters. A connect string may carry it; otherwise the
//! digest seen first is remembered per server and model name, and a change is put to the user.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fetch::write_atomically;

/// Largest file of remembered digests that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file of remembered digests.
#[derive(Debug)]
pub(crate) struct KnownModels {
    path: PathBuf,
    entries: Entries,
}

/// Server identity (hash of its certificate) to "name plan tau" to digest, hexadecimal.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    servers: BTreeMap<String, BTreeMap<String, String>>,
}

/// What memory says about a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Seen before.
    Known,
    /// First visit.
    New,
    /// Another digest was seen before.
    Changed {
        /// The remembered digest, hexadecimal.
        remembered: String,
    },
}

impl KnownModels {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Malformed`] when it is not what this program writes.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let entries = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Entries::default(),
            Err(source) => return Err(Error::io("reading", path, source)),
            Ok(meta) if meta.len() > MAX_FILE_BYTES => {
                return Err(Error::TooLong {
                    field: "file of known models",
                    got: meta.len(),
                    limit: MAX_FILE_BYTES,
                });
            }
            Ok(_) => {
                let bytes = std::fs::read(path).map_err(|source| Error::io("reading", path, source))?;
                serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
                    field: "file of known models",
                    expected: "what sotto writes; delete it to start over".to_owned(),
                    got: format!("{} ({error})", path.display()),
                })?
            }
        };
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Compares `digest` with what is remembered of `model` at `server`.
    pub(crate) fn verdict(&self, server: &str, model: &str, digest: &str) -> Verdict {
        match self.entries.servers.get(server).and_then(|models| models.get(model)) {
            None => Verdict::New,
            Some(remembered) if remembered == digest => Verdict::Known,
            Some(remembered) => Verdict::Changed { remembered: remembered.clone() },
        }
    }

    /// Remembers `digest`, beside what other processes have written since this one read the file: a pin that is lost
    /// would let a changed model pass for a new one.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`Error::DiskFull`].
    pub(crate) fn remember(&self, server: &str, model: &str, digest: &str) -> Result<()> {
        let _lock = self.lock().map_err(|source| Error::io("locking", &self.path, source))?;
        let mut entries = Self::load(&self.path)?.entries;
        let models = entries.servers.entry(server.to_owned()).or_default();
        models.insert(model.to_owned(), digest.to_owned());
        let bytes = serde_json::to_vec_pretty(&entries)
            .map_err(|error| Error::Internal(format!("known models: {error}")))?;
        write_atomically(&self.path, &bytes).map_err(|source| Error::io("writing", &self.path, source))
    }

    /// Keeps other processes from writing until the file that it returns is closed.
    fn lock(&self) -> std::io::Result<File> {
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::create(self.path.with_extension("lock"))?;
        file.lock()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_across_runs() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("known.json");
        let known = KnownModels::load(&path).unwrap();
        let beside = KnownModels::load(&path).unwrap();
        assert_eq!(known.verdict("server", "model", "aa"), Verdict::New);
        known.remember("server", "model", "aa").unwrap();
        beside.remember("third", "model", "cc").unwrap();
        let known = KnownModels::load(&path).unwrap();
        assert_eq!(known.verdict("server", "model", "aa"), Verdict::Known);
        assert_eq!(known.verdict("other", "model", "bb"), Verdict::New);
        assert_eq!(known.verdict("server", "model", "bb"), Verdict::Changed { remembered: "aa".to_owned() });
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("known.json");
        std::fs::write(&path, b"{").unwrap();
        assert!(matches!(KnownModels::load(&path), Err(Error::Malformed { .. })));
    }
}
