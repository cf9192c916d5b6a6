//! `sotto split`: from a model to the two halves that client and server hold, with prepared tables.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, ValueEnum};
use fhe_layers::Set;
use sotto_models::classical::{import, is_predictor, split_to as classical_split_to};
use sotto_models::families::ModelConfig;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{rebind, split_to};

use super::args::parse_tau;
use super::output;
use super::progress::Bars;
use sotto_engine::fetch::{ModelRef, fetch};
use sotto_protocol::binding::{SetPreference, binding_of};
use sotto_protocol::error::{Error, Result};
use sotto_server::models::split_store;
use sotto_storage::{Cache, FetchProgress, available_bytes};

/// Which plans to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoundsToWrite {
    /// Four round trips per transformer block
    Plain,
    /// Two round trips per transformer block, twice the weights
    Fused,
    /// Both; clients choose by their network
    Both,
}

/// Arguments of `sotto split`.
#[derive(Clone, Debug, Args)]
pub struct SplitArgs {
    /// Model: a built-in name, a hub id, a .gguf file or a directory; or a predictor of XGBoost (.json), LightGBM (.txt) or
    /// ONNX (.onnx)
    #[arg(value_name = "MODEL", env = "SOTTO_MODEL")]
    pub model: String,

    /// Directory to write; --split of `sotto serve` takes it
    #[arg(long, env = "SOTTO_OUT", value_name = "DIR")]
    pub out: PathBuf,

    /// Grouping of the round trips
    #[arg(long, env = "SOTTO_ROUNDS", value_enum, default_value_t = RoundsToWrite::Plain)]
    pub rounds: RoundsToWrite,

    /// Tokens per batch of masks; a list writes one set of tables for each
    #[arg(long, env = "SOTTO_TAU", value_delimiter = ',', default_value = "64", value_parser = parse_tau)]
    pub tau: Vec<usize>,

    /// Parameter set: auto, default or light (half the memory, a little less precise). Auto is default where this machine
    /// has the memory to serve it in the faster form, else light
    #[arg(long, env = "SOTTO_SET", value_name = "SET", default_value = "auto")]
    pub set: SetPreference,

    /// Threads for preparing tables; all cores by default
    #[arg(long, env = "SOTTO_THREADS", value_name = "N")]
    pub threads: Option<usize>,

    /// Write the halves only; `sotto serve` prepares the tables on its first start
    #[arg(long, env = "SOTTO_NO_TABLES")]
    pub no_tables: bool,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Writes the split and prints one line per model digest to `out`.
///
/// # Errors
/// What fetching, reading, splitting or preparing fails with; [`Error::Usage`] on a tau without parameters.
pub fn run(args: &SplitArgs, out: &mut impl std::io::Write) -> Result<()> {
    let bars = Bars::new(args.quiet);
    let file = Path::new(&args.model);
    if is_predictor(file) && file.is_file() {
        predictor(args, file, out)?;
        return tables(args, &bars);
    }
    let fetched = fetch(&ModelRef::parse(&args.model)?, &Cache::from_env()?, &bars)?;
    let source = ModelSource::open(&fetched.path)?;
    let kinds = match args.rounds {
        RoundsToWrite::Plain => &[PlanKind::Plain][..],
        RoundsToWrite::Fused => &[PlanKind::Fused],
        RoundsToWrite::Both => &[PlanKind::Plain, PlanKind::Fused],
    };
    let set = set_for_all(args, &source.config, kinds, available_bytes())?;
    for &kind in kinds {
        let rounds = source.config.plan(kind)?.rounds.len() as u64;
        bars.begin(&format!("splitting {} ({kind})", fetched.name), Some(rounds), false);
        let done = AtomicU64::new(0);
        for (index, &tau) in args.tau.iter().enumerate() {
            let binding = binding_of(set, tau)?;
            let digest = if index == 0 {
                let progress = |_| bars.position(done.fetch_add(1, Ordering::Relaxed) + 1);
                split_to(&source, kind, &args.out, &binding, progress)?
            } else {
                rebind(&args.out, kind, &args.out.join(format!("tau{tau}")), &binding)?
            };
            output::line(out, &format!("{digest}  {kind}  tau {tau}  {set} set"))?;
        }
        bars.end();
    }
    if let Some(note) = tied_note(&source.config)?
        && !args.quiet
    {
        note!("{note}");
    }
    tables(args, &bars)
}

/// Splits trees, a linear model or a small network, which have one plan.
fn predictor(args: &SplitArgs, file: &Path, out: &mut impl std::io::Write) -> Result<()> {
    if args.rounds == RoundsToWrite::Fused {
        return Err(Error::Usage("a predictor has the plain plan only; leave out --rounds".to_owned()));
    }
    let set = match args.set {
        SetPreference::Only(set) => set,
        SetPreference::Auto => Set::Default,
    };
    let model = import(file)?;
    for (index, &tau) in args.tau.iter().enumerate() {
        let binding = binding_of(set, tau)?;
        let digest = if index == 0 {
            classical_split_to(&model, &args.out, &binding, &mut rand::random::<u64>)?
        } else {
            rebind(&args.out, PlanKind::Plain, &args.out.join(format!("tau{tau}")), &binding)?
        };
        output::line(out, &format!("{digest}  {}  tau {tau}  {set} set", PlanKind::Plain))?;
    }
    Ok(())
}

/// Prepares the tables of what was split, unless they are not wanted.
fn tables(args: &SplitArgs, bars: &Bars) -> Result<()> {
    if args.no_tables {
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for entry in split_store::find(&args.out)? {
        let label = format!("preparing {} tables", entry.part.plan().kind);
        bars.begin(&label, Some(split_store::blocks(&entry)? as u64), false);
        split_store::prepare(&entry, args.threads.unwrap_or(cores), &|done| bars.position(done as u64))?;
        bars.end();
    }
    Ok(())
}

/// The one set of all plans and taus that are written: light if any of them needs it.
fn set_for_all(args: &SplitArgs, config: &ModelConfig, kinds: &[PlanKind], free: Option<u64>) -> Result<Set> {
    for &kind in kinds {
        let plan = config.plan(kind)?;
        for &tau in &args.tau {
            if args.set.choose(&plan, tau, free)? == Set::Light {
                return Ok(Set::Light);
            }
        }
    }
    Ok(Set::Default)
}

/// Says how much of the model a client gets because the head is the embedding.
fn tied_note(config: &ModelConfig) -> Result<Option<String>> {
    let Some((rows, width)) = config.tied_head() else { return Ok(None) };
    // The products of a fused plan hold some weights twice; the plain plan has each once.
    let remote = config.plan(PlanKind::Plain)?.weights() as f64;
    let tied = rows as f64 * width as f64;
    let share = 100.0 * tied / (tied + remote);
    Ok(Some(format!(
        "note: the head is tied to the embedding, so the client part holds that matrix ({share:.0} % of the weights)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tied_head_is_pointed_out_with_its_share() {
        let config = |tied: bool| {
            let json = serde_json::json!({
                "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
                "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": tied,
            });
            sotto_models::families::config_from_json(json.to_string().as_bytes()).unwrap()
        };
        let note = |tied| tied_note(&config(tied)).unwrap();
        assert!(note(true).unwrap().contains("21 %"));
        assert_eq!(note(false), None);
    }
}
