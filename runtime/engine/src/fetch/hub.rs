//! Models from a Hugging Face hub, through its own cache, endpoint, token and offline variables
//! (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hf_hub::HFClientSync;
use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;

use super::{FetchError, FetchProgress};

/// Small files that belong to a safetensors model; absent ones are skipped.
const SIDE_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
];

/// Downloads what `models` reads from a repository; returns the GGUF file or the snapshot directory.
pub(super) fn fetch(
    id: &str,
    revision: Option<&str>,
    file: Option<&str>,
    progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    let failed = |error: hf_hub::HFError| FetchError::Hub { id: id.to_owned(), detail: advice(&error) };
    let client = HFClientSync::new().map_err(failed)?;
    let (owner, name) = hf_hub::split_id(id);
    let repository = client.model(owner, name);
    let offline = is_offline();
    let wanted = Wanted { file: file.map(ToOwned::to_owned) };
    progress.begin(&format!("fetching {id}"), None, true);
    let relay = Relay::default();
    let snapshot = |offline: bool, handle: Progress| {
        repository
            .snapshot_download()
            .maybe_revision(revision.map(ToOwned::to_owned))
            .allow_patterns(wanted.patterns())
            .local_files_only(offline)
            .progress(handle)
            .send()
    };
    let result = std::thread::scope(|scope| {
        let handle = relay.handle();
        let worker = scope.spawn(|| snapshot(offline, handle));
        while !worker.is_finished() {
            progress.position(relay.bytes());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        worker.join()
    });
    progress.end();
    let result = result
        .map_err(|_| FetchError::Hub { id: id.to_owned(), detail: "the download stopped".to_owned() })?;
    match result {
        Ok(directory) => {
            if !offline {
                let tree = repository.list_tree().maybe_revision(commit(&directory)).recursive(true).send();
                check_sizes(id, &directory, &tree.map_err(failed)?)?;
            }
            wanted.choose(id, directory, offline)
        }
        // A hub that cannot be reached is no reason not to use what is here.
        Err(error) if !offline && is_unreachable(&error) => match snapshot(true, Progress::from(Quiet)) {
            Ok(directory) => wanted.choose(id, directory, true),
            Err(_) => Err(failed(error)),
        },
        Err(hf_hub::HFError::LocalEntryNotFound { .. }) if offline => {
            Err(FetchError::Hub { id: id.to_owned(), detail: not_here("it") })
        }
        Err(error) => Err(failed(error)),
    }
}

/// A snapshot's directory is named after its commit.
fn commit(snapshot: &Path) -> Option<String> {
    snapshot.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Compares the files of a snapshot with the sizes that the hub lists, and deletes those that were cut short: the hub
/// client takes any answer for the file when the server does not announce its length.
fn check_sizes(id: &str, snapshot: &Path, tree: &[RepoTreeEntry]) -> Result<(), FetchError> {
    for entry in tree {
        let RepoTreeEntry::File { size, path, .. } = entry else { continue };
        let pointer = snapshot.join(path);
        let Ok(blob) = pointer.canonicalize() else { continue };
        let got = std::fs::metadata(&blob).map_err(FetchError::io(&blob))?.len();
        if got != *size {
            for file in [&pointer, &blob] {
                std::fs::remove_file(file).map_err(FetchError::io(file))?;
            }
            let detail =
                format!("{path} has {got} bytes, expected {size}; the download was cut short, try again");
            return Err(FetchError::Hub { id: id.to_owned(), detail });
        }
    }
    Ok(())
}

fn is_unreachable(error: &hf_hub::HFError) -> bool {
    match error {
        hf_hub::HFError::Request { source, .. } => source.is_connect() || source.is_timeout(),
        hf_hub::HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

fn not_here(what: &str) -> String {
    format!("{what} is not in the hub's cache, and HF_HUB_OFFLINE or the network keeps it from being fetched")
}

fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off"))
}

fn advice(error: &hf_hub::HFError) -> String {
    let locked = match error {
        hf_hub::HFError::AuthRequired { .. } | hf_hub::HFError::Forbidden { .. } => true,
        hf_hub::HFError::Http { context } => matches!(context.status.as_u16(), 401 | 403),
        _ => false,
    };
    match error {
        _ if locked => format!("{error}; accept the model's terms on the hub and set HF_TOKEN"),
        // A hub answers alike for a model that does not exist and for one that may not be seen.
        hf_hub::HFError::RepoNotFound { .. } | hf_hub::HFError::RevisionNotFound { .. } => {
            format!("{error}; check the spelling, or set HF_TOKEN if it is private")
        }
        _ => error.to_string(),
    }
}

/// Which files of a repository are needed.
struct Wanted {
    file: Option<String>,
}

impl Wanted {
    fn patterns(&self) -> Vec<String> {
        match &self.file {
            Some(file) => vec![file.clone()],
            None => {
                SIDE_FILES.iter().map(|&name| name.to_owned()).chain(["*.safetensors".to_owned()]).collect()
            }
        }
    }

    fn choose(&self, id: &str, directory: PathBuf, offline: bool) -> Result<PathBuf, FetchError> {
        let missing = |detail: &str| FetchError::Hub { id: id.to_owned(), detail: detail.to_owned() };
        match &self.file {
            Some(file) => {
                let path = directory.join(file);
                match path.is_file() {
                    true => Ok(path),
                    false if offline => Err(missing(&not_here(file))),
                    false => Err(missing(&format!("it has no file {file}"))),
                }
            }
            None if directory.join("config.json").is_file() && has_safetensors(&directory) => Ok(directory),
            None if offline => Err(missing(&not_here("config.json or a .safetensors file"))),
            None => Err(missing(
                "it has no config.json or no .safetensors file; for a GGUF repository name the file: \
                 owner/name:file.gguf",
            )),
        }
    }
}

fn has_safetensors(directory: &Path) -> bool {
    let is_one = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|it| it == "safetensors");
    std::fs::read_dir(directory).is_ok_and(|entries| entries.flatten().any(is_one))
}

/// Adds up the bytes of all files as the hub client reports them.
#[derive(Default)]
struct Relay {
    files: std::sync::Arc<Mutex<HashMap<String, u64>>>,
}

impl Relay {
    fn handle(&self) -> Progress {
        RelayHandler { files: std::sync::Arc::clone(&self.files) }.into()
    }

    fn bytes(&self) -> u64 {
        self.files.lock().map_or(0, |files| files.values().sum())
    }
}

/// Takes no notice of progress.
struct Quiet;

impl ProgressHandler for Quiet {
    fn on_progress(&self, _event: &ProgressEvent) {}
}

struct RelayHandler {
    files: std::sync::Arc<Mutex<HashMap<String, u64>>>,
}

impl ProgressHandler for RelayHandler {
    fn on_progress(&self, event: &ProgressEvent) {
        let Ok(mut files) = self.files.lock() else { return };
        match event {
            ProgressEvent::Download(DownloadEvent::Progress { files: changed }) => {
                for file in changed {
                    files.insert(file.filename.clone(), file.bytes_completed);
                }
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress { bytes_completed, .. }) => {
                files.insert(String::new(), *bytes_completed);
            }
            _ => {}
        }
    }
}
