//! `cargo xtask fuzz`: every libFuzzer target for its share of the time, from the committed seeds and what earlier runs found.
//!
//! It wants a nightly toolchain and `cargo-fuzz`, which continuous integration does not need: there the property tests drive
//! the same bodies.

use crate::shell;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Inputs longer than this find little more: every decoder has its header in the first kilobytes.
const MAX_INPUT_BYTES: usize = 8192;

/// What a target did.
struct Outcome {
    target: String,
    executions: u64,
    crashed: bool,
}

/// Runs all targets, or those that `only` names, for `minutes` together; fails when one crashes.
pub(crate) fn run(minutes: f64, only: &[String]) -> anyhow::Result<()> {
    let listed = Command::new("cargo")
        .args(["+nightly", "fuzz", "list"])
        .current_dir(shell::root())
        .output()
        .context("cannot start cargo fuzz; `cargo install cargo-fuzz`, and a nightly toolchain")?;
    if !listed.status.success() {
        bail!("cargo +nightly fuzz list: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    let listed = String::from_utf8(listed.stdout)?;
    let targets: Vec<&str> =
        listed.lines().filter(|target| only.is_empty() || only.iter().any(|one| one == target)).collect();
    if targets.is_empty() {
        bail!("no such target; there are {}", listed.replace('\n', " "));
    }
    let seconds = ((minutes * 60.0 / targets.len() as f64) as u64).max(1);
    let outcomes = targets.iter().map(|target| fuzz(target, seconds)).collect::<anyhow::Result<Vec<_>>>()?;
    println!("\n| target | executions | crashes |\n|---|---|---|");
    for Outcome { target, executions, crashed } in &outcomes {
        println!("| `{target}` | {executions} | {} |", u8::from(*crashed));
    }
    let total: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    println!("| all | {total} | {} |", outcomes.iter().filter(|outcome| outcome.crashed).count());
    let crashed: Vec<&str> =
        outcomes.iter().filter(|outcome| outcome.crashed).map(|outcome| outcome.target.as_str()).collect();
    if crashed.is_empty() { Ok(()) } else { bail!("crashed: {}; see fuzz/artifacts", crashed.join(", ")) }
}

/// Runs one target for `seconds`.
fn fuzz(target: &str, seconds: u64) -> anyhow::Result<Outcome> {
    let fuzz = shell::root().join("fuzz");
    let found = Path::new("fuzz/corpus").join(target);
    std::fs::create_dir_all(shell::root().join(&found))?;
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", target]).arg(&found);
    if fuzz.join("seeds").join(target).is_dir() {
        command.arg(Path::new("fuzz/seeds").join(target));
    }
    command.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_INPUT_BYTES}"));
    command.args(["-print_final_stats=1", "-rss_limit_mb=2048"]).current_dir(shell::root());
    println!("::: {command:?}");
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).output().context("cannot start cargo fuzz")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let executions = executions(&said);
    if !output.status.success() {
        println!("{said}");
    }
    match executions {
        Some(executions) => {
            Ok(Outcome { target: target.to_owned(), executions, crashed: !output.status.success() })
        }
        None => bail!("{target} did not run: {}", said.lines().last().unwrap_or_default()),
    }
}

/// The number of executions in libFuzzer's last words.
fn executions(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::executions;

    #[test]
    fn the_number_of_executions_is_read() {
        let said = "#12 DONE\nstat::number_of_executed_units: 4711\nstat::peak_rss_mb: 60\n";
        assert_eq!(executions(said), Some(4711));
        assert_eq!(executions("error: no such target"), None);
    }
}
