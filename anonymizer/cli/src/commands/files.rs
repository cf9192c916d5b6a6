//! Texts and vaults on disk.

use std::io::Read;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use zeroize::Zeroizing;

use super::args::{FileArgs, VaultArgs};
use crate::error::{Error, Result};
use crate::vault::Vault;
use crate::vault::store::VaultKey;

/// Bytes of a text that is read.
const MAX_BYTES: u64 = 64 << 20;
/// Directories below one another that are walked.
const MAX_DEPTH: usize = 64;

/// Reads a text; standard input if there is no path.
pub(super) fn read_text(path: Option<&Path>) -> Result<String> {
    decode(&place(path), read_bytes(path)?)
}

/// Takes bytes for UTF-8 text.
fn decode(place: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        Error::input(place, format!("not UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
    })
}

/// Reads the bytes of a file.
pub(super) fn read_bytes(path: Option<&Path>) -> Result<Vec<u8>> {
    let place = place(path);
    let mut bytes = Vec::new();
    let failed = |source| Error::io_of(format!("reading {place}"), source);
    match path {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?
        }
        None => std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?,
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::input(place, format!("more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// What an input is called in messages.
pub(super) fn place(path: Option<&Path>) -> String {
    path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string())
}

/// A file to be read, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The input.
    pub(super) path: PathBuf,
    /// The output.
    pub(super) output: PathBuf,
    /// Bytes of the input.
    pub(super) size: u64,
}

/// Files to be read, and what is in directories and is not.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// In the order of names.
    pub(super) files: Vec<Job>,
    /// Links and things that are no files, each with its reason.
    pub(super) left_out: Vec<String>,
    /// Files whose output is there already.
    pub(super) done: usize,
}

/// Which files of directories are taken.
struct Filter {
    include: GlobSet,
    takes_all: bool,
    exclude: GlobSet,
    /// Names of outputs next to their inputs, which are no inputs.
    outputs: Option<&'static str>,
    out: Option<PathBuf>,
}

impl Filter {
    fn new(args: &FileArgs, word: &'static str) -> Result<Self> {
        Ok(Self {
            include: globs("--include", &args.include)?,
            takes_all: args.include.is_empty(),
            exclude: globs("--exclude", &args.exclude)?,
            outputs: args.next_to_input.then_some(word),
            out: args.out.as_ref().and_then(|out| out.canonicalize().ok()),
        })
    }

    fn takes_file(&self, name: &Path) -> bool {
        let is_output = self.outputs.is_some_and(|word| {
            let stem = name.file_stem().map(Path::new).and_then(Path::extension);
            stem.is_some_and(|stem| stem == word)
        });
        !is_output && !self.exclude.is_match(name) && (self.takes_all || self.include.is_match(name))
    }

    fn takes_directory(&self, path: &Path, name: &Path) -> bool {
        let is_out = self.out.is_some() && path.canonicalize().ok() == self.out;
        !is_out && !self.exclude.is_match(name)
    }
}

fn globs(option: &str, patterns: &[String]) -> Result<GlobSet> {
    let failed = |error: globset::Error| Error::Usage(format!("{option}: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
        set.add(Glob::new(pattern).map_err(failed)?);
        // A bare name counts anywhere, and what is below a directory goes with it.
        if !pattern.contains('/') {
            set.add(Glob::new(&format!("**/{pattern}")).map_err(failed)?);
        }
        set.add(Glob::new(&format!("{}/**", pattern.trim_end_matches('/'))).map_err(failed)?);
    }
    set.build().map_err(failed)
}

/// The files that arguments name. `word` marks outputs next to their inputs.
pub(super) fn jobs(args: &FileArgs, word: &'static str) -> Result<Jobs> {
    let filter = Filter::new(args, word)?;
    let mut jobs = Jobs::default();
    let mut found = Vec::new();
    for path in &args.paths {
        let meta = std::fs::metadata(path).map_err(|error| Error::io("reading", path, error))?;
        if meta.is_dir() {
            walk(path, Path::new(""), 0, &filter, &mut found, &mut jobs.left_out)?;
        } else {
            found.push((path.clone(), PathBuf::from(path.file_name().unwrap_or_default()), meta.len()));
        }
    }
    for (path, name, size) in found {
        let output = match &args.out {
            Some(out) => out.join(&name),
            None => next_to(&path, word),
        };
        if args.resume && output.exists() {
            jobs.done += 1;
        } else {
            jobs.files.push(Job { path, output, size });
        }
    }
    let mut outputs: Vec<&PathBuf> = jobs.files.iter().map(|job| &job.output).collect();
    outputs.sort();
    if let Some(pair) = outputs.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage(format!("two files would be written to {}", pair[0].display())));
    }
    let same = |job: &&Job| {
        job.path.canonicalize().is_ok_and(|path| job.output.canonicalize().is_ok_and(|out| out == path))
    };
    if let Some(job) = jobs.files.iter().find(same) {
        return Err(Error::Usage(format!("{} would be overwritten; name another --out", job.path.display())));
    }
    Ok(jobs)
}

/// `a.csv` with a word before its ending.
fn next_to(path: &Path, word: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(word);
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

fn walk(
    directory: &Path,
    below: &Path,
    depth: usize,
    filter: &Filter,
    files: &mut Vec<(PathBuf, PathBuf, u64)>,
    left_out: &mut Vec<String>,
) -> Result<()> {
    let failed = |error| Error::io("reading", directory, error);
    let mut entries =
        std::fs::read_dir(directory).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        let name = below.join(entry.file_name());
        let path = entry.path();
        if kind.is_dir() {
            if !filter.takes_directory(&path, &name) {
                continue;
            }
            match depth < MAX_DEPTH {
                true => walk(&path, &name, depth + 1, filter, files, left_out)?,
                false => left_out.push(format!("{}: more than {MAX_DEPTH} directories deep", path.display())),
            }
        } else if filter.takes_file(&name) {
            if kind.is_file() {
                let size = entry.metadata().map_err(failed)?.len();
                files.push((path, name, size));
            } else {
                // Links are not followed: they may lead out of the directory, or in circles.
                let what = if kind.is_symlink() { "a link, which is not followed" } else { "no file" };
                left_out.push(format!("{}: {what}", path.display()));
            }
        }
    }
    Ok(())
}

/// Writes a file whole: it is there complete or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("writing", path, error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Error::io("making", parent, error))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    std::fs::write(&partial, bytes).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

/// The key that arguments name.
pub(super) fn vault_key(args: &VaultArgs) -> Result<VaultKey> {
    match (&args.key_file, &args.passphrase_file) {
        (Some(path), _) => Ok(VaultKey::from_file(path)?),
        (None, Some(path)) => {
            let text = Zeroizing::new(decode(
                &place(Some(path)),
                std::fs::read(path).map_err(|error| Error::io("reading", path, error))?,
            )?);
            let words = text.lines().next().unwrap_or_default().trim();
            if words.is_empty() {
                return Err(Error::Usage(format!("{}: the first line is empty", path.display())));
            }
            Ok(VaultKey::Passphrase(Zeroizing::new(words.to_owned())))
        }
        (None, None) => {
            Err(Error::Usage("a saved vault is encrypted: name --key-file or --passphrase-file".to_owned()))
        }
    }
}

/// The vault that arguments name, if there is one already, or an empty one.
pub(super) fn open_vault(args: &VaultArgs) -> Result<(Vault, Option<VaultKey>)> {
    let Some(path) = &args.vault else { return Ok((Vault::new(), None)) };
    let key = vault_key(args)?;
    let vault = if path.exists() { Vault::open(path, &key)? } else { Vault::new() };
    Ok((vault, Some(key)))
}

/// Saves the vault where the arguments want it.
pub(super) fn save_vault(args: &VaultArgs, vault: &Vault, key: Option<&VaultKey>) -> Result<()> {
    match (&args.vault, key) {
        (Some(path), Some(key)) => Ok(vault.save(path, key)?),
        _ => Ok(()),
    }
}
