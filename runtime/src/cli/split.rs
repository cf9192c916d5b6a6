//! `sotto split`: from a model to the two halves that client and server hold, with prepared tables.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use models::config::ModelConfig;
use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::split;

use super::args::parse_tau;
use super::output;
use super::progress::Bars;
use crate::error::Result;
use crate::fetch::{Cache, FetchProgress, ModelRef, fetch};
use crate::split_store;

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
    /// Model: a built-in name, a hub id, a .gguf file or a directory
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
/// What fetching, reading, splitting or preparing fails with; [`Error::Usage`](crate::Error::Usage) on a tau without parameters.
pub fn run(args: &SplitArgs, out: &mut impl std::io::Write) -> Result<()> {
    let bindings = args.tau.iter().map(|&tau| split_store::binding(tau)).collect::<Result<Vec<_>>>()?;
    let bars = Bars::new(args.quiet);
    let fetched = fetch(&ModelRef::parse(&args.model)?, &Cache::from_env()?, &bars)?;
    let source = ModelSource::open(&fetched.path)?;
    let kinds = match args.rounds {
        RoundsToWrite::Plain => &[PlanKind::Plain][..],
        RoundsToWrite::Fused => &[PlanKind::Fused],
        RoundsToWrite::Both => &[PlanKind::Plain, PlanKind::Fused],
    };
    for &kind in kinds {
        bars.begin(&format!("splitting {} ({kind})", fetched.name), None, false);
        let parts = split(&source, kind, |_| {})?;
        for (index, binding) in bindings.iter().enumerate() {
            let root =
                if index == 0 { args.out.clone() } else { args.out.join(format!("tau{}", binding.tau)) };
            let digest = parts.write(&root, binding)?;
            output::line(out, &format!("{digest}  {kind}  tau {}", binding.tau))?;
        }
        bars.end();
    }
    if let Some(note) = tied_note(&source.config)?
        && !args.quiet
    {
        eprintln!("{note}");
    }
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

/// Says how much of the model a client gets because the head is the embedding.
fn tied_note(config: &ModelConfig) -> Result<Option<String>> {
    let Some((rows, width)) = config.tied_head() else { return Ok(None) };
    // The products of a fused plan hold some weights twice; the plain plan has each once.
    let remote = config.split_family().plan(PlanKind::Plain)?.weights() as f64;
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
            ModelConfig::Llama(models::llama::Config::from_json(json.to_string().as_bytes()).unwrap())
        };
        let note = |tied| tied_note(&config(tied)).unwrap();
        assert!(note(true).unwrap().contains("21 %"));
        assert_eq!(note(false), None);
    }
}
