//! Every crate opens with a page of documentation that holds an example which runs.
//!
//! For a library that is a code block which rustdoc compiles and runs with the tests, in the text or included from
//! `examples/`. A program has no such tests; its page shows a command.

use crate::shell;
use anyhow::{Context, bail};
use std::path::PathBuf;

/// Lines of documentation that make a page.
const PAGE_LINES: usize = 12;

/// Checks every crate and fails with the list of what is missing.
pub(crate) fn run() -> anyhow::Result<()> {
    let text = shell::output("cargo metadata --format-version 1 --no-deps --offline")?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut missing = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let manifest =
            PathBuf::from(package["manifest_path"].as_str().context("a package without a manifest")?);
        let source = manifest.with_file_name("src");
        let (root, is_library) = match source.join("lib.rs") {
            library if library.exists() => (library, true),
            _ => (source.join("main.rs"), false),
        };
        let text =
            std::fs::read_to_string(&root).with_context(|| format!("cannot read {}", root.display()))?;
        missing.extend(judge(&text, is_library).map(|fault| format!("{name}: {fault}")));
    }
    if missing.is_empty() {
        println!("crate documentation: {} crates, each with an example that runs", packages.len());
        return Ok(());
    }
    bail!("crate documentation:\n  {}", missing.join("\n  "));
}

/// What the documentation of a crate's root file lacks.
fn judge(text: &str, is_library: bool) -> Option<String> {
    let included = |line: &str| line.starts_with("#![doc = include_str!(\"../examples/");
    let page: Vec<_> = text.lines().filter(|line| line.starts_with("//!") || included(line)).collect();
    if page.len() < PAGE_LINES {
        return Some(format!("{} lines of documentation, a page has {PAGE_LINES}", page.len()));
    }
    let mut fences = page.iter().filter_map(|line| line.trim_start_matches("//!").trim().strip_prefix("```"));
    // Opening and closing fences take turns.
    let mut openings = std::iter::from_fn(|| {
        let opening = fences.next();
        fences.next();
        opening
    });
    let runs = |language: &str| if is_library { matches!(language, "" | "rust") } else { language == "sh" };
    if openings.any(runs) { None } else { Some("no example that runs".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_LINES, judge};

    fn page(block: &str) -> String {
        format!("{}//! ```{block}\n//! x\n//! ```\n", "//! text\n".repeat(PAGE_LINES))
    }

    #[test]
    fn only_blocks_that_run_count() {
        for (block, is_library, good) in [
            ("", true, true),
            ("rust", true, true),
            ("no_run", true, false),
            ("text", true, false),
            ("ignore", true, false),
            ("sh", false, true),
            ("", false, false),
        ] {
            assert_eq!(judge(&page(block), is_library).is_none(), good, "{block:?}");
        }
        assert!(judge("//! ```\n//! x\n//! ```\n", true).unwrap().contains("a page has"));
        // A closing fence opens nothing.
        assert!(judge(&page("no_run"), true).is_some());
    }
}
