//! A run folder `benches/runs/<date>-<cpu>/`: raw reports, the commands that made them, pictures and a README.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::Machine;

/// One command of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// File under `raw/`, without its extension.
    pub name: String,
    /// Binary of this crate.
    pub bin: String,
    /// Its arguments.
    pub words: Vec<String>,
}

/// How a step came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// Seconds it took.
    pub seconds: f64,
    /// Empty when it succeeded with its checks.
    pub failure: String,
}

impl Step {
    /// A step.
    #[must_use]
    pub fn new(name: &str, bin: &str, words: &[&str]) -> Self {
        Self { name: name.into(), bin: bin.into(), words: words.iter().map(ToString::to_string).collect() }
    }

    /// The command as a person would type it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run --release -q -p benches --bin {} -- {}", self.bin, self.words.join(" "))
    }

    /// Runs it and writes `raw/<name>.json`; a failure is kept, not raised, so that the other steps still run.
    #[must_use]
    pub fn run(&self, folder: &Path) -> Outcome {
        eprintln!("== {}", self.command());
        let start = Instant::now();
        let failure = crate::linear_run::run_bin(&self.bin, &self.words)
            .and_then(|report| write_raw(folder, &self.name, &self.command(), report))
            .err()
            .map_or_else(String::new, |error| format!("{error:#}"));
        if !failure.is_empty() {
            eprintln!("FAILED {}: {failure}", self.name);
        }
        Outcome { step: self.clone(), seconds: start.elapsed().as_secs_f64(), failure }
    }
}

/// The raw report with the command that made it, one file per command.
fn write_raw(folder: &Path, name: &str, command: &str, mut report: Value) -> anyhow::Result<()> {
    let object = report.as_object_mut().context("a report is a JSON object")?;
    object.insert("command".into(), json!(command));
    let file = folder.join("raw").join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| file.display().to_string())
}

/// The folder of today's run on this machine, under `benches/runs`.
#[must_use]
pub fn folder_for(machine: &Machine) -> PathBuf {
    runs_folder().join(format!("{}-{}", machine.date, machine.slug()))
}

/// `benches/runs`.
#[must_use]
pub fn runs_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runs")
}

/// The figures of a run folder, as its raw files have them; what was not run is null.
#[derive(Debug, Default)]
pub struct Figures {
    /// Machine line of the run.
    pub machine: Value,
    /// Reports of `--bin linear`.
    pub linear: Vec<Value>,
    /// Report of `--bin per-op`.
    pub per_op: Value,
    /// Report of `--bin classifier`.
    pub classifier: Value,
    /// Report of `--bin peers`.
    pub peers: Value,
    /// Reports of the other binaries, by file name.
    pub others: Vec<(String, Value)>,
}

impl Figures {
    /// Reads `raw/*.json` and `run.json` of `folder`.
    ///
    /// # Errors
    /// If a file cannot be read or is not JSON.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut figures = Self::default();
        let run: Value = read_json(&folder.join("run.json"))?;
        figures.machine = run["machine"].clone();
        let mut files: Vec<PathBuf> = fs::read_dir(folder.join("raw"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        files.sort();
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let mut report = read_json(&file)?;
            match name.as_str() {
                "per-op" => figures.per_op = report,
                "classifier" => figures.classifier = report,
                "peers" => figures.peers = report,
                name if name.starts_with("linear-") => {
                    // Whether the instruction set was asked for or the kernels' own choice.
                    if let Some(isa) = name.split_once("-isa-") {
                        report["sweep_isa"] = json!(isa.1);
                    }
                    figures.linear.push(report);
                }
                _ => figures.others.push((name, report)),
            }
        }
        Ok(figures)
    }

    /// Name of the model of the per-op table.
    #[must_use]
    pub fn model(&self) -> &str {
        self.per_op["model"]["name"].as_str().unwrap_or("the model")
    }

    /// Threads of the run.
    #[must_use]
    pub fn threads(&self) -> f64 {
        self.machine["threads"].as_f64().unwrap_or(1.0)
    }

    /// The report of another binary, null when there is none.
    #[must_use]
    pub fn other(&self, name: &str) -> &Value {
        self.others.iter().find(|(n, _)| n == name).map_or(&Value::Null, |(_, report)| report)
    }

    /// Milliseconds per token of all linear layers of the blocks, by the per-op table.
    #[must_use]
    pub fn linear_layers_ms(&self) -> Option<f64> {
        let sum: f64 = self
            .headline()
            .filter(|r| r["op"] == "linear" && r["name"] != "lm_head")
            .filter_map(|r| r["encrypted_ms_extrapolated"].as_f64())
            .sum();
        (sum > 0.0).then_some(sum)
    }

    /// Milliseconds per token of everything but the linear layers under TFHE, plus ours for those.
    #[must_use]
    pub fn all_tfhe_ms(&self) -> Option<f64> {
        let sum: f64 = self
            .headline()
            .filter(|r| r["op"] != "linear" && r["op"] != "embedding")
            .filter_map(|r| r["encrypted_ms_extrapolated"].as_f64())
            .sum();
        (sum > 0.0).then_some(sum)
    }

    /// Each matrix peer's milliseconds per token for the model's linear layers: its time on 1 x 2048 x 2048 (or the
    /// largest single-token shape that ran) per multiply-accumulate, times the model's.
    #[must_use]
    pub fn peers_per_token(&self) -> Vec<(String, f64)> {
        let macs: f64 = self.per_op["model"]["linears"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| Some(m["d_in"].as_f64()? * m["d_out"].as_f64()? * m["count"].as_f64()?))
            .sum();
        let mut found: Vec<(String, f64, f64)> = Vec::new();
        for shape in self.peers["shapes"].as_array().into_iter().flatten() {
            let size = shape["d_in"].as_f64().unwrap_or(0.0) * shape["d_out"].as_f64().unwrap_or(0.0);
            if shape["tokens"] != 1 || size == 0.0 {
                continue;
            }
            for peer in shape["peers"].as_array().into_iter().flatten() {
                let (Some(name), Some(ms)) = (peer["peer"].as_str(), peer["total_ms"].as_f64()) else {
                    continue;
                };
                found.retain(|(n, s, _)| n != name || *s > size);
                if !found.iter().any(|(n, ..)| n == name) {
                    found.push((name.to_owned(), size, ms / size * macs));
                }
            }
        }
        found.into_iter().filter(|f| f.2 > 0.0).map(|(name, _, ms)| (name, ms)).collect()
    }

    fn headline(&self) -> impl Iterator<Item = &Value> {
        self.per_op["rows"].as_array().into_iter().flatten().filter(|r| r["headline"] == true)
    }
}

/// Reads a JSON file.
///
/// # Errors
/// If it cannot be read or is not JSON.
pub fn read_json(file: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}

/// Writes the folder's README: machine, `tables` of results, pictures, commands with their outcomes.
///
/// # Errors
/// If a file cannot be written.
pub fn write_readme(
    folder: &Path,
    machine_line: &str,
    outcomes: &[Outcome],
    pictures: &[(String, String)],
    tables: &str,
) -> anyhow::Result<()> {
    let mut text = format!(
        "# Run {}\n\nMachine: {machine_line}\n\nMade by `cargo run --release -p benches --bin report`; nothing here is typed by \
         hand. Fields are explained in [benches/README.md](../../README.md).\n\n## Results\n\n{tables}\n",
        folder.file_name().unwrap_or_default().to_string_lossy()
    );
    text.push_str("## Pictures\n\n");
    for (file, caption) in pictures {
        text.push_str(&format!("![{caption}]({file})\n\n"));
    }
    text.push_str("## Commands\n\nEach checks its own answers and fails when one is wrong.\n\n");
    text.push_str("| raw file | command | seconds | outcome |\n|---|---|---:|---|\n");
    for outcome in outcomes {
        let ok = outcome.failure.is_empty();
        let file = format!("[{0}](raw/{0}.json)", outcome.step.name);
        text.push_str(&format!(
            "| {} | `{}` | {:.0} | {} |\n",
            if ok { file } else { outcome.step.name.clone() },
            outcome.step.command(),
            outcome.seconds,
            if ok { "ok".to_owned() } else { format!("failed: {}", outcome.failure.replace('|', "/")) }
        ));
    }
    fs::write(folder.join("README.md"), text)?;
    Ok(())
}
