//! The README's commands, run exactly as printed.
//!
//! A fenced block marked ```` ```sh ```` in README.md holds one command a line; blocks marked
//! ```` ```sh long ```` are shown to the reader and not run here.

use crate::shell;
use anyhow::{Context, ensure};

/// Commands of the README's `sh` blocks, in order.
pub(crate) fn commands() -> anyhow::Result<Vec<String>> {
    let path = shell::root().join("README.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(commands_in(&text))
}

fn commands_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_end() {
            "```sh" => inside = true,
            fence if fence.starts_with("```") => inside = false,
            command if inside && !command.is_empty() && !command.starts_with('#') => {
                found.push(command.to_owned())
            }
            _ => {}
        }
    }
    found
}

/// The README's test command: the one that starts with `cargo test`.
pub(crate) fn test_command() -> anyhow::Result<String> {
    commands()?
        .into_iter()
        .find(|command| command.starts_with("cargo test"))
        .context("README.md names no test command")
}

/// Runs every command but the test command, which `ci` runs on its own. A line comes in through a pipe: `chat` answers
/// it, as there is no terminal here.
pub(crate) fn run() -> anyhow::Result<()> {
    let commands = commands()?;
    ensure!(commands.len() >= 2, "README.md shows {} commands, at least 2 expected", commands.len());
    for command in commands.iter().filter(|command| !command.starts_with("cargo test")) {
        shell::run(&format!("echo 'Name one colour.' | {command}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::commands_in;

    #[test]
    fn only_plain_sh_blocks_count() {
        let text = "a\n```sh\n# why\none\n\ntwo\n```\n```sh long\nthree\n```\n```rust\nfour\n```\n";
        assert_eq!(commands_in(text), ["one", "two"]);
    }
}
