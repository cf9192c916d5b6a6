//! Man pages and shell completions, made by the binary itself so that they cannot disagree with it.

use crate::shell;

/// Writes `packaging/man/*.1` and `packaging/completions/*`.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::run("mkdir -p packaging/man packaging/completions")?;
    shell::run("cargo run --release -q -- man --out packaging/man")?;
    for name in ["bash", "zsh", "fish"] {
        shell::run(&format!(
            "cargo run --release -q -- completions {name} > packaging/completions/sotto.{name}"
        ))?;
    }
    Ok(())
}
