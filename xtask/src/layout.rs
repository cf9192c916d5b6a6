//! The rules of the house that a script can hold: sizes, crate directions, where things may stand.

use crate::shell;
use anyhow::{Context, bail};
use std::path::Path;

/// No Rust file is longer than this.
const MAX_LINES: usize = 700;

/// `(crate, crates of this workspace that it may use)`: arrows go one way.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("fhe-layers", &[]),
    ("models", &[]),
    ("runtime", &["fhe-layers", "models"]),
    ("anonymizer", &["models", "runtime"]),
    ("benches", &["fhe-layers", "models", "runtime", "anonymizer"]),
];

/// Crates that must never depend on these libraries, directly.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("fhe-layers", &["candle-core", "candle-nn", "tokio", "tonic", "reqwest", "axum"]),
    ("models", &["tfhe", "tfhe-ntt", "tokio", "tonic", "reqwest", "axum", "hf-hub"]),
];

/// `(folder, path fragments its code must not name)`: client-only and server-only code stay apart.
const SEPARATION: &[(&str, &[&str])] = &[
    ("fhe-layers/src/server", &["crate::client"]),
    ("fhe-layers/src/client", &["crate::server"]),
    ("runtime/src/server", &["crate::client", "crate::session", "crate::cli::chat"]),
    ("runtime/src/client", &["crate::server"]),
];

/// Where the word `unsafe` may stand: vector code and memory maps.
const UNSAFE_PLACES: &[&str] = &["/kernels/", "mmap", "/simd.rs", "benches/", "tests/"];

/// Runs every rule and fails with the list of what breaks one.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut broken = Vec::new();
    let files = shell::output("git ls-files --cached --others --exclude-standard '*.rs'")?;
    for file in files.lines() {
        let path = shell::root().join(file);
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
        check_file(file, &text, &mut broken);
    }
    check_directions(&mut broken)?;
    if broken.is_empty() {
        println!("layout: {} files, every rule holds", files.lines().count());
        return Ok(());
    }
    bail!("layout:\n  {}", broken.join("\n  "));
}

fn check_file(file: &str, text: &str, broken: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        broken.push(format!("{file}: {lines} lines, at most {MAX_LINES}"));
    }
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if matches!(stem, "util" | "utils" | "common" | "helpers" | "misc") {
        broken.push(format!("{file}: a file is named after what it holds"));
    }
    for (folder, names) in SEPARATION {
        if !file.starts_with(folder) {
            continue;
        }
        for name in *names {
            if let Some(line) = text.lines().position(|line| line.contains(name)) {
                broken.push(format!("{file}:{}: {folder} must not name {name}", line + 1));
            }
        }
    }
    if file.starts_with("xtask/") || UNSAFE_PLACES.iter().any(|place| file.contains(place)) {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
            broken.push(format!("{file}:{}: unsafe outside {UNSAFE_PLACES:?}", number + 1));
        }
    }
}

fn check_directions(broken: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, allowed) in DIRECTIONS {
        let used = dependencies(name)?;
        for (other, _) in DIRECTIONS {
            if other != name && used.iter().any(|used| used == other) && !allowed.contains(other) {
                broken.push(format!("{name} must not depend on {other}"));
            }
        }
        let forbidden = FORBIDDEN.iter().filter(|(owner, _)| owner == name).flat_map(|(_, list)| list.iter());
        for library in forbidden {
            if used.iter().any(|used| used == library) {
                broken.push(format!("{name} must not depend on {library}"));
            }
        }
    }
    Ok(())
}

/// Names in `[dependencies]` of a crate of this workspace.
fn dependencies(name: &str) -> anyhow::Result<Vec<String>> {
    let text = shell::output("cargo metadata --format-version 1 --no-deps --offline")?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let package = packages.iter().find(|package| package["name"] == name);
    let package = package.with_context(|| format!("no crate {name} in this workspace"))?;
    let list = package["dependencies"].as_array().context("a package without dependencies")?;
    let normal = list.iter().filter(|dependency| dependency["kind"].is_null());
    Ok(normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::check_file;

    fn broken(file: &str, text: &str) -> Vec<String> {
        let mut broken = Vec::new();
        check_file(file, text, &mut broken);
        broken
    }

    #[test]
    fn each_rule_sees_what_breaks_it() {
        assert_eq!(broken("models/src/lib.rs", "fn f() {}\n"), Vec::<String>::new());
        assert_eq!(broken("models/src/util.rs", "").len(), 1);
        assert_eq!(broken("models/src/lib.rs", &"\n".repeat(701)).len(), 1);
        assert_eq!(broken("fhe-layers/src/server/mask_half.rs", "use crate::client::Batch;\n").len(), 1);
        assert_eq!(broken("models/src/lib.rs", "let x = unsafe { f() };\n").len(), 1);
        assert_eq!(broken("fhe-layers/src/kernels/planes/avx2.rs", "unsafe { f() }\n").len(), 0);
    }
}
