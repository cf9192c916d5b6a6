//! The listening side of TLS 1.3: a self-signed certificate that survives restarts.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use sotto_protocol::ALPN_H2;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::framing::ALPN_BODIES;
use sotto_protocol::pin::{CertificatePin, provider};
use sotto_storage::write_private;

/// The certificate in the state or key directory.
const CERTIFICATE_FILE: &str = "tls-cert.pem";

/// The certificate's key in the same directory.
const KEY_FILE: &str = "tls-key.pem";

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
            let write = |path: &Path, bytes: &[u8]| {
                write_private(path, bytes).map_err(|error| Error::io("write", path, error))
            };
            let made = rcgen::generate_simple_self_signed(["sotto".to_owned()]).map_err(tls_error)?;
            write(&certificate_path, made.cert.pem().as_bytes())?;
            write(&key_path, made.signing_key.serialize_pem().as_bytes())?;
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
        config.alpn_protocols = vec![ALPN_BODIES.to_vec(), ALPN_H2.to_vec()];
        Ok(Arc::new(config))
    }
}

fn tls_error(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}
