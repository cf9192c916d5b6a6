//! A split on disk, as `sotto split` writes and `sotto serve` reads it.
//!
//! ```text
//! DIR/client/<plan>/   what clients are sent
//! DIR/server/<plan>/   manifest.json, weights.safetensors, tables.bin (prepared, compact form)
//! DIR/tau<T>/...       the same again for further values of tau
//! ```

use std::path::{Path, PathBuf};

use models::split::ServerPart;

use crate::error::{Error, Result};

/// Name of the prepared tables in a server part.
pub const TABLES_FILE: &str = "tables.bin";

/// One plan and tau of a split.
pub struct SplitEntry {
    /// `.../client/<plan>`
    pub client_dir: PathBuf,
    /// `.../server/<plan>`
    pub server_dir: PathBuf,
    /// The manifest and the weights file, opened.
    pub part: ServerPart,
}

impl SplitEntry {
    /// Path of the prepared tables.
    pub fn tables_path(&self) -> PathBuf {
        self.server_dir.join(TABLES_FILE)
    }
}

/// STUB
pub(crate) struct Params(usize, String);
impl Params {
    pub(crate) fn tau(&self) -> usize {
        self.0
    }
    pub(crate) fn phi(&self) -> usize {
        2048 / self.0
    }
    pub(crate) fn id(&self) -> &str {
        &self.1
    }
}
pub(crate) fn params(binding: &models::split::ProtocolBinding) -> Result<Params> {
    Ok(Params(binding.tau, binding.params_id.clone()))
}

/// Finds every plan and tau in the split directory `dir`, sorted by path.
///
/// # Errors
/// [`Error::NotASplit`] if there is none or a client part is missing; [`Error::Models`] if a manifest is damaged.
pub fn find(dir: &Path) -> Result<Vec<SplitEntry>> {
    let mut roots = vec![dir.to_owned()];
    roots.extend(directories(dir).into_iter().filter(|path| has_prefix(path, "tau")));
    let mut entries = Vec::new();
    for root in roots {
        for server_dir in directories(&root.join("server")) {
            if !server_dir.join(models::split::manifest::MANIFEST).is_file() {
                continue;
            }
            let Some(plan) = server_dir.file_name() else { continue };
            let client_dir = root.join("client").join(plan);
            if !client_dir.join(models::split::manifest::MANIFEST).is_file() {
                let missing = format!("{} is missing", client_dir.display());
                return Err(Error::NotASplit { path: dir.to_owned(), missing });
            }
            let part = ServerPart::open(&server_dir)?;
            entries.push(SplitEntry { client_dir, server_dir, part });
        }
    }
    if entries.is_empty() {
        let missing = "it has no server/plain or server/fused".to_owned();
        return Err(Error::NotASplit { path: dir.to_owned(), missing });
    }
    Ok(entries)
}

/// Subdirectories, sorted; none if `dir` cannot be read.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_split_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(dir.path()).err().unwrap();
        assert!(matches!(error, Error::NotASplit { .. }));
        assert!(error.to_string().contains("sotto split"));
        assert_eq!(error.exit_code(), 6);
    }
}
