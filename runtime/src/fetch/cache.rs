//! The cache directory: where models, splits and tables of this user live.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::FetchError;

/// A staging directory that nothing was added to for this long belongs to a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

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
    /// [`FetchError::NoCacheDirectory`] when none of the variables is set.
    pub fn from_env() -> Result<Self, FetchError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = set("SOTTO_CACHE") {
            return Ok(Self::at(root));
        }
        if let Some(base) = set("XDG_CACHE_HOME") {
            return Ok(Self::at(PathBuf::from(base).join("sotto")));
        }
        let home = set("HOME").ok_or(FetchError::NoCacheDirectory)?;
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
    /// [`FetchError::Io`].
    pub fn stage(&self, purpose: &str) -> Result<Stage, FetchError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = self.root.join("staging");
        fs::create_dir_all(&parent).map_err(FetchError::io(&parent))?;
        remove_abandoned(&parent, SystemTime::now());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{purpose}.{}.{count}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(FetchError::io(&path))?;
        }
        fs::create_dir(&path).map_err(FetchError::io(&path))?;
        Ok(Stage { path })
    }

    /// Takes the lock called `name`, waiting for another process that holds it.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`].
    pub fn lock(&self, name: &str) -> Result<CacheLock, FetchError> {
        let directory = self.root.join("locks");
        fs::create_dir_all(&directory).map_err(FetchError::io(&directory))?;
        let path = directory.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(FetchError::io(&path))?;
        file.lock().map_err(FetchError::io(&path))?;
        Ok(CacheLock { _file: file })
    }

    /// Moves `from` to `to`, replacing what is there.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`].
    pub fn install(&self, from: &Path, to: &Path) -> Result<(), FetchError> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(FetchError::io(parent))?;
        }
        if to.is_dir() {
            fs::remove_dir_all(to).map_err(FetchError::io(to))?;
        }
        fs::rename(from, to).map_err(FetchError::io(to))
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

/// Writes `bytes` to `path`, for this user's eyes only (mode 0600), through a temporary file and a rename.
///
/// # Errors
///
/// The I/O error; `path` is then unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
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

    #[test]
    fn atomic_write_replaces() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/file");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
