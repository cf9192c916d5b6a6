//! Links and file names in the documents: whatever a `.md` file points to inside the repository is there.
//!
//! Checked, without a network: relative links with their anchors; in every document, code spans that name a path below
//! one of the repository's folders; in ARCHITECTURE.md also the module paths of its diagram and each path of its table.

use crate::shell;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Documents whose module paths (`sotto_server::bodies`) must be modules or items.
const WITH_MODULES: &str = "ARCHITECTURE.md";

/// Rows that the table of [`WITH_MODULES`] has at least.
const MIN_TABLE_ROWS: usize = 10;

/// Checks every document and fails with the list of what leads nowhere.
pub(crate) fn run() -> anyhow::Result<()> {
    let tree = Tree::read()?;
    let mut broken = Vec::new();
    let documents: Vec<_> = tree.files.iter().filter(|file| file.ends_with(".md")).collect();
    let mut links = 0;
    for file in &documents {
        let text = tree.text(file)?;
        let prose = Prose::of(&text);
        for target in &prose.links {
            links += 1;
            check_link(&tree, file, target, &mut broken)?;
        }
        for span in &prose.spans {
            check_path(&tree, file, span, &mut broken);
        }
        if file.as_str() == WITH_MODULES {
            check_table(&tree, &text, &mut broken)?;
            check_modules(&tree, file, &text, &mut broken)?;
        }
    }
    if broken.is_empty() {
        println!("links: {} documents, {links} links, none leads nowhere", documents.len());
        return Ok(());
    }
    bail!("links:\n  {}", broken.join("\n  "));
}

/// The files of the repository, committed or about to be.
struct Tree {
    root: PathBuf,
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Tree {
    fn read() -> anyhow::Result<Self> {
        let root = shell::root();
        let listing = shell::output("git ls-files --cached --others --exclude-standard")?;
        let files = listing.lines().filter(|file| root.join(file).exists()).map(str::to_owned);
        Ok(Self::of(root.clone(), files.collect()))
    }

    fn of(root: PathBuf, files: BTreeSet<String>) -> Self {
        let parents = files.iter().flat_map(|file| Path::new(file).ancestors().skip(1));
        let folders = parents.filter_map(Path::to_str).map(str::to_owned).collect();
        Self { root, files, folders }
    }

    fn text(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.root.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Whether `path` is a file or folder; `*` stands for one name or a part of it.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let pattern: Vec<_> = path.split('/').collect();
        let fits = |candidate: &String| {
            let names: Vec<_> = candidate.split('/').collect();
            names.len() == pattern.len()
                && pattern.iter().zip(names).all(|(pattern, name)| glob(pattern, name))
        };
        self.files.iter().chain(&self.folders).any(fits)
    }
}

/// Whether `name` fits `pattern`, in which one `*` may stand for anything.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let Some((start, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((choices, end)) = rest.split_once('}') else { return vec![path.to_owned()] };
    choices.split(',').map(|choice| format!("{start}{choice}{end}")).collect()
}

/// What a document says outside of its code blocks.
#[derive(Default, Debug, PartialEq)]
struct Prose {
    /// Targets of links and images.
    links: Vec<String>,
    /// Contents of code spans.
    spans: Vec<String>,
}

impl Prose {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        for line in outside_blocks(text) {
            let mut plain = String::new();
            for (index, part) in line.split('`').enumerate() {
                if index % 2 == 1 {
                    found.spans.push(part.to_owned());
                } else {
                    plain.push_str(part);
                }
            }
            for rest in plain.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                found.links.push(target.split_whitespace().next().unwrap_or_default().to_owned());
            }
            // [name]: target
            if let Some((_, target)) =
                plain.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "))
            {
                found.links.push(target.split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
        found
    }
}

/// Lines that are in no fenced block.
fn outside_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

fn check_link(tree: &Tree, file: &str, target: &str, broken: &mut Vec<String>) -> anyhow::Result<()> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let resolved = if path.is_empty() { Some(file.to_owned()) } else { resolve(file, path) };
    let Some(resolved) = resolved.filter(|resolved| resolved.is_empty() || tree.has(resolved)) else {
        broken.push(format!("{file}: {target} is not there"));
        return Ok(());
    };
    if let Some(anchor) = anchor
        && resolved.ends_with(".md")
        && !anchors(&tree.text(&resolved)?).contains(anchor)
    {
        broken.push(format!("{file}: {resolved} has no heading #{anchor}"));
    }
    Ok(())
}

/// `path` as seen from the folder of `file`, from the root; `None` when it leaves the repository.
fn resolve(file: &str, path: &str) -> Option<String> {
    let mut names: Vec<&str> =
        Path::new(file).parent()?.to_str()?.split('/').filter(|name| !name.is_empty()).collect();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::ParentDir => {
                names.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

/// The anchors that a forge makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in outside_blocks(text).filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim();
        let slug: String = title
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        // A heading that comes again gets a number.
        let count = (0..).find(|count| !found.contains(&numbered(&slug, *count))).unwrap_or(0);
        found.insert(numbered(&slug, count));
    }
    found
}

fn numbered(slug: &str, count: usize) -> String {
    if count == 0 { slug.to_owned() } else { format!("{slug}-{count}") }
}

/// A code span that names a path below one of the repository's folders, from the root or from the document's folder.
fn check_path(tree: &Tree, file: &str, span: &str, broken: &mut Vec<String>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-./{},*".contains(c);
    let Some((top, _)) = span.split_once('/') else { return };
    // `/v1/models` is a route, not a path.
    if top.is_empty() || !span.chars().all(legal) || !tree.folders.contains(top) {
        return;
    }
    for path in expand(span) {
        let beside = resolve(file, &path).is_some_and(|path| tree.has(&path));
        if !beside && !tree.has(&path) && !is_made(&path) {
            broken.push(format!("{file}: {path} is not there"));
        }
    }
}

/// Paths that a command writes and that are not committed.
fn is_made(path: &str) -> bool {
    ["packaging/man", "packaging/completions"].iter().any(|made| path.starts_with(made))
}

/// Every row of the table names a file, and each path in it exists.
fn check_table(tree: &Tree, text: &str, broken: &mut Vec<String>) -> anyhow::Result<()> {
    let rows: Vec<_> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| question")).collect();
    ensure!(rows.len() >= MIN_TABLE_ROWS, "{WITH_MODULES} has a table of {} rows", rows.len());
    for row in rows {
        let paths: Vec<_> = Prose::of(row).spans.into_iter().filter(|span| span.contains('/')).collect();
        if paths.is_empty() {
            broken.push(format!("{WITH_MODULES}: no file in {row}"));
        }
        for path in paths.iter().flat_map(|path| expand(path)).filter(|path| !tree.has(path)) {
            broken.push(format!("{WITH_MODULES}: {path} is not there"));
        }
    }
    Ok(())
}

/// Module paths are modules, or items of modules.
fn check_modules(tree: &Tree, file: &str, text: &str, broken: &mut Vec<String>) -> anyhow::Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for word in text.split(|c| !legal(c)).filter(|word| word.contains("::")) {
        let names: Vec<_> = word.split("::").collect();
        let package = names[0].replace('_', "-");
        let name = package.strip_prefix("sotto-").unwrap_or(&package);
        let folders = ["", "runtime/", "anonymizer/"].map(|above| format!("{above}{name}"));
        let Some(folder) = folders.into_iter().find(|folder| tree.has(&format!("{folder}/src/lib.rs")))
        else {
            continue;
        };
        let source = |names: &[&str]| {
            let path = format!("{folder}/src/{}", names.join("/"));
            [format!("{path}.rs"), format!("{path}/mod.rs")]
                .into_iter()
                .find(|path| tree.files.contains(path))
        };
        let (parent, last) = (&names[1..names.len() - 1], names[names.len() - 1]);
        let known = match (source(&names[1..]), source(parent)) {
            (Some(_), _) => true,
            (None, Some(module)) => tree.text(&module)?.contains(last),
            (None, None) => false,
        };
        if !known {
            broken.push(format!("{file}: there is no {word}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let files = [
            "README.md",
            "docs/a.md",
            "models/src/lib.rs",
            "models/src/llama/plan.rs",
            "models/src/bert/plan.rs",
        ];
        Tree::of(PathBuf::new(), files.map(str::to_owned).into())
    }

    #[test]
    fn links_and_spans_are_found_outside_code() {
        let prose = Prose::of("[a](docs/a.md \"t\") `[no](x)` ![p](p.svg)\n```\n[no](y)\n```\n[b]: c.md\n");
        assert_eq!(prose.links, ["docs/a.md", "p.svg", "c.md"]);
        assert_eq!(prose.spans, ["[no](x)"]);
    }

    #[test]
    fn targets_are_resolved_from_the_document() {
        assert_eq!(resolve("docs/a.md", "../README.md").as_deref(), Some("README.md"));
        assert_eq!(resolve("README.md", "./docs/a.md").as_deref(), Some("docs/a.md"));
        assert_eq!(resolve("README.md", "../x"), None);
        let mut broken = Vec::new();
        for (file, target) in
            [("README.md", "docs/a.md"), ("docs/a.md", ".."), ("README.md", "https://x.example/y")]
        {
            check_link(&tree(), file, target, &mut broken).unwrap();
        }
        assert_eq!(broken, Vec::<String>::new());
        for (file, target) in
            [("README.md", "docs/b.md"), ("docs/a.md", "a.md/b"), ("README.md", "/docs/a.md")]
        {
            broken.clear();
            check_link(&tree(), file, target, &mut broken).unwrap();
            assert_eq!(broken.len(), 1, "{target}");
        }
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# Where to look\n## `sotto serve`, and more\n```\n# no\n```\n## Where to look\n";
        let expected = ["sotto-serve-and-more", "where-to-look", "where-to-look-1"];
        assert_eq!(anchors(text), expected.map(str::to_owned).into());
    }

    #[test]
    fn paths_in_code_must_exist() {
        let broken = |span: &str| {
            let mut broken = Vec::new();
            check_path(&tree(), "README.md", span, &mut broken);
            broken.len()
        };
        for good in [
            "models/src/lib.rs",
            "models/src/",
            "models/src/{llama,bert}/plan.rs",
            "a/b",
            "models/<family>/x",
        ] {
            assert_eq!(broken(good), 0, "{good}");
        }
        assert_eq!(broken("models/src/main.rs"), 1);
        assert_eq!(broken("models/src/{llama,gpt2}/plan.rs"), 1);
        assert!(tree().has("*/src/lib.rs") && tree().has("models/src/*/plan.rs"));
    }

    #[test]
    fn every_row_names_a_file_that_exists() {
        let row = |cell: &str| format!("| q | {cell} |\n").repeat(MIN_TABLE_ROWS);
        let broken = |cell: &str| {
            let mut broken = Vec::new();
            check_table(&tree(), &row(cell), &mut broken).unwrap();
            broken.len()
        };
        assert_eq!(broken("`models/src/lib.rs`"), 0);
        assert_eq!(broken("`models/src/main.rs`"), MIN_TABLE_ROWS);
        assert_eq!(broken("somewhere"), MIN_TABLE_ROWS);
    }
}
