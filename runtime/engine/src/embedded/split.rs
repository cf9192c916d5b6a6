//! The split of a model in the cache: made once, used by the embedded server and the references.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use fhe_layers::{PreparedModel, Set, TableForm};
use sha2::{Digest, Sha256};
use sotto_models::source::ModelSource;
use sotto_models::split::plan::{PlanKind, SplitPlan};
use sotto_models::split::{ProtocolBinding, ServerPart, is_current, split_to};

use crate::fetch::{Fetched, ModelRef, fetch};
use sotto_protocol::binding::{
    SetPreference, TABLES_FILE, UNFINISHED_TABLES_FILE, binding_of, server_bytes, spendable,
};
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, FetchProgress, available_bytes};

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

    /// Bytes of the tables that a server saves.
    pub(super) fn saved_bytes(&self) -> Result<u64> {
        let part = ServerPart::open(self.server_directory())?;
        let instance =
            sotto_protocol::binding::instance(part.plan(), &part.manifest().protocol, part.digest().0)?;
        Ok(PreparedModel::saved_bytes(&instance))
    }

    /// Whether tables that a server prepared are there.
    pub fn has_tables(&self) -> bool {
        self.server_directory().join(TABLES_FILE).is_file()
    }

    /// Exists while a server saves the tables it prepared.
    pub(super) fn unfinished_tables(&self) -> PathBuf {
        self.server_directory().join(UNFINISHED_TABLES_FILE)
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
    let local = place(model, &fetched, plan, binding, cache)?;
    if !is_split(&local) {
        let _lock = cache.lock(&format!("split-{}", local.name))?;
        // Another process may have made it while this one waited.
        if !is_split(&local) {
            make(&local, binding, cache, progress)?;
        }
    }
    Ok(local)
}

/// As [`local_model`], for the parameter set that `set` means on this machine now.
///
/// # Errors
///
/// As [`local_model`].
pub fn local_model_in(
    model: &ModelRef,
    plan: PlanKind,
    set: SetPreference,
    tau: usize,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<LocalModel> {
    let set = match set {
        SetPreference::Only(set) => set,
        SetPreference::Auto => {
            let fetched = fetch(model, cache, progress)?;
            let candidates = Set::ALL
                .into_iter()
                .map(|set| Ok((set, place(model, &fetched, plan, &binding_of(set, tau)?, cache)?)))
                .collect::<Result<Vec<_>>>()?;
            let made = candidates.iter().find(|(_, local)| is_split(local));
            let rounds = match made {
                Some((_, local)) => ServerPart::open(local.server_directory())?.plan().clone(),
                None => ModelSource::open(&fetched.path)?.config.plan(plan)?,
            };
            let prepared: Vec<Set> = candidates
                .iter()
                .filter(|(_, local)| is_split(local) && local.has_tables())
                .map(|(set, _)| *set)
                .collect();
            automatic_set(&rounds, tau, &prepared, available_bytes())?
        }
    };
    local_model(model, plan, &binding_of(set, tau)?, cache, progress)
}

/// The set that [`SetPreference::Auto`] means, unless only the other one has its tables `prepared` and these fit into `free`
/// bytes: preparing them takes longer than the better choice saves.
fn automatic_set(plan: &SplitPlan, tau: usize, prepared: &[Set], free: Option<u64>) -> Result<Set> {
    let best = SetPreference::Auto.choose(plan, tau, free)?;
    let [other] = *prepared else { return Ok(best) };
    let needed = server_bytes(plan, other, tau, TableForm::Compact)?;
    Ok(if free.is_none_or(|free| needed <= spendable(free)) { other } else { best })
}

/// Where the split of a fetched model is, or would be.
fn place(
    model: &ModelRef,
    fetched: &Fetched,
    plan: PlanKind,
    binding: &ProtocolBinding,
    cache: &Cache,
) -> Result<LocalModel> {
    let name = split_name(model, fetched)?;
    let directory = cache.split(&name).join(format!("{}-{plan}", binding.params_id));
    Ok(LocalModel { name, source: fetched.path.clone(), directory, plan })
}

pub(crate) fn is_split(local: &LocalModel) -> bool {
    is_current(&local.client_directory()) && is_current(&local.server_directory())
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
    let stage = cache.stage(&format!("split-{}", local.name))?;
    split_to(&source, local.plan, stage.path(), binding, |_| {
        rounds.fetch_add(1, Ordering::Relaxed);
    })?;
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
    use sotto_models::split::plan::PlanRound;

    #[test]
    fn prepared_tables_that_fit_are_used() {
        let round = PlanRound::new("r", 512, [("w".to_owned(), 2048, 0..512)]);
        let plan = SplitPlan { kind: PlanKind::Plain, rounds: vec![round] };
        let of = |prepared: &[Set], free| automatic_set(&plan, 64, prepared, free).unwrap();
        let compact = server_bytes(&plan, Set::Default, 64, TableForm::Compact).unwrap();
        assert_eq!(of(&[], None), Set::Default);
        assert_eq!(of(&[Set::Light], None), Set::Light);
        assert_eq!(of(&[Set::Default, Set::Light], None), Set::Default);
        assert_eq!(of(&[Set::Default, Set::Light], Some(compact * 2)), Set::Light);
        assert_eq!(of(&[Set::Default], Some(compact * 2)), Set::Default);
        assert_eq!(of(&[Set::Default], Some(compact)), Set::Light, "they do not fit");
    }

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
