//! Running commands from the workspace root with a line that says what runs and how long it took.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The workspace root: the parent of this crate's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs `command` through `bash` in the workspace root; fails when its exit code is not 0.
pub(crate) fn run(command: &str) -> anyhow::Result<()> {
    run_with(command, &[])
}

/// As [`run`], with extra environment variables.
pub(crate) fn run_with(command: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
    let shown: String = env.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    println!("\n::: {shown}{command}");
    let start = Instant::now();
    let status = Command::new("bash")
        .args(["-c", command])
        .envs(env.iter().copied())
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start: {command}"))?;
    println!("::: {:.1} s, {status}", start.elapsed().as_secs_f64());
    if !status.success() {
        bail!("failed ({status}): {command}");
    }
    Ok(())
}

/// Standard output of `command`; standard error passes through.
pub(crate) fn output(command: &str) -> anyhow::Result<String> {
    let out = Command::new("bash")
        .args(["-c", command])
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start: {command}"))?;
    if !out.status.success() {
        bail!("failed ({}): {command}", out.status);
    }
    String::from_utf8(out.stdout).with_context(|| format!("output is not UTF-8: {command}"))
}
