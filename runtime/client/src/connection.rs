//! A connection to one process of a server: TLS with a pinned certificate, HTTP/2, gRPC.

use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::{Ascii, Binary, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::status;
use super::target::Target;
use super::terminal::drives_terminal;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits::{MAX_NAME_BYTES, MAX_REPLY_BYTES};
use sotto_protocol::wire::bodies_client::BodiesClient;
use sotto_protocol::wire::catalogue_client::CatalogueClient;
use sotto_protocol::wire::mask_jobs_client::MaskJobsClient;
use sotto_protocol::wire::{
    CancelRequest, CloseLeaseRequest, HealthRequest, HelloReply, HelloRequest, ListModelsRequest, ModelEntry,
    OpenLeaseReply, OpenLeaseRequest, Priority, RaiseRequest,
};
use sotto_protocol::{BatchId, METADATA_AUTHORIZATION, METADATA_LEASE, PROTOCOL_VERSION};

/// Longest wait for TCP and TLS.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the answer to a unary call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the client calls itself.
const AGENT: &str = concat!("sotto ", env!("CARGO_PKG_VERSION"));

/// Adds the credential to each call of the catalogue, the only role that needs it.
#[derive(Clone)]
pub(crate) struct Authorize(MetadataValue<Ascii>);

/// Adds a lease to each call of the other roles: it lets the server know its peer before it reads a message.
#[derive(Clone)]
pub(crate) struct ShowLease(MetadataValue<Binary>);

impl tonic::service::Interceptor for ShowLease {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert_bin(METADATA_LEASE, self.0.clone());
        Ok(request)
    }
}

impl tonic::service::Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert(METADATA_AUTHORIZATION, self.0.clone());
        Ok(request)
    }
}

type Catalogue = CatalogueClient<InterceptedService<Channel, Authorize>>;
type Masks = MaskJobsClient<InterceptedService<Channel, ShowLease>>;
type Bodies = BodiesClient<InterceptedService<Channel, ShowLease>>;

/// An open connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    authorize: Authorize,
}

impl Connection {
    /// Connects to the catalogue.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] or [`Error::Tls`].
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        Self::open_at(target, target.catalogue_address()).await
    }

    /// Connects to a process that answers bodies.
    pub(crate) async fn open_bodies(target: &Target) -> Result<Self> {
        Self::open_at(target, target.body_address()).await
    }

    /// Connects to a process that runs mask jobs.
    pub(crate) async fn open_masks(target: &Target) -> Result<Self> {
        Self::open_at(target, target.mask_address()).await
    }

    async fn open_at(target: &Target, address: &str) -> Result<Self> {
        let channel = crate::tls::connect(address, target.pin(), CONNECT_TIMEOUT).await?;
        let bearer = format!("Bearer {}", target.credential());
        let mut value = MetadataValue::try_from(bearer).map_err(|_| Error::Credential)?;
        value.set_sensitive(true);
        Ok(Self { channel, authorize: Authorize(value) })
    }

    pub(crate) fn catalogue(&self) -> Catalogue {
        CatalogueClient::with_interceptor(self.channel.clone(), self.authorize.clone())
            .max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn masks(&self, lease: &[u8]) -> Masks {
        MaskJobsClient::with_interceptor(self.channel.clone(), show(lease))
            .max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn bodies(&self, lease: &[u8]) -> Bodies {
        BodiesClient::with_interceptor(self.channel.clone(), show(lease))
            .max_decoding_message_size(MAX_REPLY_BYTES)
    }

    /// The version handshake.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] when there is no common version; the server's refusal otherwise.
    pub(crate) async fn hello(&self) -> Result<HelloReply> {
        let request = HelloRequest { versions: vec![PROTOCOL_VERSION], agent: AGENT.to_owned() };
        let reply = self.catalogue().hello(limited(request)).await.map_err(refused)?.into_inner();
        if reply.version != PROTOCOL_VERSION {
            return Err(Error::Version { ours: PROTOCOL_VERSION, theirs: vec![reply.version] });
        }
        Ok(reply)
    }

    /// The models on offer.
    ///
    /// # Errors
    ///
    /// The server's refusal; [`Error::Malformed`] when a name is not fit to be shown.
    pub(crate) async fn list_models(&self) -> Result<Vec<ModelEntry>> {
        let reply = self.catalogue().list_models(limited(ListModelsRequest {})).await.map_err(refused)?;
        let models = reply.into_inner().models;
        models.iter().try_for_each(check_names)?;
        Ok(models)
    }

    /// Asks whether the server is there; also a measure of the round-trip time.
    pub(crate) async fn health(&self) -> Result<()> {
        self.catalogue().health(limited(HealthRequest {})).await.map_err(refused)?;
        Ok(())
    }

    /// Reserves budget.
    pub(crate) async fn open_lease(
        &self,
        digest: &[u8; 32],
        body_tokens: u64,
        mask_slots: u64,
    ) -> Result<OpenLeaseReply> {
        let request = OpenLeaseRequest { digest: Bytes::copy_from_slice(digest), body_tokens, mask_slots };
        Ok(self.catalogue().open_lease(limited(request)).await.map_err(refused)?.into_inner())
    }

    /// Gives back what a lease did not use.
    pub(crate) async fn close_lease(&self, lease: Bytes) -> Result<()> {
        self.catalogue().close_lease(limited(CloseLeaseRequest { lease })).await.map_err(refused)?;
        Ok(())
    }

    /// Ends a mask job and has its words dropped. The masks must be served at this address.
    pub(crate) async fn cancel(&self, lease: Bytes, id: &BatchId) -> Result<()> {
        let mut masks = self.masks(&lease);
        let request = CancelRequest { lease, batch_id: Bytes::copy_from_slice(&id.0) };
        masks.cancel(limited(request)).await.map_err(refused)?;
        Ok(())
    }

    /// Takes a mask job out of background priority.
    pub(crate) async fn raise(&self, lease: Bytes, id: &BatchId) -> Result<()> {
        let mut masks = self.masks(&lease);
        let request = RaiseRequest {
            lease,
            batch_id: Bytes::copy_from_slice(&id.0),
            priority: Priority::Needed.into(),
        };
        masks.raise(limited(request)).await.map_err(refused)?;
        Ok(())
    }
}

fn show(lease: &[u8]) -> ShowLease {
    let mut value = MetadataValue::from_bytes(lease);
    value.set_sensitive(true);
    ShowLease(value)
}

/// Refuses an offer whose names could drive the terminal that they are shown on.
fn check_names(entry: &ModelEntry) -> Result<()> {
    let fits = |name: &String| name.len() <= MAX_NAME_BYTES && !name.chars().any(drives_terminal);
    if [&entry.name, &entry.plan, &entry.architecture, &entry.params_id].into_iter().all(fits) {
        return Ok(());
    }
    Err(Error::Malformed {
        field: "name of a model",
        expected: format!("at most {MAX_NAME_BYTES} bytes of text"),
        got: "more, or control characters".to_owned(),
    })
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn refused(status: Status) -> Error {
    status::refused(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_drive_a_terminal_are_refused() {
        let named = |name: &str| ModelEntry { name: name.to_owned(), ..ModelEntry::default() };
        check_names(&named("smollm2-135m é")).unwrap();
        for bad in ["\u{1b}[2J", "a\nb", "\u{9b}1m", "a\u{202e}b", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(matches!(check_names(&named(bad)), Err(Error::Malformed { .. })), "{bad:?}");
        }
    }
}
