//! The catalogue: who may do what with which model.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use crate::Common;
use crate::auth::admission::Bounded;
use crate::auth::credentials::{CredentialId, CredentialRecord, Grant};
use crate::ops::config::ServerConfig;
use crate::transport::connection_auth::ConnectionAuth;
use crate::transport::grpc_status::status;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;
use sotto_protocol::wire::catalogue_server;
use sotto_protocol::wire::{
    ClientPartChunk, CloseLeaseReply, CloseLeaseRequest, GetClientPartRequest, HealthReply, HealthRequest,
    HelloReply, HelloRequest, ListModelsReply, ListModelsRequest, ModelEntry, OpenLeaseReply,
    OpenLeaseRequest,
};
use sotto_protocol::{METADATA_AUTHORIZATION, PROTOCOL_VERSION, choose_version, digest_from_wire};

/// Chunks of a client part that may wait for a slow reader.
const CHUNKS_BUFFERED: usize = 8;

/// Owner of what the catalogue hands out besides leases: addresses of further processes, and downloads.
pub(crate) struct Catalogue {
    common: Common,
    mask_addresses: Vec<String>,
    body_addresses: Vec<String>,
    forms: Vec<String>,
    /// Client parts being sent.
    downloads: Arc<Bounded>,
}

impl Catalogue {
    pub(crate) fn new(common: Common, config: &ServerConfig) -> Self {
        Self {
            common,
            mask_addresses: config.mask_addresses.clone(),
            body_addresses: config.body_addresses.clone(),
            forms: config.forms().into_iter().map(str::to_owned).collect(),
            downloads: Bounded::new("the list of downloads", limits::MAX_DOWNLOADS),
        }
    }

    /// Whether a client part is being sent.
    pub(crate) fn is_busy(&self) -> bool {
        self.downloads.taken() > 0
    }

    /// Checks the credential of a call, off the async threads.
    async fn authenticate(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<(CredentialId, CredentialRecord)> {
        let text = metadata
            .get(METADATA_AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .ok_or(Error::Credential)?
            .to_owned();
        let accounts = Arc::clone(&self.common.accounts);
        let known = blocking(move || accounts.authenticate(&text)).await?;
        ConnectionAuth::note_in(extensions, known.0);
        Ok(known)
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let (_, record) = self.authenticate(request.metadata(), request.extensions()).await?;
        let message = request.into_inner();
        if message.agent.len() > limits::MAX_AGENT_BYTES {
            let (got, limit) = (message.agent.len() as u64, limits::MAX_AGENT_BYTES as u64);
            return Err(Error::TooLong { field: "agent", got, limit });
        }
        tracing::debug!(agent = message.agent.escape_debug().to_string(), "hello");
        let version = choose_version(&message.versions)
            .ok_or(Error::Version { ours: PROTOCOL_VERSION, theirs: message.versions })?;
        Ok(HelloReply {
            version,
            agent: concat!("sotto ", env!("CARGO_PKG_VERSION")).to_owned(),
            mask_addresses: self.mask_addresses.clone(),
            body_addresses: self.body_addresses.clone(),
            mask_slots_left: record.mask_slots.left(),
            body_tokens_left: record.body_tokens.left(),
        })
    }

    fn entries(&self) -> Vec<ModelEntry> {
        let entry = |model: &Arc<crate::models::registry::Model>| {
            let info = &model.info;
            ModelEntry {
                name: info.name.clone(),
                digest: Bytes::copy_from_slice(&info.digest),
                plan: info.plan.clone(),
                tau: info.tau as u32,
                params_id: info.params_id.clone(),
                rounds: info.rounds.len() as u32,
                mask_blocks: info.blocks as u32,
                client_bytes: info.client_bytes,
                weight_bytes: info.weight_bytes(),
                table_bytes: model.table_bytes(),
                architecture: info.architecture.clone(),
                ready: self.common.models.is_loaded(model),
                forms: self.forms.clone(),
            }
        };
        self.common.models.models().iter().map(entry).collect()
    }

    async fn client_part(
        &self,
        request: Request<GetClientPartRequest>,
    ) -> Result<mpsc::Receiver<std::result::Result<ClientPartChunk, Status>>> {
        self.authenticate(request.metadata(), request.extensions()).await?;
        let model = self.common.models.find(&digest_from_wire(&request.into_inner().digest)?)?;
        let dir = model.info.client_dir.clone();
        let place = self.downloads.enter()?;
        let metrics = Arc::clone(&self.common.metrics);
        let (sender, receiver) = mpsc::channel(CHUNKS_BUFFERED);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            // False once the reader is gone or has not taken anything for long.
            let send =
                |item| runtime.block_on(sender.send_timeout(item, limits::STALLED_READER_TIMEOUT)).is_ok();
            let sent = send_files(&dir, |chunk| {
                metrics.client_part_bytes.inc_by(chunk.data.len() as u64);
                send(Ok(chunk))
            });
            if let Err(error) = sent {
                send(Err(status(&error)));
            }
        });
        Ok(receiver)
    }

    async fn lease(&self, request: Request<OpenLeaseRequest>) -> Result<OpenLeaseReply> {
        let (credential, _) = self.authenticate(request.metadata(), request.extensions()).await?;
        let message = request.into_inner();
        let model = self.common.models.find(&digest_from_wire(&message.digest)?)?;
        let (digest, tau) = (model.info.digest, model.info.tau as u64);
        let wanted = Grant {
            body_tokens: message.body_tokens.min(limits::MAX_LEASE_BODY_TOKENS),
            mask_slots: message.mask_slots.min(limits::MAX_LEASE_MASK_SLOTS.max(tau)),
        };
        let common = self.common.clone();
        blocking(move || {
            if common.lifecycle.is_draining() {
                return Err(Error::ShuttingDown);
            }
            let (lease, grant) = common.accounts.open_lease(credential, digest, wanted, tau)?;
            common.metrics.leases_opened.inc();
            Ok(OpenLeaseReply {
                lease: lease.into(),
                body_tokens: grant.body_tokens,
                mask_slots: grant.mask_slots,
                expires_in_s: limits::LEASE_LIFETIME.as_secs() as u32,
            })
        })
        .await
    }

    async fn end_lease(&self, request: Request<CloseLeaseRequest>) -> Result<CloseLeaseReply> {
        let (credential, _) = self.authenticate(request.metadata(), request.extensions()).await?;
        let lease = request.into_inner().lease;
        let accounts = Arc::clone(&self.common.accounts);
        blocking(move || {
            let unused = accounts.close_lease(&lease, credential)?;
            Ok(CloseLeaseReply {
                body_tokens_returned: unused.body_tokens,
                mask_slots_returned: unused.mask_slots,
            })
        })
        .await
    }

    fn answer<T>(&self, outcome: Result<T>) -> std::result::Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|error| {
            self.common.metrics.refused.inc();
            status(&error)
        })
    }
}

/// The gRPC service.
pub(crate) struct CatalogueService(pub(crate) Arc<Catalogue>);

#[tonic::async_trait]
impl catalogue_server::Catalogue for CatalogueService {
    type GetClientPartStream = ReceiverStream<std::result::Result<ClientPartChunk, Status>>;

    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> std::result::Result<Response<HelloReply>, Status> {
        self.0.answer(self.0.hello(request).await)
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> std::result::Result<Response<ListModelsReply>, Status> {
        let allowed = self.0.authenticate(request.metadata(), request.extensions()).await;
        self.0.answer(allowed.map(|_| ListModelsReply { models: self.0.entries() }))
    }

    async fn get_client_part(
        &self,
        request: Request<GetClientPartRequest>,
    ) -> std::result::Result<Response<Self::GetClientPartStream>, Status> {
        self.0.answer(self.0.client_part(request).await.map(ReceiverStream::new))
    }

    async fn open_lease(
        &self,
        request: Request<OpenLeaseRequest>,
    ) -> std::result::Result<Response<OpenLeaseReply>, Status> {
        self.0.answer(self.0.lease(request).await)
    }

    async fn close_lease(
        &self,
        request: Request<CloseLeaseRequest>,
    ) -> std::result::Result<Response<CloseLeaseReply>, Status> {
        self.0.answer(self.0.end_lease(request).await)
    }

    async fn health(
        &self,
        _request: Request<HealthRequest>,
    ) -> std::result::Result<Response<HealthReply>, Status> {
        let draining = self.0.common.lifecycle.is_draining();
        Ok(Response::new(HealthReply {
            live: true,
            ready: self.0.common.models.is_ready() && !draining,
            draining,
        }))
    }
}

/// Runs a store operation where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(operation).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Internal("a store operation panicked".to_owned())),
    }
}

/// The files of a client part, sorted by name: (name, path, size).
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub(crate) fn list_files(dir: &Path) -> Result<Vec<(String, PathBuf, u64)>> {
    let failed = |error| Error::io("read", dir, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            files.push((name, entry.path(), metadata.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Sends every file in chunks until `send` returns false.
fn send_files(dir: &Path, send: impl Fn(ClientPartChunk) -> bool) -> Result<()> {
    let files = list_files(dir)?;
    let count = files.len() as u32;
    for (name, path, size) in files {
        let failed = |error| Error::io("read", &path, error);
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut offset = 0;
        loop {
            let mut data = Vec::with_capacity(limits::CLIENT_PART_CHUNK_BYTES);
            let most = limits::CLIENT_PART_CHUNK_BYTES as u64;
            file.by_ref().take(most).read_to_end(&mut data).map_err(failed)?;
            hash.update(&data);
            let end = offset + data.len() as u64;
            let last = end >= size || data.is_empty();
            let chunk = ClientPartChunk {
                file: name.clone(),
                size,
                offset,
                data: data.into(),
                last,
                sha256: if last { Bytes::copy_from_slice(&hash.clone().finalize()) } else { Bytes::new() },
                files: count,
            };
            offset = end;
            if !send(chunk) {
                return Ok(());
            }
            if last {
                break;
            }
        }
    }
    Ok(())
}
