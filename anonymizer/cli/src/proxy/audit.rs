//! The audit log: what was done, never with what. A JSON object per line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::access::Access;
use crate::error::{Error, Result};
use crate::vault::Placed;

/// One request.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Entry {
    /// Milliseconds since 1970.
    pub(super) time_ms: u64,
    pub(super) endpoint: &'static str,
    /// The key's name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) key: String,
    /// Status of the answer.
    pub(super) status: u16,
    /// Whether anything went to the provider.
    pub(super) forwarded: bool,
    /// Spans by type.
    pub(super) spans: BTreeMap<String, usize>,
    pub(super) tokens: usize,
    pub(super) detection_ms: f64,
}

impl Entry {
    pub(super) fn new(endpoint: &'static str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX), endpoint, ..Self::default() }
    }

    /// With the key that was shown.
    pub(super) fn by(mut self, access: &Access) -> Self {
        self.key.clone_from(&access.policy.name);
        self
    }

    pub(super) fn count(&mut self, spans: &[Placed]) {
        for placed in spans {
            *self.spans.entry(placed.span.label.to_string()).or_default() += 1;
        }
    }
}

/// Where entries go.
pub(super) struct Audit(Option<Mutex<File>>);

impl Audit {
    /// Appends to a file that only its owner reads; nowhere if there is no path.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| Error::io("opening", path, error))?;
        Ok(Self(Some(Mutex::new(file))))
    }

    pub(super) fn write(&self, entry: &Entry) {
        let Some(file) = &self.0 else { return };
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&line) {
            tracing::error!("audit log: {error}");
        }
    }
}
