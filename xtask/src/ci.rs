//! What continuous integration runs, in the order that finds the cheapest mistake first.
//!
//! Everything builds in the release profile and in one target directory, so that each crate is
//! compiled once for checks (clippy and rustdoc share it) and once for code.

use crate::{assets, crate_docs, features, layout, links, readme, shell, trust};
use anyhow::Context;

/// Runs every step; the first failure ends the run with its command.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::run("cargo fmt --all --check")?;
    layout::run()?;
    links::run()?;
    crate_docs::run()?;
    assets::lint()?;
    shell::run("typos")?;
    licences()?;
    let tests = readme::test_command()?;
    shell::run(&tests)?;
    forced_scalar()?;
    shell::run("cargo clippy --release --workspace --all-targets -- -D warnings")?;
    shell::run_with("cargo doc --release --workspace --no-deps", &[("RUSTDOCFLAGS", "-D warnings")])?;
    features::run()?;
    readme::run()?;
    smoke()?;
    trust::run(trust::Budget::Ci)
}

/// cargo-deny: bans, licences and sources. Advisories need a database that not every machine can
/// fetch; they are checked where it can be had and reported as skipped where not. It looks at the
/// crates of all platforms, most of which a build of this one does not download.
fn licences() -> anyhow::Result<()> {
    shell::run("cargo fetch --locked --quiet")?;
    shell::run("cargo deny --offline check bans licenses sources")?;
    if shell::run("timeout 60 cargo deny check advisories").is_err() {
        println!("::: advisories: SKIPPED, the advisory database cannot be fetched from this machine");
    }
    Ok(())
}

/// Runs the tests of `fhe-layers` again with the scalar kernels forced. The binaries are those that
/// the workspace build made: nothing is compiled twice.
fn forced_scalar() -> anyhow::Result<()> {
    let listing =
        shell::output("cargo test --release --workspace --no-run --message-format=json 2>/dev/null")?;
    let mut ran = 0;
    for line in listing.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        let Some(binary) = message["executable"].as_str() else { continue };
        if message["profile"]["test"] == true && manifest.ends_with("fhe-layers/Cargo.toml") {
            shell::run_with(&format!("cd fhe-layers && {binary} --quiet"), &[("SOTTO_ISA", "scalar")])?;
            ran += 1;
        }
    }
    anyhow::ensure!(ran > 0, "no test binary of fhe-layers was found");
    Ok(())
}

/// One quick run of the layer benchmark, which checks its own answers.
fn smoke() -> anyhow::Result<()> {
    let out = shell::output(
        "cargo run --release -q -p benches --bin linear -- --in 576 --out 576 --tokens-per-batch 64 --threads 2 --form ntt --json",
    )?;
    let last = out.lines().last().context("the benchmark printed nothing")?;
    let report: serde_json::Value =
        serde_json::from_str(last).context("the benchmark's last line is not JSON")?;
    anyhow::ensure!(report["exact_mode_ok"] == true, "exact mode failed: {last}");
    println!("{last}");
    Ok(())
}
