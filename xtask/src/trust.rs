//! The trust suite: faults, load, hostile input and searches for what must not be there.
//!
//! The scenarios are ordinary tests, so that each can be run alone; those too long for the unit
//! tier carry `#[ignore]` with a reason and are named `trust_*`. Each prints lines of the form
//! `TRUST <row> <good>/<tried> [note]`, which this task adds up into one table.

use crate::shell;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
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

/// How a row reads in the table.
#[derive(Clone, Copy)]
enum Reads {
    /// "17 / 17": so many of so many.
    Good,
    /// "2408 / 0": so many, and so many failures.
    Failures,
    /// As [`Reads::Good`], with what the scenario noted.
    Noted,
}

/// The rows that every run must report, and what they are called in the table.
const ROWS: &[(&str, &str, Reads)] = &[
    ("faults survived", "faults survived / tried", Reads::Good),
    ("hostile frames without a crash", "frames fuzzed / crashes", Reads::Failures),
    ("clients served", "clients served / of", Reads::Good),
    ("tokens received under load", "tokens wanted under load / lost", Reads::Failures),
    ("bodies under a pad of their own", "bodies sent / slots used twice", Reads::Failures),
    ("searches without a leak", "searches for prompt and weights / leaks found", Reads::Failures),
    ("searches that find what is there", "controls of these searches found / planted", Reads::Good),
    ("byte positions of bodies that are uniform", "byte positions of bodies uniform / tested", Reads::Good),
    ("tokens right", "tokens judged / wrong", Reads::Failures),
    ("server holds nothing afterwards", "checks of what a server still holds / leftovers", Reads::Failures),
    (
        "honest clients served after hostile ones",
        "honest clients served after hostile ones / of",
        Reads::Good,
    ),
    (
        "lies of a server answered with a clear error",
        "lies of a server that end in a clear error / told",
        Reads::Good,
    ),
    (
        "lies that leave the client's traffic as it was",
        "lies that leave the client's traffic as it was / told",
        Reads::Good,
    ),
    ("attacks that got nothing", "attacks tried / that got nothing", Reads::Good),
    ("clients with a fair share", "clients with a fair share / of", Reads::Noted),
    ("cancels that freed the server", "cancels that freed the server / tried", Reads::Noted),
    ("guessed placeholders that got nothing", "guessed placeholders that got nothing / tried", Reads::Good),
    ("addresses that carried nothing off", "addresses that carried nothing off / tried", Reads::Good),
    ("places of requests that leaked nothing", "places of requests that leaked nothing / tried", Reads::Good),
    ("leaks that verify does not hide", "leaks that verify does not hide / tried", Reads::Good),
    ("empty keys that opened nothing", "empty keys that opened nothing / tried", Reads::Good),
    (
        "secrets kept off command lines and logs",
        "secrets kept off command lines and logs / tried",
        Reads::Good,
    ),
    ("lying detectors refused", "lying detectors refused / tried", Reads::Good),
    ("refusals that say when to come back", "refusals that say when to come back / made", Reads::Good),
];

/// What the scenarios reported for a row.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    good: u64,
    tried: u64,
    note: String,
}

/// Runs the suite, prints the table and fails when a scenario does, or when one is missing.
pub(crate) fn run(budget: Budget) -> anyhow::Result<()> {
    let start = Instant::now();
    let flags = "--include-ignored --nocapture --test-threads=1";
    let all = format!("cargo test --release --workspace --test 'trust*' -- {flags}");
    let faults = format!("cargo test --release --workspace --test trust -- faults:: {flags}");
    // Servers and clients agree on the lean form by themselves; each fault must be survived in the others as well.
    let runs = [("auto", &all), ("stateless", &faults), ("full", &faults)];
    let mut text = String::new();
    let mut failed = Vec::new();
    for (wire, command) in runs {
        if !run_one(budget, wire, command, &mut text)? {
            failed.push(wire);
        }
    }
    let sums = add_up(&text);
    println!("\n{}", table(&sums));
    println!("::: trust suite ({}) {:.0} s", budget.name(), start.elapsed().as_secs_f64());
    if !failed.is_empty() {
        bail!("the trust suite failed in the wire forms {}", failed.join(", "));
    }
    check(&sums)
}

/// Runs `command` with scenarios in one wire form and appends what it printed to `text`; whether all of them passed.
fn run_one(budget: Budget, wire: &str, command: &str, text: &mut String) -> anyhow::Result<bool> {
    println!("\n::: SOTTO_TRUST={} SOTTO_TRUST_WIRE={wire} {command}", budget.name());
    let mut child = Command::new("bash")
        .args(["-c", command])
        .env("SOTTO_TRUST", budget.name())
        .env("SOTTO_TRUST_WIRE", wire)
        .current_dir(shell::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the trust suite")?;
    for line in BufReader::new(child.stdout.take().context("no output of the trust suite")?).lines() {
        let line = line.context("cannot read what the trust suite says")?;
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    Ok(child.wait().context("the trust suite got lost")?.success())
}

/// Every row must be there, be known, and have nothing but good outcomes.
fn check(sums: &BTreeMap<String, Sum>) -> anyhow::Result<()> {
    let missing =
        ROWS.iter().filter(|(row, ..)| !sums.contains_key(*row)).map(|(row, ..)| format!("{row}: missing"));
    let wrong = sums.iter().filter_map(|(row, sum)| match () {
        () if !ROWS.iter().any(|(known, ..)| known == row) => Some(format!("{row}: not a row of the table")),
        () if sum.good != sum.tried || sum.tried == 0 => {
            Some(format!("{row}: {} of {}", sum.good, sum.tried))
        }
        () => None,
    });
    let wrong: Vec<String> = missing.chain(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { bail!("the trust suite's table:\n  {}", wrong.join("\n  ")) }
}

/// The table that goes into the README.
fn table(sums: &BTreeMap<String, Sum>) -> String {
    let lines = ROWS.iter().map(|&(row, label, reads)| match sums.get(row) {
        None => format!("| {label} | missing |"),
        Some(Sum { good, tried, note }) => match reads {
            Reads::Good => format!("| {label} | {good} / {tried} |"),
            Reads::Failures => format!("| {label} | {tried} / {} |", tried.saturating_sub(*good)),
            Reads::Noted => format!("| {label} | {good} / {tried} ({note}) |"),
        },
    });
    let lines: Vec<String> = lines.collect();
    format!("| what | outcome |\n|---|---|\n{}", lines.join("\n"))
}

/// Sums the `TRUST <row> <good>/<tried> [note]` lines; of the notes the last one stays.
fn add_up(text: &str) -> BTreeMap<String, Sum> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.split("TRUST ").nth(1) else { continue };
        let Some((row, good, tried, note)) = parse(rest) else { continue };
        let sum: &mut Sum = sums.entry(row.to_owned()).or_default();
        sum.good += good;
        sum.tried += tried;
        note.clone_into(&mut sum.note);
    }
    sums
}

/// Row, counts and note of a line.
fn parse(line: &str) -> Option<(&str, u64, u64, &str)> {
    let mut at = 0;
    for word in line.split(' ') {
        let counts = word.split_once('/').map(|(good, tried)| (good.parse(), tried.parse()));
        if let Some((Ok(good), Ok(tried))) = counts {
            return Some((line[..at].trim(), good, tried, line[at + word.len()..].trim()));
        }
        at += word.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{ROWS, Sum, add_up, check, table};

    #[test]
    fn rows_are_added_up() {
        let sums = add_up(
            "TRUST faults survived 1/1 first\nnoise\ntest x ... TRUST faults survived 2/3 second one\nTRUST leaks 0/4\nTRUST 1/2\nTRUST x\n",
        );
        assert_eq!(sums["faults survived"], Sum { good: 3, tried: 4, note: "second one".to_owned() });
        assert_eq!(sums["leaks"], Sum { good: 0, tried: 4, note: String::new() });
        assert_eq!(sums.len(), 3);
    }

    #[test]
    fn a_missing_an_unknown_and_a_bad_row_fail() {
        let all: String = ROWS.iter().map(|(row, ..)| format!("TRUST {row} 5/5 note\n")).collect();
        check(&add_up(&all)).unwrap();
        assert!(table(&add_up(&all)).contains("| frames fuzzed / crashes | 5 / 0 |"));
        let without = all.replacen("TRUST clients served 5/5", "", 1);
        assert!(check(&add_up(&without)).unwrap_err().to_string().contains("clients served: missing"));
        assert!(check(&add_up(&format!("{all}TRUST faults survived 1/2\n"))).is_err());
        assert!(check(&add_up(&format!("{all}TRUST something 1/1\n"))).is_err());
        assert!(check(&add_up(&all.replacen("5/5", "0/0", 1))).is_err());
    }
}
