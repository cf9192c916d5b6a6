//! The split of a model in the cache: made once, used by the embedded server and the references.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::{ProtocolBinding, split};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::fetch::{Cache, FetchProgress, Fetched, ModelRef, fetch};

/// A model on this machine with its split.
#[derive(Clone, Debug)]
pub struct LocalModel {
    /// Name in the cache.
    pub name: String,
    /// The model itself: GGUF file or directory.
    pub source: PathBuf,
    /// Directory with `client/<plan>` and `server/<plan>`.
    pub directory: PathBuf,
    /// The plan that is certainly there.
    pub plan: PlanKind,
}

impl LocalModel {
    /// The client part.
    pub fn client_directory(&self) -> PathBuf {
        self.directory.join("client").join(self.plan.as_str())
    }

    /// The server part: int8 weights and tables.
    pub fn server_directory(&self) -> PathBuf {
        self.directory.join("server").join(self.plan.as_str())
    }

    /// Exists while a server saves the tables it prepared.
    pub(super) fn unfinished_tables(&self) -> PathBuf {
        self.server_directory().join(crate::split_store::UNFINISHED_TABLES_FILE)
    }
}

/// Fetches `model` and splits it, unless the cache has both.
///
/// # Errors
///
/// What fetching, reading or splitting the model can fail with, or the disk.
pub fn local_model(
    model: &ModelRef,
    plan: PlanKind,
    binding: &ProtocolBinding,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<LocalModel> {
    let fetched = fetch(model, cache, progress)?;
    let name = split_name(model, &fetched)?;
    let directory = cache.split(&name).join(format!("{}-{plan}", binding.params_id));
    let local = LocalModel { name, source: fetched.path, directory, plan };
    if !is_split(&local) {
        let _lock = cache.lock(&format!("split-{}", local.name))?;
        // Another process may have made it while this one waited.
        if !is_split(&local) {
            make(&local, binding, cache, progress)?;
        }
    }
    Ok(local)
}

fn is_split(local: &LocalModel) -> bool {
    local.client_directory().join("manifest.json").is_file()
        && local.server_directory().join("manifest.json").is_file()
}

/// The split's name: that of the model; for a path also what tells one version of it from another.
fn split_name(model: &ModelRef, fetched: &Fetched) -> Result<String> {
    if !matches!(model, ModelRef::Path(_)) {
        return Ok(fetched.name.clone());
    }
    let path = fs::canonicalize(&fetched.path).map_err(|error| Error::io("reading", &fetched.path, error))?;
    let mut hasher = Sha256::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    for file in files_of(&path) {
        let meta = fs::metadata(&file).map_err(|error| Error::io("reading", &file, error))?;
        let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hasher.update(meta.len().to_le_bytes());
        hasher.update(changed.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(format!("{}-{}", fetched.name, &hex::encode(hasher.finalize())[..12]))
}

/// The file itself, or the files of a directory, sorted.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn make(
    local: &LocalModel,
    binding: &ProtocolBinding,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<()> {
    let source = ModelSource::open(&local.source)?;
    progress.begin(&format!("splitting {} ({})", local.name, local.plan), None, false);
    let rounds = AtomicUsize::new(0);
    let parts = split(&source, local.plan, |_| {
        rounds.fetch_add(1, Ordering::Relaxed);
    })?;
    let stage = cache.stage(&format!("split-{}", local.name))?;
    parts.write(stage.path(), binding)?;
    for side in ["client", "server"] {
        let part = Path::new(side).join(local.plan.as_str());
        cache.install(&stage.path().join(&part), &local.directory.join(&part))?;
    }
    progress.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_gets_another_split() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.gguf");
        let model = ModelRef::Path(path.clone());
        let fetched = Fetched { name: model.slug(), path: path.clone() };
        fs::write(&path, b"one").unwrap();
        let first = split_name(&model, &fetched).unwrap();
        assert!(first.starts_with("model-"));
        assert_eq!(split_name(&model, &fetched).unwrap(), first);
        fs::write(&path, b"other").unwrap();
        assert_ne!(split_name(&model, &fetched).unwrap(), first);
    }
}
