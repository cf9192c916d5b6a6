//! Fixed-length identities on the wire.

use crate::error::{Error, Result};

/// Client-chosen identity of a batch of mask slots: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub [u8; 16]);

impl BatchId {
    /// A fresh random identity from the operating system.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless `bytes` holds exactly 16 bytes.
    pub fn from_wire(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self).map_err(|_| Error::Malformed {
            field: "batch id",
            expected: "16 bytes".to_owned(),
            got: format!("{} bytes", bytes.len()),
        })
    }
}

/// Reads a model digest from the wire.
///
/// # Errors
/// [`Error::Malformed`] unless `bytes` holds exactly 32 bytes.
pub fn digest_from_wire(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| Error::Malformed {
        field: "model digest",
        expected: "32 bytes".to_owned(),
        got: format!("{} bytes", bytes.len()),
    })
}
