//! What both ends of a TLS connection agree on: the certificate pin and the key exchange.
//!
//! There is no certificate authority: the server signs its own certificate once and the connect string carries the
//! SHA-256 of its DER form. Key exchange is X25519MLKEM768 and nothing else, so a recording made today does not fall
//! to a quantum computer.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificatePin(pub [u8; 32]);

impl CertificatePin {
    /// Pin of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

/// aws-lc-rs restricted to the hybrid key exchange.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(provider)
}
