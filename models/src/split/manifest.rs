//! Manifests: what a split consists of, with hashes.
//!
//! The *model digest* is the SHA-256 of the server manifest's bytes. That manifest names the plan, `tau`, the parameter
//! set, the weights' hash and the hashes of the client's files, so the digest pins everything both sides compute with.

use super::plan::SplitPlan;
use crate::limits::MAX_JSON_BYTES;
use crate::tokenizer::read_limited;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::{fmt, str::FromStr};

/// Version of both manifests and of the files they describe. Version 2 holds a decoder's embedding in int8 blocks and
/// describes all families by one configuration.
pub const FORMAT_VERSION: u32 = 2;
/// Name of both manifests.
pub const MANIFEST: &str = "manifest.json";
/// Name of the server manifest's copy in the client part.
pub const SERVER_MANIFEST: &str = "server_manifest.json";

/// SHA-256 of a server manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl ModelDigest {
    /// The digest of a server manifest's bytes.
    pub fn of(server_manifest: &[u8]) -> Self {
        Self(Sha256::digest(server_manifest).into())
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for ModelDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest)
            .map_err(|source| Error::config("model digest", format!("expected 64 hex digits: {source}")))?;
        Ok(Self(digest))
    }
}

/// What ties a split to the encrypted protocol; opaque to this crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolBinding {
    /// Tokens per batch.
    pub tau: usize,
    /// Name of the parameter set.
    pub params_id: String,
}

/// Length and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHash {
    /// Length.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

impl FileHash {
    /// Hashes bytes in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: hex::encode(Sha256::digest(bytes)) }
    }

    /// Hashes a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        let io = |source| Error::io(path, source);
        let mut file = File::open(path).map_err(io)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(io)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
        }
        Ok(Self { bytes, sha256: hex::encode(hash.finalize()) })
    }

    /// Checks a file against this hash, its length first.
    ///
    /// # Errors
    /// If it cannot be read or differs.
    pub fn verify(&self, path: &Path) -> Result<()> {
        let length = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
        expect_equal(path, "length", &self.bytes, &length)?;
        expect_equal(path, "sha256", &self.sha256, &Self::of_file(path)?.sha256)
    }
}

/// The server's manifest; its SHA-256 is the model digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerManifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The model's name.
    pub model: String,
    /// The model's family.
    pub family: crate::families::FamilyId,
    /// Tokens per batch and parameter set.
    pub protocol: ProtocolBinding,
    /// The rounds with their shapes.
    pub plan: SplitPlan,
    /// The server's weights, by file name.
    pub weights: BTreeMap<String, FileHash>,
    /// The client's files (its manifest apart), by file name.
    pub client_files: BTreeMap<String, FileHash>,
}

/// The client's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientManifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The model's name.
    pub model: String,
    /// Hex digest of the server manifest.
    pub model_digest: String,
    /// `plain` or `fused`.
    pub plan: super::plan::PlanKind,
    /// Tokens per batch and parameter set.
    pub protocol: ProtocolBinding,
    /// All other files of the client part, by name.
    pub files: BTreeMap<String, FileHash>,
}

impl ClientManifest {
    /// The client's manifest that goes with a server's.
    pub(super) fn of(server: &ServerManifest, server_bytes: &[u8]) -> Self {
        let mut files = server.client_files.clone();
        files.insert(SERVER_MANIFEST.to_owned(), FileHash::of_bytes(server_bytes));
        Self {
            format_version: FORMAT_VERSION,
            model: server.model.clone(),
            model_digest: ModelDigest::of(server_bytes).to_string(),
            plan: server.plan.kind,
            protocol: server.protocol.clone(),
            files,
        }
    }
}

/// Serializes a manifest as it is written and hashed.
pub(crate) fn manifest_bytes(manifest: &impl Serialize, path: &Path) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(manifest)
        .map_err(|source| Error::malformed_by(path, "manifest", source))?;
    json.push(b'\n');
    Ok(json)
}

/// Parses a manifest, checking its version before the rest.
pub(super) fn parse_manifest<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let malformed = |source| Error::malformed_by(path, "manifest", source);
    let Version { format_version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if format_version != FORMAT_VERSION {
        let advice = match format_version {
            0..FORMAT_VERSION => "split the model again",
            _ => "it was split by a newer version of this program",
        };
        let reason = format!("expected {FORMAT_VERSION}, got {format_version}: {advice}");
        return Err(Error::malformed(path, "format_version", reason));
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Whether the directory of a client or server part has a manifest of this version. A part without one is unfinished, one
/// of another version is to be made again.
pub fn is_current(directory: &Path) -> bool {
    let path = directory.join(MANIFEST);
    read_manifest(&path).is_ok_and(|bytes| parse_manifest::<serde_json::Value>(&bytes, &path).is_ok())
}

/// Reads a manifest's bytes.
pub(super) fn read_manifest(path: &Path) -> Result<Vec<u8>> {
    read_limited(path, MAX_JSON_BYTES)
}

/// Writes a file so that a reader sees all of it or none.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("partial-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The rename did not happen, so a leftover is only litter; failing to remove it changes nothing.
        let _ = std::fs::remove_file(&temporary);
        Error::io(path, source)
    })
}

/// Fails with both values unless they are equal.
pub(super) fn expect_equal<T: PartialEq + fmt::Display>(
    path: &Path,
    field: &str,
    expected: &T,
    got: &T,
) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Mismatch {
        path: path.to_owned(),
        field: field.to_owned(),
        expected: expected.to_string(),
        got: got.to_string(),
    })
}
