//! Models from a Hugging Face hub, through its own cache, endpoint, token and offline variables
//! (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use hf_hub::HFClientSync;
use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};

use super::{FetchError, FetchProgress};

/// Small files that belong to a safetensors model; absent ones are skipped.
const SIDE_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
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
    let result = std::thread::scope(|scope| {
        let handle = relay.handle();
        let worker = scope.spawn(|| {
            repository
                .snapshot_download()
                .maybe_revision(revision.map(ToOwned::to_owned))
                .allow_patterns(wanted.patterns())
                .local_files_only(offline)
                .progress(handle)
                .send()
        });
        while !worker.is_finished() {
            progress.position(relay.bytes());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        worker.join()
    });
    progress.end();
    let directory = result
        .map_err(|_| FetchError::Hub { id: id.to_owned(), detail: "the download stopped".to_owned() })?
        .map_err(failed)?;
    wanted.choose(id, directory)
}

fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off"))
}

fn advice(error: &hf_hub::HFError) -> String {
    match error {
        hf_hub::HFError::AuthRequired { .. } | hf_hub::HFError::Forbidden { .. } => {
            format!("{error}; accept the model's terms on the hub and set HF_TOKEN")
        }
        hf_hub::HFError::RepoNotFound { .. } => {
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

    fn choose(&self, id: &str, directory: PathBuf) -> Result<PathBuf, FetchError> {
        let missing = |detail: &str| FetchError::Hub { id: id.to_owned(), detail: detail.to_owned() };
        match &self.file {
            Some(file) => {
                let path = directory.join(file);
                if path.is_file() { Ok(path) } else { Err(missing(&format!("it has no file {file}"))) }
            }
            None if directory.join("config.json").is_file() => Ok(directory),
            None => Err(missing(
                "it has no config.json; for a GGUF repository name the file: owner/name:file.gguf",
            )),
        }
    }
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
