//! What the catalogue offers, and the client part of a model.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::status::refused;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits::{MAX_CLIENT_PART_BYTES, MAX_CLIENT_PART_FILES};
use sotto_protocol::wire::{ClientPartChunk, GetClientPartRequest, ModelEntry};
use sotto_storage::{Cache, FetchProgress};

/// Name of the marker file that closes a complete download.
const COMPLETE: &str = ".complete";

/// A server that sends no further chunk for this long is given up.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// The client part of `entry`: from the cache, else from the server.
///
/// # Errors
///
/// The server's refusal, [`Error::Digest`] for a damaged file, or what the disk says.
pub(crate) async fn client_part(
    connection: &Connection,
    entry: &ModelEntry,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<PathBuf> {
    let directory = cache.clients().join(hex::encode(&entry.digest));
    if directory.join(COMPLETE).is_file() {
        return Ok(directory);
    }
    let stage = cache.stage("client-part")?;
    let mut writer = PartWriter::new(stage.path().to_owned());
    progress.begin("receiving the client part", Some(entry.client_bytes), true);
    let request = GetClientPartRequest { digest: Bytes::clone(&entry.digest) };
    let mut catalogue = connection.catalogue();
    let mut chunks = in_time(catalogue.get_client_part(request)).await?.into_inner();
    while let Some(chunk) = in_time(chunks.message()).await? {
        writer.accept(&chunk)?;
        progress.position(writer.total);
    }
    progress.end();
    writer.finish()?;
    cache.install(stage.path(), &directory)?;
    Ok(directory)
}

/// What the server sends next, or a lost connection if that takes longer than [`CHUNK_TIMEOUT`].
async fn in_time<T>(next: impl Future<Output = std::result::Result<T, tonic::Status>>) -> Result<T> {
    match tokio::time::timeout(CHUNK_TIMEOUT, next).await {
        Ok(answered) => answered.map_err(|status| refused(&status)),
        Err(_) => {
            let seconds = CHUNK_TIMEOUT.as_secs();
            Err(Error::Transport(format!("nothing more of the client part in {seconds} s")))
        }
    }
}

/// Writes the files of a client part as their chunks arrive.
struct PartWriter {
    directory: PathBuf,
    current: Option<Current>,
    finished: Vec<String>,
    announced: u32,
    total: u64,
}

struct Current {
    name: String,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    written: u64,
    size: u64,
}

impl PartWriter {
    fn new(directory: PathBuf) -> Self {
        Self { directory, current: None, finished: Vec::new(), announced: 0, total: 0 }
    }

    fn accept(&mut self, chunk: &ClientPartChunk) -> Result<()> {
        self.announced = chunk.files;
        self.total += chunk.data.len() as u64;
        limit("client part", self.total.max(chunk.size), MAX_CLIENT_PART_BYTES)?;
        limit("files of the client part", u64::from(chunk.files), u64::from(MAX_CLIENT_PART_FILES))?;
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.open(chunk)?,
        };
        if current.name != chunk.file || current.written != chunk.offset {
            return Err(Error::Malformed {
                field: "client part",
                expected: format!("{} from byte {}", current.name, current.written),
                got: format!("{:?} from byte {}", chunk.file, chunk.offset),
            });
        }
        if chunk.data.is_empty() && !chunk.last {
            return Err(Error::Malformed {
                field: "client part",
                expected: "bytes in every chunk but the last of a file".to_owned(),
                got: "none".to_owned(),
            });
        }
        let path = current.path.clone();
        current.file.write_all(&chunk.data).map_err(|source| Error::io("writing", &path, source))?;
        current.hasher.update(&chunk.data);
        current.written += chunk.data.len() as u64;
        if chunk.last {
            self.close(current, &chunk.sha256)
        } else {
            self.current = Some(current);
            Ok(())
        }
    }

    fn open(&self, chunk: &ClientPartChunk) -> Result<Current> {
        let name = &chunk.file;
        let legal = !name.is_empty()
            && !name.starts_with('.')
            && name.len() <= 128
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !self.finished.contains(name)
            && self.finished.len() < MAX_CLIENT_PART_FILES as usize;
        if !legal {
            return Err(Error::Malformed {
                field: "client part",
                expected: "a plain file name, each file once".to_owned(),
                got: format!("{name:?}"),
            });
        }
        let path = self.directory.join(name);
        let file = File::create(&path).map_err(|source| Error::io("creating", &path, source))?;
        Ok(Current { name: name.clone(), path, file, hasher: Sha256::new(), written: 0, size: chunk.size })
    }

    fn close(&mut self, current: Current, expected: &[u8]) -> Result<()> {
        let got = current.hasher.finalize();
        if got.as_slice() != expected || current.written != current.size {
            return Err(Error::Digest {
                what: current.name,
                expected: hex::encode(expected),
                got: hex::encode(got),
            });
        }
        current.file.sync_all().map_err(|source| Error::io("writing", &current.path, source))?;
        self.finished.push(current.name);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.current.is_some()
            || self.finished.is_empty()
            || self.finished.len() != self.announced as usize
        {
            return Err(Error::Malformed {
                field: "client part",
                expected: format!("{} files", self.announced),
                got: format!("{} whole files", self.finished.len()),
            });
        }
        mark_complete(&self.directory)
    }
}

fn mark_complete(directory: &Path) -> Result<()> {
    let path = directory.join(COMPLETE);
    std::fs::write(&path, b"").map_err(|source| Error::io("writing", &path, source))
}

fn limit(field: &'static str, got: u64, limit: u64) -> Result<()> {
    if got > limit { Err(Error::TooLong { field, got, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(file: &str, offset: u64, data: &'static [u8], whole: Option<&[u8]>) -> ClientPartChunk {
        ClientPartChunk {
            file: file.to_owned(),
            size: 6,
            offset,
            data: Bytes::from_static(data),
            last: whole.is_some(),
            sha256: whole.map(|bytes| Bytes::copy_from_slice(&Sha256::digest(bytes))).unwrap_or_default(),
            files: 1,
        }
    }

    fn receive(chunks: &[ClientPartChunk]) -> Result<Vec<u8>> {
        let root = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::new(root.path().to_owned());
        for chunk in chunks {
            writer.accept(chunk)?;
        }
        writer.finish()?;
        assert!(root.path().join(COMPLETE).is_file());
        Ok(std::fs::read(root.path().join("config.json")).unwrap())
    }

    #[test]
    fn chunks_become_a_file() {
        let chunks =
            [chunk("config.json", 0, b"abc", None), chunk("config.json", 3, b"def", Some(b"abcdef"))];
        assert_eq!(receive(&chunks).unwrap(), b"abcdef");
    }

    #[test]
    fn damage_is_refused() {
        let cases = [
            vec![chunk("config.json", 0, b"abcdef", Some(b"abcdeX"))],
            vec![chunk("config.json", 0, b"abc", Some(b"abc"))],
            vec![chunk("config.json", 0, b"abc", None)],
            vec![chunk("config.json", 0, b"abc", None), chunk("config.json", 2, b"def", Some(b"abcdef"))],
            vec![chunk("config.json", 0, b"", None), chunk("config.json", 0, b"abcdef", Some(b"abcdef"))],
            vec![chunk("../config.json", 0, b"abcdef", Some(b"abcdef"))],
            vec![chunk(".complete", 0, b"abcdef", Some(b"abcdef"))],
            vec![
                chunk("config.json", 0, b"abcdef", Some(b"abcdef")),
                chunk("config.json", 0, b"abcdef", Some(b"abcdef")),
            ],
            vec![],
        ];
        for (index, case) in cases.iter().enumerate() {
            assert!(receive(case).is_err(), "case {index} was accepted");
        }
    }
}
