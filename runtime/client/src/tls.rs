//! The connecting side of TLS 1.3: accepts the certificate with the pinned digest and no other, whatever its names and
//! dates say.

use std::net::ToSocketAddrs;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use sotto_protocol::eager::EagerSocket;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::framing::ALPN_BODIES;
use sotto_protocol::pin::{CertificatePin, provider};
use sotto_protocol::{ALPN_H2, limits};

/// Configuration of the connecting side: accepts the certificate with this pin and nothing else.
///
/// # Errors
/// [`Error::Tls`] if the provider lacks TLS 1.3.
pub fn client_config(pin: CertificatePin) -> Result<Arc<rustls::ClientConfig>> {
    let provider = provider();
    let verifier = Arc::new(PinnedVerifier { pin, provider: Arc::clone(&provider) });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// A blocking connection that carries framed bodies.
pub(crate) type FramedConnection = rustls::StreamOwned<rustls::ClientConnection, EagerSocket>;

/// Connects for framed bodies to `address` ("host:port") whose server must hold the certificate with `pin`; `None` if that
/// server does not speak them. Reads return after `poll` when nothing came.
///
/// # Errors
/// As [`connect`].
pub(crate) fn connect_framed(
    address: &str,
    pin: CertificatePin,
    timeout: Duration,
    poll: Duration,
) -> Result<Option<FramedConnection>> {
    let mut config = (*client_config(pin)?).clone();
    config.alpn_protocols = vec![ALPN_BODIES.to_vec(), ALPN_H2.to_vec()];
    let opened = || -> std::io::Result<FramedConnection> {
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
        for candidate in address.to_socket_addrs()? {
            match std::net::TcpStream::connect_timeout(&candidate, timeout) {
                Ok(mut socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(timeout))?;
                    socket.set_write_timeout(Some(timeout))?;
                    let name = ServerName::try_from("sotto").map_err(std::io::Error::other)?;
                    let mut tls = rustls::ClientConnection::new(Arc::new(config.clone()), name)
                        .map_err(std::io::Error::other)?;
                    while tls.is_handshaking() {
                        tls.complete_io(&mut socket)?;
                    }
                    socket.set_read_timeout(Some(poll))?;
                    return Ok(rustls::StreamOwned::new(tls, EagerSocket::new(socket)));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let connection = opened().map_err(|error| connect_error(address, &error))?;
    let framed = connection.conn.alpn_protocol() == Some(ALPN_BODIES);
    Ok(framed.then_some(connection))
}

/// Opens a gRPC channel to `address` ("host:port") whose server must hold the certificate with `pin`.
///
/// # Errors
/// [`Error::Connect`] if the server cannot be reached within `timeout`; [`Error::Tls`] if its certificate is another.
pub async fn connect(address: &str, pin: CertificatePin, timeout: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| connect_error(address, &error))?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .max_frame_size(limits::HTTP2_FRAME_BYTES)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = PinnedConnector { address: address.into(), tls: client_config(pin)?, timeout };
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(channel),
        Err(error) => Err(connect_error(address, &error)),
    }
}

/// A connector that speaks TCP without delay and pinned TLS, whatever the URI's scheme says.
#[derive(Clone)]
struct PinnedConnector {
    address: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
    timeout: Duration,
}

type ClientIo = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

impl tonic::codegen::Service<Uri> for PinnedConnector {
    type Response = ClientIo;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<ClientIo>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls, timeout } = self.clone();
        Box::pin(async move {
            let open = async {
                let tcp = TcpStream::connect(&*address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from("sotto").map_err(std::io::Error::other)?;
                tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await
            };
            match tokio::time::timeout(timeout, open).await {
                Ok(opened) => opened.map(TokioIo::new),
                Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")),
            }
        })
    }
}

/// Accepts exactly one certificate.
#[derive(Debug)]
struct PinnedVerifier {
    pin: CertificatePin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if CertificatePin::of(end_entity) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls_error(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

/// Finds the cause that a user can act on in a chain of transport errors.
fn connect_error(address: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(current) = cause {
        let tls = current.downcast_ref::<rustls::Error>().or_else(|| {
            current
                .downcast_ref::<std::io::Error>()
                .and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>())
        });
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => {
                let text = format!("{address} shows another certificate than the pinned one");
                return Error::Tls(text);
            }
            Some(other) => return Error::Tls(format!("{address}: {other}")),
            None => {}
        }
        last = current.to_string();
        cause = current.source();
    }
    Error::Connect { address: address.to_owned(), reason: last }
}
