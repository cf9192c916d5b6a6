//! The cache directory: where models, splits and tables of this user live.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A staging directory that nothing was added to for this long belongs to a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What went wrong with the cache directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No place to keep files: neither `SOTTO_CACHE` nor `HOME` is set.
    #[error("no cache directory: set SOTTO_CACHE to a directory with room for the models")]
    NoCacheDirectory,
    /// A file operation failed.
    #[error("{}: {source}{}", path.display(), storage_advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Advice to append to an I/O error about storage, empty for the others.
fn storage_advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free some space or set SOTTO_CACHE to another disk"
        }
        _ => "",
    }
}

impl StorageError {
    /// Wraps an I/O error with the path it happened at.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// The cache directory and the layout under it.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `$SOTTO_CACHE`, else `$XDG_CACHE_HOME/sotto`, else `~/.cache/sotto`.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoCacheDirectory`] when none of the variables is set.
    pub fn from_env() -> Result<Self, StorageError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = set("SOTTO_CACHE") {
            return Ok(Self::at(root));
        }
        if let Some(base) = set("XDG_CACHE_HOME") {
            return Ok(Self::at(PathBuf::from(base).join("sotto")));
        }
        let home = set("HOME").ok_or(StorageError::NoCacheDirectory)?;
        Ok(Self::at(PathBuf::from(home).join(".cache").join("sotto")))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of a fetched model.
    pub fn model(&self, name: &str) -> PathBuf {
        self.root.join("models").join(name)
    }

    /// Directory of a split (client part, int8 weights, tables).
    pub fn split(&self, name: &str) -> PathBuf {
        self.root.join("splits").join(name)
    }

    /// Directory of downloaded client parts, by model digest.
    pub fn clients(&self) -> PathBuf {
        self.root.join("clients")
    }

    /// The file of remembered servers and their model digests.
    pub fn known_models(&self) -> PathBuf {
        self.root.join("known_models.json")
    }

    /// A fresh staging directory on the same file system as the rest of the cache. What a killed process left behind
    /// long ago is removed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`].
    pub fn stage(&self, purpose: &str) -> Result<Stage, StorageError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = self.root.join("staging");
        fs::create_dir_all(&parent).map_err(StorageError::io(&parent))?;
        remove_abandoned(&parent, SystemTime::now());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{purpose}.{}.{count}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(StorageError::io(&path))?;
        }
        fs::create_dir(&path).map_err(StorageError::io(&path))?;
        Ok(Stage { path })
    }

    /// Takes the lock called `name`, waiting for another process that holds it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`].
    pub fn lock(&self, name: &str) -> Result<CacheLock, StorageError> {
        let directory = self.root.join("locks");
        fs::create_dir_all(&directory).map_err(StorageError::io(&directory))?;
        let path = directory.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(StorageError::io(&path))?;
        file.lock().map_err(StorageError::io(&path))?;
        Ok(CacheLock { _file: file })
    }

    /// Moves `from` to `to`, replacing what is there.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`].
    pub fn install(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(StorageError::io(parent))?;
        }
        if to.is_dir() {
            fs::remove_dir_all(to).map_err(StorageError::io(to))?;
        }
        fs::rename(from, to).map_err(StorageError::io(to))
    }
}

/// Removes the entries of `staging` that nothing was added to for [`ABANDONED_AFTER`].
fn remove_abandoned(staging: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).map(|time| now.duration_since(time));
        if age.is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED_AFTER)) {
            // Another process may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Exclusive use of one name in the cache, released on drop.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

/// A staging directory, removed on drop.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
}

impl Stage {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A staging directory that was renamed away no longer exists: nothing to do then.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Sum of the file sizes under `path`, in bytes; unreadable entries count nothing.
pub fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::metadata(path).map_or(0, |meta| meta.len());
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => directory_bytes(&entry.path()),
            Ok(_) => entry.metadata().map_or(0, |meta| meta.len()),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_disappears_and_an_installed_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let stage = cache.stage("x").unwrap();
        fs::write(stage.path().join("file"), b"1234").unwrap();
        let target = cache.model("m");
        cache.install(stage.path(), &target).unwrap();
        drop(stage);
        assert_eq!(directory_bytes(&target), 4);
        let abandoned = cache.stage("x").unwrap();
        let path = abandoned.path().to_owned();
        drop(abandoned);
        assert!(!path.exists());
    }

    #[test]
    fn stages_of_one_purpose_do_not_meet_and_forgotten_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let first = cache.stage("x").unwrap();
        fs::write(first.path().join("file"), b"1234").unwrap();
        let second = cache.stage("x").unwrap();
        assert!(first.path().join("file").is_file() && first.path() != second.path());
        let staging = root.path().join("staging");
        remove_abandoned(&staging, SystemTime::now());
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 2);
        remove_abandoned(&staging, SystemTime::now() + 2 * ABANDONED_AFTER);
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }
}
