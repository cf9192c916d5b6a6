//! Files of the state directory: TLS identity, signing key, credential store.

use std::path::Path;

use sotto_protocol::error::{Error, Result};
use sotto_storage::write_private;

use crate::transport::tls::ServerIdentity;

/// The credential store's file in the state directory.
pub const CREDENTIALS_FILE: &str = "credentials.redb";

/// The file of the key that signs leases; processes that share leases share it.
pub const SIGNING_KEY_FILE: &str = "signing.key";

/// A 32-byte secret, wiped when dropped.
type Secret = zeroize::Zeroizing<[u8; 32]>;

/// Reads the certificate with its key and the signing key in `dir`; those that are missing are made first.
///
/// # Errors
/// As [`load_keys`], and [`Error::DiskFull`].
pub fn load_or_generate_keys(dir: &Path) -> Result<(ServerIdentity, Secret)> {
    let signing = dir.join(SIGNING_KEY_FILE);
    if !signing.exists() {
        let secret = zeroize::Zeroizing::new(rand::random::<[u8; 32]>());
        write_private(&signing, &*secret).map_err(|error| Error::io("write", &signing, error))?;
    }
    Ok((ServerIdentity::load_or_generate(dir)?, load_secret(&signing)?))
}

/// Reads the certificate with its key and the signing key in `dir`.
///
/// # Errors
/// [`Error::Io`] on the files, [`Error::Malformed`] or [`Error::Tls`] on what they hold.
pub fn load_keys(dir: &Path) -> Result<(ServerIdentity, Secret)> {
    Ok((ServerIdentity::load(dir)?, load_secret(&dir.join(SIGNING_KEY_FILE))?))
}

fn load_secret(path: &Path) -> Result<Secret> {
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| Error::io("read", path, error))?);
    let secret: [u8; 32] = bytes.as_slice().try_into().map_err(|_| Error::Malformed {
        field: "signing key file",
        expected: "32 bytes".to_owned(),
        got: format!("{} bytes", bytes.len()),
    })?;
    Ok(zeroize::Zeroizing::new(secret))
}
