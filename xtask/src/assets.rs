//! The Dockerfile's lint; man pages and shell completions, made by the binaries themselves so that they cannot disagree with them.

use crate::shell;
use anyhow::{Context, ensure};
use std::path::Path;

/// `(program, crate)`.
const PROGRAMS: &[(&str, &str)] = &[("sotto", "sotto"), ("anonymize", "anonymizer")];

const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// Lints the Dockerfile. `.ci/run` installs the linter.
pub(crate) fn lint() -> anyhow::Result<()> {
    shell::run("hadolint packaging/docker/Dockerfile")
}

/// Lints the Dockerfile; writes `packaging/man/*.1` and `packaging/completions/*`.
pub(crate) fn run() -> anyhow::Result<()> {
    lint()?;
    let folder = shell::root().join("packaging");
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for made in [&man, &completions] {
        // What a command that is gone has left behind.
        if made.exists() {
            std::fs::remove_dir_all(made).with_context(|| format!("cannot clear {}", made.display()))?;
        }
        std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    for (program, package) in PROGRAMS {
        let command = format!("cargo run --release -q -p {package} --bin {program} --");
        shell::run(&format!("{command} man --out packaging/man"))?;
        for name in SHELLS {
            shell::run(&format!("{command} completions {name} > packaging/completions/{program}.{name}"))?;
        }
        ensure!(man.join(format!("{program}.1")).is_file(), "{program} wrote no manual page");
    }
    println!("assets: {} manual pages, {} completion scripts", count(&man)?, count(&completions)?);
    Ok(())
}

fn count(folder: &Path) -> anyhow::Result<usize> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.count())
}
