//! Listening sockets, TLS handshakes, and the threads that run connections.

use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;
use tonic::transport::server::Connected;

use crate::auth::admission::{Bounded, Place};
use crate::bodies::{BodiesService, framed};
use crate::catalogue::CatalogueService;
use crate::masks::jobs::MaskJobsService;
use crate::transport::connection_auth::{ConnectionAuth, Probation};
use crate::transport::introduce::introduce;
use crate::transport::strangers::{StrangerPlace, network};
use crate::{Role, Services, spawn};
use sotto_protocol::error::{Error, Result};
use sotto_protocol::framing::ALPN_BODIES;
use sotto_protocol::limits;
use sotto_protocol::wire::bodies_server::BodiesServer;
use sotto_protocol::wire::catalogue_server::CatalogueServer;
use sotto_protocol::wire::mask_jobs_server::MaskJobsServer;

/// Lowest priority a thread can have: mask jobs only take what nobody else wants.
pub(crate) const BACKGROUND_NICE: i32 = 19;

/// Connections handed over but not yet taken by their worker.
const HANDOVER: usize = 64;

/// Binds all addresses.
///
/// # Errors
/// [`Error::PortInUse`] or [`Error::Io`].
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>> {
    addresses
        .iter()
        .map(|address| {
            let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => Error::PortInUse { address: address.to_string() },
                _ => Error::Io { context: format!("listen on {address}"), source: error },
            })?;
            listener
                .set_nonblocking(true)
                .map_err(|source| Error::Io { context: format!("listen on {address}"), source })?;
            Ok(listener)
        })
        .collect()
}

/// Starts the worker threads, the accepting thread and the mask driver.
///
/// # Errors
/// [`Error::Io`] if a thread or pool cannot be started.
pub(crate) fn spawn_all(
    services: &Arc<Services>,
    listeners: Vec<TcpListener>,
    tls: Arc<rustls::ServerConfig>,
) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for index in 0..services.config.threads.max(1) {
        let (sender, receiver) = mpsc::channel(HANDOVER);
        let load = Bounded::new("worker", usize::MAX);
        workers.push((sender, load));
        let worker =
            ConnectionThread { services: Arc::clone(services), tls: TlsAcceptor::from(Arc::clone(&tls)) };
        threads.push(spawn(&format!("sotto-net-{index}"), move || worker.run(receiver))?);
    }
    threads.push(spawn("sotto-accept", {
        let services = Arc::clone(services);
        move || accept(&services, listeners, &workers)
    })?);
    if services.config.roles.contains(&Role::Mask) {
        // One runs at a time. A thread cannot leave the lowest priority again without a privilege, so there are two.
        let urgent = pool(services.config.threads, "sotto-mask-now", None)?;
        let background = pool(services.config.threads, "sotto-mask", Some(BACKGROUND_NICE))?;
        let masks = Arc::clone(&services.masks);
        // Ends with Masks::stop, after the connections have drained.
        drop(spawn("sotto-mask-driver", move || masks.run(&urgent, &background))?);
    }
    Ok(threads)
}

/// A rayon pool whose threads have priority `nice`.
///
/// # Errors
/// [`Error::Internal`] if it cannot be started.
pub(crate) fn pool(threads: usize, name: &'static str, nice: Option<i32>) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{name}-{index}"))
        .start_handler(move |_| {
            // On Linux this sets the calling thread's priority. Failing to lower it costs latency only.
            if let Some(nice) = nice {
                rustix::process::setpriority_process(None, nice).ok();
            }
        })
        .build()
        .map_err(|error| Error::Internal(format!("cannot start {threads} threads: {error}")))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// An accepted socket with its places.
struct Handover {
    stream: std::net::TcpStream,
    places: Places,
    stranger: (StrangerPlace, oneshot::Receiver<()>),
}

/// A connection's places in the counts of the server, of its address and of its worker.
type Places = [Place; 3];

/// A worker's entrance and its load.
type Entrance = (mpsc::Sender<Handover>, Arc<Bounded>);

/// Accepts connections and gives each to the worker with the fewest.
fn accept(services: &Arc<Services>, listeners: Vec<TcpListener>, workers: &[Entrance]) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(source) => {
            return services.lifecycle.fail(Error::Io { context: "start a runtime".to_owned(), source });
        }
    };
    runtime.block_on(async {
        let loops = listeners.into_iter().map(|listener| accept_from(services, listener, workers));
        let mut drain = services.lifecycle.drain_signal();
        tokio::select! {
            _ = futures::future::join_all(loops) => {}
            _ = drain.wait_for(|draining| *draining) => {}
        }
    });
}

async fn accept_from(services: &Arc<Services>, listener: TcpListener, workers: &[Entrance]) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or a connection that is gone already: go on after a pause.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Too many connections: closing this one at once is the refusal; there is no TLS yet to say more.
        let (all, of_address) =
            (services.connections.enter(), services.connections_of.enter(network(peer.ip())));
        let (Ok(all), Ok(of_address)) = (all, of_address) else {
            services.metrics.refused.inc();
            continue;
        };
        let stranger = services.strangers.enter(peer.ip());
        let Some((sender, load)) = workers.iter().min_by_key(|(_, load)| load.taken()) else { return };
        if let (Ok(load), Ok(stream)) = (load.enter(), stream.into_std()) {
            sender.send(Handover { stream, places: [all, of_address, load], stranger }).await.ok();
        }
    }
}

/// One thread that runs connections.
struct ConnectionThread {
    services: Arc<Services>,
    tls: TlsAcceptor,
}

impl ConnectionThread {
    fn run(self, incoming: mpsc::Receiver<Handover>) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(source) => {
                return self
                    .services
                    .lifecycle
                    .fail(Error::Io { context: "start a runtime".to_owned(), source });
            }
        };
        runtime.block_on(self.serve(incoming));
        runtime.shutdown_timeout(Duration::from_millis(100));
    }

    async fn serve(self, mut incoming: mpsc::Receiver<Handover>) {
        let (sender, accepted) = mpsc::channel(HANDOVER);
        let services = Arc::clone(&self.services);
        let tls = self.tls.clone();
        tokio::spawn(async move {
            while let Some(handover) = incoming.recv().await {
                tokio::spawn(handshake(Arc::clone(&services), tls.clone(), handover, sender.clone()));
            }
        });
        let mut drain = self.services.lifecycle.drain_signal();
        let mut deadline = self.services.lifecycle.drain_signal();
        let routes = self.routes();
        let serving = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_frame_size(limits::HTTP2_FRAME_BYTES)
            .max_concurrent_streams(limits::MAX_STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), async move {
                drain.wait_for(|draining| *draining).await.ok();
            });
        let services = Arc::clone(&self.services);
        let timeout = async move {
            deadline.wait_for(|draining| *draining).await.ok();
            tokio::time::sleep(limits::DRAIN_GRACE).await;
            let end = Instant::now() + limits::DRAIN_TIMEOUT;
            while services.is_busy() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            served = serving => {
                if let Err(error) = served {
                    tracing::error!(%error, "a worker stopped serving");
                }
            }
            () = timeout => tracing::debug!("idle connections were cut"),
        }
    }

    fn routes(&self) -> tonic::service::Routes {
        let roles = &self.services.config.roles;
        let mut routes = RoutesBuilder::default();
        // Health lives in the catalogue service, so every role has it; what needs credentials finds none elsewhere.
        let catalogue = CatalogueService(Arc::clone(&self.services.catalogue));
        routes.add_service(
            CatalogueServer::new(catalogue).max_decoding_message_size(limits::MAX_UNARY_REQUEST_BYTES),
        );
        if roles.contains(&Role::Mask) {
            let service = MaskJobsService(Arc::clone(&self.services.masks));
            routes.add_service(
                MaskJobsServer::new(service)
                    .max_decoding_message_size(limits::MAX_UNARY_REQUEST_BYTES)
                    .max_encoding_message_size(usize::MAX),
            );
        }
        if roles.contains(&Role::Body) {
            let service = BodiesService(Arc::clone(&self.services.bodies));
            routes.add_service(
                BodiesServer::new(service)
                    .max_decoding_message_size(limits::MAX_REQUEST_BYTES)
                    .max_encoding_message_size(usize::MAX),
            );
        }
        let introduce = axum::middleware::from_fn_with_state(Arc::clone(&self.services), introduce);
        routes.routes().into_axum_router().layer(introduce).into()
    }
}

async fn handshake(
    services: Arc<Services>,
    tls: TlsAcceptor,
    Handover { stream, places, stranger: (place, mut evicted) }: Handover,
    accepted: mpsc::Sender<std::io::Result<Connection>>,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    stream.set_nodelay(true).ok();
    let opened = tokio::select! {
        opened = tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)) => opened,
        _ = &mut evicted => {
            services.metrics.handshakes_failed.inc();
            return;
        }
    };
    match opened {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN_BODIES) => {
            let (socket, tls) = stream.into_inner();
            // Not this worker's any more: it has a thread, and counts as a connection.
            let [all, of_address, _load] = places;
            let serves = services.config.roles.contains(&Role::Body);
            let held = framed::Held { _places: [all, of_address], stranger: (place, evicted) };
            let started = socket
                .into_std()
                .map(|socket| serves && framed::start(&services.bodies, socket, tls, held).is_ok());
            if !started.unwrap_or(false) {
                services.metrics.handshakes_failed.inc();
            }
        }
        Ok(Ok(stream)) => {
            services.metrics.connections.inc();
            let gauge = services.metrics.connections.clone();
            let probation = Probation::new(place, evicted);
            let connection = Connection { stream, gauge, probation, _places: places };
            accepted.send(Ok(connection)).await.ok();
        }
        _ => {
            services.metrics.handshakes_failed.inc();
        }
    }
}

/// A connection that counts while it lives.
struct Connection {
    stream: TlsStream<TcpStream>,
    gauge: prometheus_client::metrics::gauge::Gauge,
    probation: Probation,
    _places: Places,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionAuth;

    fn connect_info(&self) -> ConnectionAuth {
        self.probation.auth.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.probation.poll_failed(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let received = buf.filled().len() - before;
        self.probation.note_received(received);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
