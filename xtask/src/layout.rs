//! The rules that a script can check: file sizes, crates that must not reach each other, where `unsafe` is allowed.

use crate::shell;
use anyhow::{Context, bail};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// No Rust file is longer than this.
const MAX_LINES: usize = 700;

/// `(crate, crates of this workspace that it must not reach)`, directly or through others. Everything that is not named
/// here is kept by Cargo itself: a crate sees what its manifest lists.
const UNREACHABLE: &[(&str, &[&str])] = &[
    ("fhe-layers", &["sotto-models", "sotto-storage", "sotto-protocol"]),
    ("sotto-models", &["fhe-layers", "sotto-storage", "sotto-protocol"]),
    ("sotto-pii", &["fhe-layers", "sotto-storage", "sotto-protocol", "anonymizer"]),
    ("sotto-server", &["sotto-client", "sotto-engine", "sotto"]),
    ("sotto-client", &["sotto-server", "sotto-engine", "sotto"]),
    ("sotto-engine", &["sotto-http", "sotto", "anonymizer"]),
    (
        "sotto-http",
        &["fhe-layers", "sotto-models", "sotto-protocol", "sotto-client", "sotto-server", "sotto"],
    ),
    ("sotto", &["anonymizer"]),
];

/// Crates that must never depend on these libraries, directly.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("fhe-layers", &["candle-core", "candle-nn", "tokio", "tonic", "reqwest", "axum"]),
    ("sotto-models", &["tfhe", "tfhe-ntt", "tokio", "tonic", "reqwest", "axum", "hf-hub"]),
    ("sotto-pii", &["tfhe", "tfhe-ntt", "tokio", "tonic", "reqwest", "axum", "hf-hub"]),
];

/// `(folder, path fragments its code must not name)`: within `fhe-layers`, client-only and server-only code stay apart.
const SEPARATION: &[(&str, &[&str])] =
    &[("fhe-layers/src/server", &["crate::client"]), ("fhe-layers/src/client", &["crate::server"])];

/// Where the word `unsafe` may stand: vector code and memory maps.
const UNSAFE_PLACES: &[&str] =
    &["/kernels/", "mmap", "/local_ops/isa.rs", "fhe-layers/src/guard.rs", "benches/", "tests/"];

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
    let graph = dependencies()?;
    for name in UNREACHABLE.iter().flat_map(|(from, others)| std::iter::once(from).chain(others.iter())) {
        anyhow::ensure!(graph.contains_key(*name), "layout: no crate {name} in this workspace");
    }
    broken.extend(forbidden_paths(&graph, UNREACHABLE));
    for (name, libraries) in FORBIDDEN {
        let used = graph.get(*name).with_context(|| format!("no crate {name} in this workspace"))?;
        let named = libraries.iter().filter(|library| used.iter().any(|used| used == *library));
        broken.extend(named.map(|library| format!("{name} must not depend on {library}")));
    }
    Ok(())
}

/// The paths of `graph` that `rules` forbid, each spelled out.
fn forbidden_paths(graph: &Graph, rules: &[(&str, &[&str])]) -> Vec<String> {
    let mut found = Vec::new();
    for (from, others) in rules {
        for other in *others {
            if let Some(path) = path(graph, from, other) {
                found.push(format!("{from} must not reach {other}: {}", path.join(" -> ")));
            }
        }
    }
    found
}

/// Crates of the workspace with what each names under `[dependencies]`.
type Graph = BTreeMap<String, Vec<String>>;

/// The shortest chain of dependencies from one crate to another.
fn path(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(name) = queue.pop_front() {
        if name == to {
            let mut path = vec![to.to_owned()];
            let mut at = to;
            while let Some(before) = came_from.get(at) {
                path.insert(0, (*before).to_owned());
                at = before;
            }
            return Some(path);
        }
        for next in graph.get(name).into_iter().flatten() {
            if next != from && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, name);
                queue.push_back(next);
            }
        }
    }
    None
}

/// Reads the graph from `cargo metadata`. Dependencies of tests and build scripts do not end up in a program.
fn dependencies() -> anyhow::Result<Graph> {
    let text = shell::output("cargo metadata --format-version 1 --no-deps --offline")?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut graph = Graph::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let list = package["dependencies"].as_array().context("a package without dependencies")?;
        let normal = list.iter().filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        graph.insert(name.to_owned(), names.collect());
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::{Graph, check_file, forbidden_paths};

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

    #[test]
    fn a_path_between_server_and_client_is_noticed_however_long() {
        let graph = |edges: &[(&str, &[&str])]| -> Graph {
            edges
                .iter()
                .map(|(name, uses)| {
                    ((*name).to_owned(), uses.iter().map(|name| (*name).to_owned()).collect())
                })
                .collect()
        };
        let rules: &[(&str, &[&str])] = &[("server", &["client"]), ("client", &["server"])];
        let apart =
            graph(&[("server", &["protocol"]), ("client", &["protocol"]), ("cli", &["server", "client"])]);
        assert_eq!(forbidden_paths(&apart, rules), Vec::<String>::new());
        let joined = graph(&[("server", &["protocol"]), ("protocol", &["trust"]), ("trust", &["client"])]);
        let found = forbidden_paths(&joined, rules);
        assert_eq!(found, ["server must not reach client: server -> protocol -> trust -> client"]);
        // A cycle ends the search as well.
        let cycle = graph(&[("server", &["a"]), ("a", &["server", "client"])]);
        assert_eq!(forbidden_paths(&cycle, rules).len(), 1);
    }
}
