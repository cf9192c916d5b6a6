//! Texts and vaults on disk.

use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::args::VaultArgs;
use crate::error::{Error, Result};
use crate::vault::Vault;
use crate::vault::store::VaultKey;

/// Bytes of a text that is read.
const MAX_BYTES: u64 = 64 << 20;
/// Directories below one another that are walked.
const MAX_DEPTH: usize = 64;

/// Reads a text; standard input if there is no path.
pub(super) fn read_text(path: Option<&Path>) -> Result<String> {
    let place = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
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
    decode(&place, bytes)
}

/// Takes bytes for UTF-8 text.
pub(super) fn decode(place: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        Error::input(place, format!("not UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
    })
}

/// The files of paths, directories walked in the order of names. Each with the path it has below `--out`.
pub(super) fn walk(paths: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut files = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path).map_err(|error| Error::io("reading", path, error))?;
        if meta.is_dir() {
            walk_directory(path, Path::new(""), 0, &mut files)?;
        } else {
            files.push((path.clone(), PathBuf::from(path.file_name().unwrap_or_default())));
        }
    }
    let mut names: Vec<&PathBuf> = files.iter().map(|(_, name)| name).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage(format!("two files would be written to {}", pair[0].display())));
    }
    Ok(files)
}

fn walk_directory(
    directory: &Path,
    below: &Path,
    depth: usize,
    files: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<()> {
    let failed = |error| Error::io("reading", directory, error);
    let mut entries =
        std::fs::read_dir(directory).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        let name = below.join(entry.file_name());
        // Links are not followed: they may lead out of the directory, or in circles.
        if kind.is_dir() && depth < MAX_DEPTH {
            walk_directory(&entry.path(), &name, depth + 1, files)?;
        } else if kind.is_file() {
            files.push((entry.path(), name));
        }
    }
    Ok(())
}

/// Writes a redacted file below a directory.
pub(super) fn write_below(directory: &Path, name: &Path, text: &str) -> Result<()> {
    let path = directory.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Error::io("making", parent, error))?;
    }
    std::fs::write(&path, text).map_err(|error| Error::io("writing", &path, error))
}

/// The key that arguments name.
pub(super) fn vault_key(args: &VaultArgs) -> Result<VaultKey> {
    match (&args.key_file, &args.passphrase_file) {
        (Some(path), _) => Ok(VaultKey::from_file(path)?),
        (None, Some(path)) => {
            let text = Zeroizing::new(
                std::fs::read_to_string(path).map_err(|error| Error::io("reading", path, error))?,
            );
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
