//! The trust suite: faults, load, hostile input and searches for what must not be there.
//!
//! The scenarios are ordinary tests, so that each can be run alone; those too long for the unit
//! tier carry `#[ignore]` with a reason and are named `trust_*`. Each prints lines of the form
//! `TRUST <row> <good>/<tried>`, which this task adds up into one table.

use crate::shell;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How much time the suite may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// About four minutes.
    Ci,
    /// At most fifteen minutes.
    Short,
    /// Everything, the 30-minute soak included.
    Full,
}

impl Budget {
    /// The budget that the command-line flags name.
    pub(crate) fn from_flags(full: bool, ci: bool) -> Self {
        match (full, ci) {
            (true, _) => Budget::Full,
            (_, true) => Budget::Ci,
            _ => Budget::Short,
        }
    }

    /// Value of `SOTTO_TRUST`, by which the scenarios choose their sizes.
    fn name(self) -> &'static str {
        match self {
            Budget::Ci => "ci",
            Budget::Short => "short",
            Budget::Full => "full",
        }
    }
}

/// Runs the suite, prints the table and fails when a scenario does.
pub(crate) fn run(budget: Budget) -> anyhow::Result<()> {
    let start = Instant::now();
    let command =
        "cargo test --release --workspace --test 'trust*' -- --include-ignored --nocapture --test-threads=1";
    println!("\n::: SOTTO_TRUST={} {command}", budget.name());
    let out = Command::new("bash")
        .args(["-c", command])
        .env("SOTTO_TRUST", budget.name())
        .current_dir(shell::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the trust suite")?;
    let text = String::from_utf8_lossy(&out.stdout);
    print!("{text}");
    let rows = table(&text);
    println!("\n| what | good / tried |\n|---|---|");
    for (row, (good, tried)) in &rows {
        println!("| {row} | {good} / {tried} |");
    }
    println!("::: trust suite {:.0} s", start.elapsed().as_secs_f64());
    if !out.status.success() {
        bail!("the trust suite failed ({})", out.status);
    }
    if rows.is_empty() {
        bail!("the trust suite reported no scenario");
    }
    Ok(())
}

/// Sums the `TRUST <row> <good>/<tried>` lines.
fn table(text: &str) -> BTreeMap<String, (u64, u64)> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.split("TRUST ").nth(1) else { continue };
        let Some((row, counts)) = rest.rsplit_once(' ') else { continue };
        let Some((good, tried)) = counts.split_once('/') else { continue };
        if let (Ok(good), Ok(tried)) = (good.parse::<u64>(), tried.parse::<u64>()) {
            let sum: &mut (u64, u64) = rows.entry(row.to_owned()).or_default();
            sum.0 += good;
            sum.1 += tried;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn rows_are_added_up() {
        let rows = table(
            "TRUST faults survived 1/1\nnoise\ntest x ... TRUST faults survived 2/3\nTRUST leaks 0/4\n",
        );
        assert_eq!(rows["faults survived"], (3, 4));
        assert_eq!(rows["leaks"], (0, 4));
        assert_eq!(rows.len(), 2);
    }
}
