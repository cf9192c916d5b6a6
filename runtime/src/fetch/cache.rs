//! The cache directory: where models, splits and tables of this user live.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::FetchError;

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

    /// A fresh staging directory on the same file system as the rest of the cache.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`].
    pub fn stage(&self, purpose: &str) -> Result<Stage, FetchError> {
        let parent = self.root.join("staging");
        fs::create_dir_all(&parent).map_err(FetchError::io(&parent))?;
        let path = parent.join(format!("{purpose}.{}", std::process::id()));
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

/// Writes `bytes` to `path` through a temporary file and a rename.
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
    let written = File::create(&temporary).and_then(|mut file| {
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
    fn atomic_write_replaces() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/file");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
