//! A split on disk, as `sotto split` writes and `sotto serve` reads it.
//!
//! ```text
//! DIR/client/<plan>/   what clients are sent
//! DIR/server/<plan>/   manifest.json, weights.safetensors, tables.bin (prepared, compact form)
//! DIR/tau<T>/...       the same again for further values of tau
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhe_layers::{Instance, PrepareOptions, PreparedModel, RawMatrix, RawRound, ServerWeights, TableForm};
use rayon::prelude::*;
use sotto_models::split::plan::PlanRound;
use sotto_models::split::{IntMatrix, ServerPart};
use sotto_protocol::binding::{TABLES_FILE, UNFINISHED_TABLES_FILE, instance};

use sotto_protocol::error::{Error, Result};

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

/// The instance of a split on disk.
///
/// # Errors
/// [`Error::Malformed`] for an unknown parameter set, [`Error::FheLayers`] for shapes that it does not allow.
pub fn entry_instance(entry: &SplitEntry) -> Result<Instance> {
    instance(entry.part.plan(), &entry.part.manifest().protocol, entry.part.digest().0)
}

/// Mask blocks of a split, the unit of progress.
///
/// # Errors
/// [`Error::Malformed`] for an unknown parameter set, [`Error::FheLayers`] for shapes that it does not allow.
pub fn blocks(entry: &SplitEntry) -> Result<usize> {
    Ok(entry_instance(entry)?.layout().blocks())
}

/// Reads and packs the int8 weights, on the current rayon pool.
///
/// # Errors
/// [`Error::Models`] if the file is damaged, [`Error::FheLayers`] if shapes do not fit.
pub fn load_weights(entry: &SplitEntry, instance: &Instance) -> Result<ServerWeights> {
    let plan = entry.part.plan();
    let rounds = (0..plan.rounds.len()).into_par_iter();
    let matrices = rounds.map(|round| entry.part.round(round)).collect::<sotto_models::Result<Vec<_>>>()?;
    let raw: Vec<RawRound<'_>> = plan.rounds.iter().zip(&matrices).map(raw_round).collect();
    Ok(ServerWeights::new(instance.layout(), &raw)?)
}

fn raw_round<'a>((round, matrices): (&PlanRound, &'a Vec<IntMatrix>)) -> RawRound<'a> {
    let pairs = round.matrices.iter().zip(matrices);
    let matrices =
        pairs.map(|(spec, matrix)| RawMatrix { columns: spec.columns.clone(), weights: &matrix.weights });
    RawRound { matrices: matrices.collect() }
}

/// Prepares and saves the tables of a split on `threads` threads; `progress` receives the blocks done.
///
/// # Errors
/// What reading the weights, preparing or writing fails with.
pub fn prepare(entry: &SplitEntry, threads: usize, progress: &(dyn Fn(usize) + Sync)) -> Result<()> {
    entry.part.verify()?;
    let instance = Arc::new(entry_instance(entry)?);
    let weights = Arc::new(load_weights(entry, &instance)?);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Internal(format!("threads for preparing: {error}")))?;
    let report = |done, _| {
        progress(done);
        true
    };
    pool.install(|| {
        let options = PrepareOptions { progress: &report };
        let tables = PreparedModel::prepare(instance, weights, TableForm::Compact, &options)?;
        save_tables(&entry.server_dir, &tables)
    })
}

/// Writes the tables beside the weights; the file appears whole or not at all. While another process writes the same
/// tables, that is left to it.
///
/// # Errors
/// [`Error::Io`] or [`Error::DiskFull`].
pub(crate) fn save_tables(server_dir: &Path, tables: &PreparedModel) -> Result<()> {
    let path = server_dir.join(TABLES_FILE);
    let part = server_dir.join(UNFINISHED_TABLES_FILE);
    let Some(file) = claim(&part).map_err(|source| Error::io("creating", &part, source))? else {
        tracing::info!("another process saves these tables");
        return Ok(());
    };
    // The length says how far this is: whoever waits for it waits as long as it grows.
    let saved = file.set_len(0).map_err(|source| Error::io("emptying", &part, source));
    let saved = saved.and_then(|()| {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, &file);
        tables.save_compact(&mut out).map_err(|source| match source {
            fhe_layers::Error::Io(reason) => Error::io("writing", &path, std::io::Error::other(reason)),
            other => other.into(),
        })
    });
    let kept = saved
        .and_then(|()| std::fs::rename(&part, &path).map_err(|source| Error::io("replacing", &path, source)));
    if kept.is_err() {
        // The room it took is worth more than what it holds.
        std::fs::remove_file(&part).ok();
    }
    kept
}

/// Removes what a process that was killed left of writing tables.
pub(crate) fn remove_orphan(server_dir: &Path) {
    let part = server_dir.join(UNFINISHED_TABLES_FILE);
    // Locked until it is gone, so that it is nobody's who has just begun.
    if let Ok(file) = File::open(&part)
        && file.try_lock().is_ok()
    {
        std::fs::remove_file(&part).ok();
    }
}

/// Opens `part` for writing, for this process alone until the file is closed; `None` while another process has it, or
/// has just renamed what was opened.
fn claim(part: &Path) -> std::io::Result<Option<File>> {
    // Not truncated: it may be another's.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(part)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(source)) => return Err(source),
    }
    let (opened, there) = (file.metadata()?, std::fs::metadata(part));
    let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()));
    Ok(same.then_some(file))
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
            if !server_dir.join(sotto_models::split::manifest::MANIFEST).is_file() {
                continue;
            }
            let Some(plan) = server_dir.file_name() else { continue };
            let client_dir = root.join("client").join(plan);
            if !client_dir.join(sotto_models::split::manifest::MANIFEST).is_file() {
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
    use std::io::Write;

    use super::*;

    #[test]
    fn two_processes_do_not_write_the_same_tables() {
        let dir = tempfile::tempdir().unwrap();
        let (part, path) = (dir.path().join(UNFINISHED_TABLES_FILE), dir.path().join(TABLES_FILE));
        let mut first = claim(&part).unwrap().unwrap();
        first.write_all(b"tables").unwrap();
        assert!(claim(&part).unwrap().is_none());
        assert_eq!(std::fs::read(&part).unwrap(), b"tables", "what the other writes is still there");
        std::fs::rename(&part, &path).unwrap();
        drop(first);
        assert!(claim(&part).unwrap().is_some());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join(UNFINISHED_TABLES_FILE);
        let writing = claim(&part).unwrap().unwrap();
        remove_orphan(dir.path());
        assert!(part.exists());
        drop(writing);
        remove_orphan(dir.path());
        assert!(!part.exists());
    }

    #[test]
    fn a_directory_without_a_split_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(dir.path()).err().unwrap();
        assert!(matches!(error, Error::NotASplit { .. }));
        assert!(error.to_string().contains("sotto split"));
    }
}
