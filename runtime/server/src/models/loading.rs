//! From split directories to models in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use sotto_models::split::plan::PlanKind;

use crate::bodies::executor::{Tables, Weights};
use crate::catalogue::list_files;
use crate::models::registry::{Model, ModelInfo, RoundShape};
use crate::models::split_store;
use crate::models::split_store::SplitEntry;
use crate::ops::config::{Role, ServerConfig};
use crate::transport::listen::pool;
use sotto_protocol::error::{Error, Result};
use sotto_storage::ProcessMemory;

/// A split that was found, not yet loaded.
pub(crate) struct FoundSplit {
    pub(crate) model: Arc<Model>,
    entry: SplitEntry,
}

/// Reads the manifests below `directories`.
///
/// # Errors
/// As [`split_store::find`]; [`Error::Usage`] if there is none with one of `plans`.
pub(crate) fn find_splits(directories: &[PathBuf], plans: &[PlanKind]) -> Result<Vec<FoundSplit>> {
    let mut found = Vec::new();
    for directory in directories {
        for entry in split_store::find(directory)? {
            if !plans.is_empty() && !plans.contains(&entry.part.plan().kind) {
                continue;
            }
            let model = Model::new(info(&entry)?);
            found.push(FoundSplit { model, entry });
        }
    }
    if found.is_empty() {
        return Err(Error::Usage("no split with these rounds; see --split and --rounds".to_owned()));
    }
    Ok(found)
}

fn info(entry: &SplitEntry) -> Result<ModelInfo> {
    let manifest = entry.part.manifest();
    let params = sotto_protocol::binding::params(&manifest.protocol)?;
    let rounds: Vec<_> = manifest
        .plan
        .rounds
        .iter()
        .map(|round| RoundShape { d_in: round.d_in, rows: round.rows(), weights: round.weights() })
        .collect();
    let rows: usize = rounds.iter().map(|round| round.rows).sum();
    let client_bytes = list_files(&entry.client_dir)?.iter().map(|(_, _, size)| size).sum();
    Ok(ModelInfo {
        name: manifest.model.clone(),
        digest: entry.part.digest().0,
        plan: manifest.plan.kind.as_str().to_owned(),
        tau: params.tau(),
        phi: params.phi(),
        params_id: params.id().to_owned(),
        architecture: manifest.family.as_str().to_owned(),
        rounds,
        blocks: rows.div_ceil(params.phi()),
        client_dir: entry.client_dir.clone(),
        client_bytes,
    })
}

/// Loads weights and tables as the roles need; tables that are missing or damaged are prepared and saved. `background`
/// receives the threads that save and expand tables while they serve; `keep_on` ends expanding.
///
/// # Errors
/// Of reading, preparing or saving them.
pub(crate) fn load_all(
    config: &ServerConfig,
    splits: Vec<FoundSplit>,
    background: &dyn Fn(JoinHandle<()>),
    keep_on: &Arc<dyn Fn() -> bool + Send + Sync>,
) -> Result<()> {
    let pool = pool(config.threads, "sotto-load", None)?;
    let needs_tables = config.roles.contains(&Role::Mask);
    for FoundSplit { model, entry } in splits {
        let start = Instant::now();
        // Tables first: masks can be made from them while the weights, which only bodies need, are still being read.
        let (saved, weights) = pool.install(|| {
            rayon::join(
                || if needs_tables { load_tables(config, &model, &entry) } else { Ok(None) },
                || if config.roles.contains(&Role::Body) { load_weights(&model, &entry) } else { Ok(()) },
            )
        });
        weights?;
        if needs_tables {
            split_store::remove_orphan(&entry.server_dir);
            let (tables, save_to) = match saved? {
                Some(tables) => (tables, None),
                None => (prepare_tables(config, &model, &entry)?, Some(entry.server_dir.clone())),
            };
            background(tables.improve(save_to, Arc::clone(keep_on))?);
        }
        let memory = ProcessMemory::of(std::process::id());
        tracing::info!(
            model = model.info.name,
            plan = model.info.plan,
            parameters = model.info.params_id,
            seconds = start.elapsed().as_secs_f64(),
            weights_mb = model.info.weight_bytes() / 1_000_000,
            tables_mb = model.table_bytes() / 1_000_000,
            process_mb = memory.map_or(0, |memory| memory.resident_bytes / 1_000_000),
            "model loaded"
        );
    }
    Ok(())
}

fn load_weights(model: &Model, entry: &SplitEntry) -> Result<()> {
    model.set_weights(Arc::new(Weights::load(entry)?));
    Ok(())
}

/// The saved tables, if there are any of use.
fn load_tables(config: &ServerConfig, model: &Model, entry: &SplitEntry) -> Result<Option<Arc<Tables>>> {
    if !entry.tables_path().is_file() {
        return Ok(None);
    }
    let Some(tables) = Tables::load(entry, config.form)?.map(Arc::new) else { return Ok(None) };
    model.set_tables(Arc::clone(&tables));
    Ok(Some(tables))
}

fn prepare_tables(config: &ServerConfig, model: &Model, entry: &SplitEntry) -> Result<Arc<Tables>> {
    // Tables outlive the weights that they were made from. Against the answers of damaged ones, a client has its own
    // check of weights.
    entry.part.verify()?;
    let tables = match model.weights_now() {
        Some(weights) => Tables::prepare(&weights, config)?,
        // A mask worker needs the weights for this only.
        None => Tables::prepare(&Weights::load(entry)?, config)?,
    };
    let tables = Arc::new(tables);
    model.set_tables(Arc::clone(&tables));
    Ok(tables)
}
