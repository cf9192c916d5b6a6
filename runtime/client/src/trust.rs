//! Which model each server had at the last visit: trust on first use.
//!
//! A digest names weights, plan, tau and parameters. A connect string may carry it; otherwise the digests seen first are
//! remembered under the server's certificate, and a digest that was not among them is put to the user. Names are kept
//! for messages only: a server chooses them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use sotto_protocol::error::{Error, Result};
use sotto_storage::write_atomically;

/// Largest file of remembered digests that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file of remembered digests.
#[derive(Debug)]
pub(crate) struct KnownModels {
    path: PathBuf,
    entries: Entries,
}

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    /// Hash of a server's certificate to digest to "name plan tau N", digests in hexadecimal.
    #[serde(default)]
    certificates: BTreeMap<String, BTreeMap<String, String>>,
    /// As written by earlier versions: hash of a certificate to "name plan tau N" to digest.
    #[serde(default, skip_serializing)]
    servers: BTreeMap<String, BTreeMap<String, String>>,
}

impl Entries {
    /// Takes over what earlier versions wrote.
    fn upgraded(mut self) -> Self {
        for (server, models) in std::mem::take(&mut self.servers) {
            let known = self.certificates.entry(server).or_default();
            for (label, digest) in models {
                known.entry(digest).or_insert(label);
            }
        }
        self
    }
}

/// What memory says about a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Seen before.
    Known,
    /// First visit.
    New,
    /// Other digests were seen of this server, and not this one.
    Unseen {
        /// The remembered digests, hexadecimal, with the names that the server gave them.
        remembered: Vec<(String, String)>,
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
                let entries: Entries = serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
                    field: "file of known models",
                    expected: "what sotto writes; delete it to start over".to_owned(),
                    got: format!("{} ({error})", path.display()),
                })?;
                entries.upgraded()
            }
        };
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Compares `digest` with what is remembered of the server with this certificate.
    pub(crate) fn verdict(&self, server: &str, digest: &str) -> Verdict {
        match self.entries.certificates.get(server).filter(|models| !models.is_empty()) {
            None => Verdict::New,
            Some(models) if models.contains_key(digest) => Verdict::Known,
            Some(models) => {
                let remembered = models.iter().map(|(digest, label)| (digest.clone(), label.clone()));
                Verdict::Unseen { remembered: remembered.collect() }
            }
        }
    }

    /// Remembers `models` (digest and label), next to what other processes have written since this one read the file: a
    /// digest that is lost would let another one pass for a first visit's.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`Error::DiskFull`].
    pub(crate) fn remember(&self, server: &str, models: &[(String, String)]) -> Result<()> {
        let _lock = self.lock().map_err(|source| Error::io("locking", &self.path, source))?;
        let mut entries = Self::load(&self.path)?.entries;
        entries.certificates.entry(server.to_owned()).or_default().extend(models.iter().cloned());
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
        let one = |digest: &str| [(digest.to_owned(), "model plain tau 64".to_owned())];
        assert_eq!(known.verdict("server", "aa"), Verdict::New);
        known.remember("server", &one("aa")).unwrap();
        beside.remember("third", &one("cc")).unwrap();
        let known = KnownModels::load(&path).unwrap();
        assert_eq!(known.verdict("server", "aa"), Verdict::Known);
        assert_eq!(known.verdict("other", "bb"), Verdict::New);
        assert_eq!(known.verdict("server", "bb"), Verdict::Unseen { remembered: one("aa").to_vec() });
    }

    #[test]
    fn the_file_of_an_earlier_version_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("known.json");
        std::fs::write(&path, br#"{"servers":{"server":{"model plain tau 64":"aa"}}}"#).unwrap();
        let known = KnownModels::load(&path).unwrap();
        assert_eq!(known.verdict("server", "aa"), Verdict::Known);
        assert!(matches!(known.verdict("server", "bb"), Verdict::Unseen { .. }));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("known.json");
        std::fs::write(&path, b"{").unwrap();
        assert!(matches!(KnownModels::load(&path), Err(Error::Malformed { .. })));
    }
}
