//! `report`: runs every measurement into `benches/runs/<date>-<cpu>/` and refreshes the README's table from it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use benches::{
    machine::Machine,
    plots::draw_all,
    readme,
    run_folder::{Figures, Outcome, Step, folder_for, read_json, runs_folder, write_readme},
};
use clap::Parser;
use serde_json::json;

/// Runs the measurements, draws the pictures and refreshes the table of the README.
#[derive(Parser)]
struct Args {
    /// Five minutes instead of 45.
    #[arg(long)]
    quick: bool,
    /// Run nothing: draw and refresh from the raw files of this folder.
    #[arg(long, value_name = "FOLDER")]
    collect: Option<PathBuf>,
    /// Run only the steps whose name starts with this; the others keep their raw files.
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Folder to write (default: `benches/runs/DATE-CPU`).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the repository's README as it is.
    #[arg(long)]
    keep_readme: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (folder, outcomes) = match &args.collect {
        Some(folder) => (folder.clone(), recorded(folder)?),
        None => run_all(&args)?,
    };
    let figures = Figures::read(&folder)?;
    let pictures = draw_all(&folder, &figures)?;
    let run = read_json(&folder.join("run.json"))?;
    let line = run["machine_line"].as_str().unwrap_or("unknown").to_owned();
    let tables = format!(
        "{}\n### The linear layer, swept\n\n{}\n{}",
        readme::table(&figures, ""),
        readme::sweep(&figures),
        readme::accounting(&figures)
    );
    write_readme(&folder, &line, &outcomes, &pictures, &tables)?;
    if !args.keep_readme {
        refresh_root(&folder, &line, &figures, &pictures)?;
    }
    eprintln!("wrote {}", folder.display());
    let failed: Vec<&str> =
        outcomes.iter().filter(|o| !o.failure.is_empty()).map(|o| o.step.name.as_str()).collect();
    anyhow::ensure!(failed.is_empty(), "steps failed: {}", failed.join(", "));
    Ok(())
}

fn recorded(folder: &Path) -> anyhow::Result<Vec<Outcome>> {
    Ok(serde_json::from_value(read_json(&folder.join("run.json"))?["outcomes"].clone())?)
}

fn run_all(args: &Args) -> anyhow::Result<(PathBuf, Vec<Outcome>)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = Machine::detect(threads);
    let folder = args.out.clone().unwrap_or_else(|| folder_for(&machine));
    fs::create_dir_all(folder.join("raw"))?;
    let only = args.only.as_deref();
    let mut outcomes: Vec<Outcome> = Vec::new();
    if only.is_some() && folder.join("run.json").exists() {
        outcomes = recorded(&folder)?;
    }
    for step in steps(args.quick, threads) {
        if only.is_some_and(|prefix| !step.name.starts_with(prefix)) {
            continue;
        }
        outcomes.retain(|o| o.step.name != step.name);
        // A raw file of an earlier run must not stand for a step that fails now.
        let stale = folder.join("raw").join(format!("{}.json", step.name));
        if stale.exists() {
            fs::remove_file(stale)?;
        }
        outcomes.push(step.run(&folder));
        let run = json!({
            "machine": machine, "machine_line": machine.line(), "quick": args.quick, "outcomes": outcomes
        });
        fs::write(folder.join("run.json"), serde_json::to_string_pretty(&run)? + "\n")?;
    }
    Ok((folder, outcomes))
}

/// The measurements, quickest first. Binaries that this checkout does not have are left out.
fn steps(quick: bool, threads: usize) -> Vec<Step> {
    let mut steps = linear_steps(quick, threads);
    steps.push(Step::new("classifier", "classifier", &["--json"]));
    if quick {
        steps.push(Step::new("per-op", "per-op", &["--quick", "--json"]));
        steps.push(Step::new(
            "peers",
            "peers",
            &["--shapes", "1x768x768", "1x2048x2048", "--repeats", "1", "--json"],
        ));
    } else {
        steps.push(Step::new("per-op", "per-op", &["--json"]));
        steps.push(Step::new("peers", "peers", &["--json"]));
        for shape in ["gpt2", "smollm2-135m", "llama-3.2-1b"] {
            let name = format!("llm-{shape}");
            steps.push(Step::new(&name, "llm", &["--shape", shape, "--tokens", "64", "--json"]));
        }
        for (name, option, value) in [
            ("llm-gpt2-tau16", "--tokens-per-batch", "16"),
            ("llm-gpt2-tau256", "--tokens-per-batch", "256"),
            ("llm-gpt2-t1", "--threads", "1"),
        ] {
            // As many tokens as the largest batch: a part of one would carry the cost of all.
            let words = ["--shape", "gpt2", "--tokens", "256", option, value, "--json"];
            steps.push(Step::new(name, "llm", &words));
        }
        steps.push(Step::new("chat-fused", "chat", &["--rounds", "fused", "--json"]));
        for rounds in ["plain", "fused"] {
            let name = format!("chat-{rounds}-rtt20");
            let words = ["--rounds", rounds, "--rtt-ms", "20", "--tokens", "64", "--no-cold", "--json"];
            steps.push(Step::new(&name, "chat", &words));
        }
        steps.push(Step::new("anonymize", "anonymize", &["--json"]));
    }
    steps.push(Step::new("chat", "chat", &["--json"]));
    let bins = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join("bin");
    steps.retain(|step| bins.join(format!("{}.rs", step.bin.replace('-', "_"))).exists());
    steps
}

/// The sweep of one layer: size, tokens per batch, threads, instruction set, table form.
fn linear_steps(quick: bool, threads: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut push = |d: usize, tau: usize, threads: usize, form: &str, isa: Option<&str>| {
        let mut name = format!("linear-{d}x{d}-tau{tau}-t{threads}-{form}");
        let (d, tau, threads) = (d.to_string(), tau.to_string(), threads.to_string());
        let mut words =
            vec!["--in", &d, "--out", &d, "--tokens-per-batch", &tau, "--threads", &threads, "--form", form];
        if let Some(isa) = isa {
            name.push_str("-isa-");
            name.push_str(isa);
            words.extend(["--isa", isa]);
        }
        words.push("--json");
        if steps.iter().all(|s| s.name != name) {
            steps.push(Step::new(&name, "linear", &words));
        }
    };
    let sizes: &[usize] = if quick { &[256, 1024, 2048] } else { &[256, 512, 1024, 2048, 4096, 8192] };
    let batches: &[usize] = if quick { &[16, 64, 256] } else { &[8, 16, 32, 64, 128, 256] };
    for &d in sizes {
        push(d, 64, threads, "ntt", None);
    }
    for &tau in batches {
        push(2048, tau, threads, "ntt", None);
    }
    for t in 1..=threads {
        push(2048, 64, t, "ntt", None);
    }
    push(2048, 64, threads, "compact", None);
    for isa in if quick { &["avx2"][..] } else { &["scalar", "avx2"][..] } {
        push(1024, 64, threads, "ntt", Some(isa));
    }
    steps
}

fn refresh_root(
    folder: &Path,
    line: &str,
    figures: &Figures,
    pictures: &[(String, String)],
) -> anyhow::Result<()> {
    let root = runs_folder();
    let root = root.parent().and_then(Path::parent).context("benches lies in the repository")?;
    let name = folder.file_name().context("the run folder has a name")?.to_string_lossy();
    let link = format!("benches/runs/{name}/");
    let machine = |link: &str| format!("\nMachine: {line}. Commands and raw output: [{link}]({link}).\n");
    readme::refresh(&root.join("README.md"), &(readme::headlines(figures, &link) + &machine(&link)))?;
    // The guide lies one folder deeper.
    let link = format!("../{link}");
    let mut text = readme::table(figures, &link);
    if let Some((file, caption)) = pictures.first() {
        text.push_str(&format!("\n![{caption}]({link}{file})\n"));
    }
    readme::refresh(&root.join("docs/benchmarks.md"), &(text + &machine(&link)))
}
