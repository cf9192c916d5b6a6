//! TLS 1.3 with a pinned certificate and post-quantum key exchange.
//!
//! There is no certificate authority: the server signs its own certificate once and the connect string carries the
//! SHA-256 of its DER form. The client accepts that certificate and no other, whatever its names and dates say. Key
//! exchange is X25519MLKEM768 and nothing else, so a recording made today does not fall to a quantum computer.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, Result};
use crate::limits;
use crate::protocol::ALPN_H2;

/// The certificate in the state or key directory.
const CERTIFICATE_FILE: &str = "tls-cert.pem";

/// The certificate's key in the same directory.
const KEY_FILE: &str = "tls-key.pem";

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificatePin(pub [u8; 32]);

impl CertificatePin {
    /// Pin of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

/// The server's certificate and key.
pub struct ServerIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// A fresh self-signed identity that lives in memory only.
    ///
    /// # Errors
    /// [`Error::Tls`] if the key cannot be made.
    pub fn generate() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["sotto".to_owned()]).map_err(tls_error)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        Ok(Self { certificate: made.cert.der().clone(), key })
    }

    /// The identity kept in `dir` (`tls-cert.pem`, `tls-key.pem` with mode 0600), made on first use so that the pin
    /// survives restarts.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`] on the files, [`Error::Tls`] if they do not parse.
    pub fn load_or_generate(dir: &Path) -> Result<Self> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        if !key_path.exists() {
            let made = rcgen::generate_simple_self_signed(["sotto".to_owned()]).map_err(tls_error)?;
            crate::server::state::write_private(&certificate_path, made.cert.pem().as_bytes())?;
            crate::server::state::write_private(&key_path, made.signing_key.serialize_pem().as_bytes())?;
        }
        Self::load(dir)
    }

    /// The identity kept in `dir`, which must be there.
    ///
    /// # Errors
    /// [`Error::Io`] on the files, [`Error::Tls`] if they do not parse.
    pub fn load(dir: &Path) -> Result<Self> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io("read", path, error));
        let certificate = CertificateDer::from_pem_slice(&read(&certificate_path)?).map_err(tls_error)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(tls_error)?;
        Ok(Self { certificate, key })
    }

    /// What clients pin.
    pub fn pin(&self) -> CertificatePin {
        CertificatePin::of(&self.certificate)
    }

    /// Configuration of the listening side: TLS 1.3 and HTTP/2 only.
    ///
    /// # Errors
    /// [`Error::Tls`] if key and certificate do not fit.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Arc::new(config))
    }
}

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

/// aws-lc-rs restricted to the hybrid key exchange.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(provider)
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
