//! A server in front of the server, with the server's own certificate: it sees every message as the server does,
//! keeps those that matter, and can lose, delay or change answers. In front of it stands a [`Link`] that cuts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use prost::Message;
use sotto_client::tls;
use sotto_protocol::METADATA_LEASE;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::pin::CertificatePin;
use sotto_protocol::wire::bodies_client::BodiesClient;
use sotto_protocol::wire::bodies_server::{Bodies, BodiesServer};
use sotto_protocol::wire::catalogue_client::CatalogueClient;
use sotto_protocol::wire::catalogue_server::{Catalogue, CatalogueServer};
use sotto_protocol::wire::mask_jobs_client::MaskJobsClient;
use sotto_protocol::wire::mask_jobs_server::{MaskJobs, MaskJobsServer};
use sotto_protocol::wire::{
    BodyReply, BodyRequest, CancelReply, CancelRequest, ClientPartChunk, CloseLeaseReply, CloseLeaseRequest,
    GetClientPartRequest, HealthReply, HealthRequest, HelloReply, HelloRequest, ListModelsReply,
    ListModelsRequest, MaskPiece, OpenLeaseReply, OpenLeaseRequest, OpenSessionRequest, RaiseReply,
    RaiseRequest, SessionPiece, SubmitRequest,
};
use sotto_server::transport::tls::ServerIdentity;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Binary, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::link::Link;
use super::pads::Frame;

/// Largest message either way.
const MAX_MESSAGE: usize = 64 << 20;

/// What to do with a message on its way.
pub(crate) enum Act<T> {
    /// Pass it on.
    Forward,
    /// Cut all connections instead of passing it on.
    CutBefore,
    /// Let the server answer, then cut all connections instead of passing the answer on.
    CutAfter,
    /// Never answer.
    Stall,
    /// Answer with a status.
    Refuse(Status),
    /// Pass on something else than the server's answer.
    Change(Box<dyn FnOnce(T) -> Vec<T> + Send>),
}

impl<T> Act<T> {
    /// [`Act::Change`] into one message.
    pub(crate) fn edit(edit: impl FnOnce(&mut T) + Send + 'static) -> Self {
        Self::Change(Box::new(move |mut message| {
            edit(&mut message);
            vec![message]
        }))
    }
}

type Hook<T, A> = Mutex<Box<dyn FnMut(&T) -> Act<A> + Send>>;

/// What passed.
#[derive(Default)]
pub(crate) struct Log {
    /// Every body frame that reached the relay, in order.
    pub(crate) frames: Mutex<Vec<Frame>>,
    /// Every mask job.
    pub(crate) jobs: Mutex<Vec<SubmitRequest>>,
    /// Leases that were opened and not closed.
    pub(crate) leases: Mutex<HashSet<Bytes>>,
    /// Every message and credential from clients, encoded, one after another.
    pub(crate) bytes: Mutex<Vec<u8>>,
}

struct Inner {
    upstream: Mutex<String>,
    pin: CertificatePin,
    log: Arc<Log>,
    cut: Box<dyn Fn() + Send + Sync>,
    on_body: Hook<BodyRequest, BodyReply>,
    on_piece: Hook<MaskPiece, MaskPiece>,
    on_session: Hook<SessionPiece, SessionPiece>,
    on_chunk: Hook<ClientPartChunk, ClientPartChunk>,
    on_models: Hook<ListModelsReply, ListModelsReply>,
    on_hello: Hook<HelloReply, HelloReply>,
    on_lease: Hook<OpenLeaseReply, OpenLeaseReply>,
}

/// The relay with its link; ends when dropped.
pub(crate) struct Relay {
    /// The TCP proxy in front.
    pub(crate) link: Link,
    /// What passed.
    pub(crate) log: Arc<Log>,
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

impl Relay {
    /// A relay before the server at `upstream`, whose state directory is `state`.
    pub(crate) fn start(state: &Path, upstream: &str) -> Self {
        let identity = ServerIdentity::load_or_generate(state).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let link = Link::start(&listener.local_addr().unwrap().to_string());
        let log = Arc::new(Log::default());
        let inner = Arc::new(Inner {
            upstream: Mutex::new(upstream.to_owned()),
            pin: identity.pin(),
            log: Arc::clone(&log),
            cut: Box::new(link.cutter()),
            on_body: Mutex::new(Box::new(|_| Act::Forward)),
            on_piece: Mutex::new(Box::new(|_| Act::Forward)),
            on_session: Mutex::new(Box::new(|_| Act::Forward)),
            on_chunk: Mutex::new(Box::new(|_| Act::Forward)),
            on_models: Mutex::new(Box::new(|_| Act::Forward)),
            on_hello: Mutex::new(Box::new(|_| Act::Forward)),
            on_lease: Mutex::new(Box::new(|_| Act::Forward)),
        });
        // The relay reads gRPC; a client that is not offered more speaks that.
        let mut config = (*identity.server_config().unwrap()).clone();
        config.alpn_protocols = vec![sotto_protocol::ALPN_H2.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(serve(listener, acceptor, Front(Arc::clone(&inner))));
        Self { link, log, inner, runtime: Some(runtime) }
    }

    /// The server's connect string with the relay's address.
    pub(crate) fn connect(&self, server: &ConnectString, credential: &str) -> ConnectString {
        let credential = Some(credential.to_owned());
        ConnectString { address: self.link.address.clone(), credential, ..server.clone() }
    }

    /// Calls go to `upstream` from now on.
    pub(crate) fn retarget(&self, upstream: &str) {
        upstream.clone_into(&mut self.inner.upstream.lock().unwrap());
    }

    /// A handle that retargets from elsewhere.
    pub(crate) fn retargeter(&self) -> impl Fn(&str) + Send + use<> {
        let inner = Arc::clone(&self.inner);
        move |upstream| upstream.clone_into(&mut inner.upstream.lock().unwrap())
    }

    /// Decides about body frames.
    pub(crate) fn on_body(&self, hook: impl FnMut(&BodyRequest) -> Act<BodyReply> + Send + 'static) {
        *self.inner.on_body.lock().unwrap() = Box::new(hook);
    }

    /// Decides about mask pieces.
    pub(crate) fn on_piece(&self, hook: impl FnMut(&MaskPiece) -> Act<MaskPiece> + Send + 'static) {
        *self.inner.on_piece.lock().unwrap() = Box::new(hook);
    }

    /// Decides about pieces of shared masks.
    pub(crate) fn on_session(&self, hook: impl FnMut(&SessionPiece) -> Act<SessionPiece> + Send + 'static) {
        *self.inner.on_session.lock().unwrap() = Box::new(hook);
    }

    /// Decides about chunks of the client part.
    pub(crate) fn on_chunk(
        &self,
        hook: impl FnMut(&ClientPartChunk) -> Act<ClientPartChunk> + Send + 'static,
    ) {
        *self.inner.on_chunk.lock().unwrap() = Box::new(hook);
    }

    /// Decides about lists of models.
    pub(crate) fn on_models(
        &self,
        hook: impl FnMut(&ListModelsReply) -> Act<ListModelsReply> + Send + 'static,
    ) {
        *self.inner.on_models.lock().unwrap() = Box::new(hook);
    }

    /// Decides about handshakes.
    pub(crate) fn on_hello(&self, hook: impl FnMut(&HelloReply) -> Act<HelloReply> + Send + 'static) {
        *self.inner.on_hello.lock().unwrap() = Box::new(hook);
    }

    /// Decides about leases.
    pub(crate) fn on_lease(&self, hook: impl FnMut(&OpenLeaseReply) -> Act<OpenLeaseReply> + Send + 'static) {
        *self.inner.on_lease.lock().unwrap() = Box::new(hook);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Hooks may hold server processes, and tasks of the runtime hold the hooks.
        self.on_body(|_| Act::Forward);
        self.on_piece(|_| Act::Forward);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, front: Front) {
    let (sender, accepted) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true).ok();
                if let Ok(stream) = acceptor.accept(stream).await {
                    sender.send(Ok::<_, std::io::Error>(stream)).await.ok();
                }
            });
        }
    });
    tonic::transport::Server::builder()
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .add_service(CatalogueServer::new(front.clone()))
        .add_service(MaskJobsServer::new(front.clone()).max_encoding_message_size(MAX_MESSAGE))
        .add_service(
            BodiesServer::new(front)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .serve_with_incoming(ReceiverStream::new(accepted))
        .await
        .unwrap();
}

#[derive(Clone)]
struct Front(Arc<Inner>);

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Front {
    async fn upstream(&self) -> Result<Channel, Status> {
        let address = self.0.upstream.lock().unwrap().clone();
        let channel = tls::connect(&address, self.0.pin, Duration::from_secs(5)).await;
        channel.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Keeps a message; returns it for the way on, with its credential.
    fn seen<T: Message>(&self, request: Request<T>) -> Request<T> {
        let (metadata, _, message) = request.into_parts();
        let mut bytes = self.0.log.bytes.lock().unwrap();
        bytes.extend(message.encode_to_vec());
        let mut onward = Request::new(message);
        if let Some(value) = metadata.get("authorization") {
            bytes.extend_from_slice(value.as_bytes());
            onward.metadata_mut().insert("authorization", value.clone());
        }
        if let Some(value) = metadata.get_bin(METADATA_LEASE) {
            onward.metadata_mut().insert_bin(METADATA_LEASE, value.clone());
        }
        onward
    }

    /// Does what `hook` says with an answer; `None` if it is to get lost.
    async fn treat<T>(&self, hook: &Hook<T, T>, message: T) -> Result<Vec<T>, Status> {
        let act = (hook.lock().unwrap())(&message);
        match act {
            Act::Forward => Ok(vec![message]),
            Act::Change(change) => Ok(change(message)),
            Act::Refuse(status) => Err(status),
            Act::CutBefore | Act::CutAfter => {
                (self.0.cut)();
                std::future::pending().await
            }
            Act::Stall => std::future::pending().await,
        }
    }

    /// As [`Front::treat`] for an answer that is one message.
    async fn treat_one<T>(&self, hook: &Hook<T, T>, answer: Response<T>) -> Answer<T> {
        let changed = self.treat(hook, answer.into_inner()).await?;
        changed.into_iter().next().map(Response::new).ok_or_else(|| Status::unknown("nothing"))
    }

    /// Passes a stream of answers through `hook`.
    fn through<T: Send + 'static>(
        self,
        hook: impl Fn(&Inner) -> &Hook<T, T> + Send + 'static,
        mut answers: Streaming<T>,
    ) -> Response<Boxed<T>> {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = answers.message() => message,
                    () = sender.closed() => return,
                };
                let treated = match message {
                    Ok(Some(message)) => tokio::select! {
                        treated = self.treat(hook(&self.0), message) => treated,
                        () = sender.closed() => return,
                    },
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                match treated {
                    Ok(messages) => {
                        for message in messages {
                            if sender.send(Ok(message)).await.is_err() {
                                return;
                            }
                        }
                    }
                    Err(status) => {
                        sender.send(Err(status)).await.ok();
                        return;
                    }
                }
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }

    /// One body stream of a client, until either side ends it.
    async fn bodies(
        &self,
        frames: &mut Streaming<BodyRequest>,
        lease: Option<MetadataValue<Binary>>,
        sender: &mpsc::Sender<Result<BodyReply, Status>>,
    ) -> Result<(), Status> {
        let (onward, receiver) = mpsc::channel(1);
        let mut client = BodiesClient::new(self.upstream().await?)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut opening = Request::new(ReceiverStream::new(receiver));
        if let Some(lease) = lease {
            opening.metadata_mut().insert_bin(METADATA_LEASE, lease);
        }
        let mut replies = client.stream(opening).await?.into_inner();
        // The full form's, until a frame names another.
        let mut bits = fhe_layers::WireForm::Full.body_bits();
        while let Some(frame) = frames.message().await? {
            let (round, tokens) = (frame.round, frame.tokens);
            if let Ok(form) = frame.form.parse::<fhe_layers::WireForm>() {
                bits = form.body_bits();
            }
            self.0.log.bytes.lock().unwrap().extend(frame.encode_to_vec());
            self.0.log.frames.lock().unwrap().push(Frame {
                round,
                tokens,
                bits,
                bodies: frame.bodies.clone(),
            });
            let act = (self.0.on_body.lock().unwrap())(&frame);
            match act {
                Act::CutBefore => {
                    (self.0.cut)();
                    return Ok(());
                }
                Act::Stall => std::future::pending().await,
                Act::Refuse(status) => return Err(status),
                Act::Forward | Act::CutAfter | Act::Change(_) => {}
            }
            if onward.send(frame).await.is_err() {
                return Err(replies.message().await.err().unwrap_or_else(|| Status::unavailable("closed")));
            }
            let Some(reply) = replies.message().await? else {
                return Err(Status::unavailable("the server closed the stream"));
            };
            let answers = match act {
                Act::CutAfter => {
                    (self.0.cut)();
                    return Ok(());
                }
                Act::Change(change) => change(reply),
                _ => vec![reply],
            };
            for answer in answers {
                sender.send(Ok(answer)).await.map_err(|_| Status::cancelled("gone"))?;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Catalogue for Front {
    type GetClientPartStream = Boxed<ClientPartChunk>;

    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloReply> {
        let answer = CatalogueClient::new(self.upstream().await?).hello(self.seen(request)).await?;
        self.treat_one(&self.0.on_hello, answer).await
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Answer<ListModelsReply> {
        let answer = CatalogueClient::new(self.upstream().await?).list_models(self.seen(request)).await?;
        self.treat_one(&self.0.on_models, answer).await
    }

    async fn get_client_part(
        &self,
        request: Request<GetClientPartRequest>,
    ) -> Answer<Self::GetClientPartStream> {
        let mut client = CatalogueClient::new(self.upstream().await?);
        let chunks = client.get_client_part(self.seen(request)).await?.into_inner();
        Ok(self.clone().through(|inner| &inner.on_chunk, chunks))
    }

    async fn open_lease(&self, request: Request<OpenLeaseRequest>) -> Answer<OpenLeaseReply> {
        let answer = CatalogueClient::new(self.upstream().await?).open_lease(self.seen(request)).await?;
        self.0.log.leases.lock().unwrap().insert(answer.get_ref().lease.clone());
        self.treat_one(&self.0.on_lease, answer).await
    }

    async fn close_lease(&self, request: Request<CloseLeaseRequest>) -> Answer<CloseLeaseReply> {
        self.0.log.leases.lock().unwrap().remove(&request.get_ref().lease);
        CatalogueClient::new(self.upstream().await?).close_lease(self.seen(request)).await
    }

    async fn health(&self, request: Request<HealthRequest>) -> Answer<HealthReply> {
        CatalogueClient::new(self.upstream().await?).health(self.seen(request)).await
    }
}

#[tonic::async_trait]
impl MaskJobs for Front {
    type SubmitStream = Boxed<MaskPiece>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Answer<Self::SubmitStream> {
        let request = self.seen(request);
        self.0.log.jobs.lock().unwrap().push(request.get_ref().clone());
        let mut client = MaskJobsClient::new(self.upstream().await?).max_decoding_message_size(MAX_MESSAGE);
        let pieces = client.submit(request).await?.into_inner();
        Ok(self.clone().through(|inner| &inner.on_piece, pieces))
    }

    type OpenSessionStream = Boxed<SessionPiece>;

    async fn open_session(&self, request: Request<OpenSessionRequest>) -> Answer<Self::OpenSessionStream> {
        let request = self.seen(request);
        let mut client = MaskJobsClient::new(self.upstream().await?).max_decoding_message_size(MAX_MESSAGE);
        let pieces = client.open_session(request).await?.into_inner();
        Ok(self.clone().through(|inner| &inner.on_session, pieces))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Answer<CancelReply> {
        MaskJobsClient::new(self.upstream().await?).cancel(self.seen(request)).await
    }

    async fn raise(&self, request: Request<RaiseRequest>) -> Answer<RaiseReply> {
        MaskJobsClient::new(self.upstream().await?).raise(self.seen(request)).await
    }
}

#[tonic::async_trait]
impl Bodies for Front {
    type StreamStream = Boxed<BodyReply>;

    async fn stream(&self, request: Request<Streaming<BodyRequest>>) -> Answer<Self::StreamStream> {
        let lease = request.metadata().get_bin(METADATA_LEASE).cloned();
        let (front, mut frames) = (self.clone(), request.into_inner());
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = front.bodies(&mut frames, lease, &sender) => ended,
                () = sender.closed() => Ok(()),
            };
            if let Err(status) = ended {
                sender.send(Err(status)).await.ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
