//! Which server, which model, and how to tell that both are the right ones.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fhe_layers::Instance;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use sotto_protocol::connect_string::{ConnectString, check_address};
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits::MAX_ADDRESSES;
use sotto_protocol::pin::CertificatePin;
use sotto_protocol::wire::{HelloReply, ModelEntry};

/// Tells why a server started by this process is gone, or `None` while it runs.
pub(crate) type Liveness = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// One model at one server, with what is needed to reach it.
pub(crate) struct Target {
    address: String,
    pin: CertificatePin,
    credential: Zeroizing<String>,
    digest: [u8; 32],
    tau: usize,
    mask_blocks: usize,
    mask_addresses: Vec<String>,
    body_addresses: Vec<String>,
    /// Spreads connections over replicas.
    next: AtomicUsize,
    liveness: Option<Liveness>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("digest", &hex::encode(self.digest))
            .finish_non_exhaustive()
    }
}

impl Target {
    /// The server of a connect string, before a model is chosen.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectString`] when it carries no credential.
    pub(crate) fn server(connect: &ConnectString, liveness: Option<Liveness>) -> Result<Self> {
        let credential = connect.credential.clone().ok_or_else(|| {
            Error::ConnectString("credential=... is missing; ask the operator for one".to_owned())
        })?;
        Ok(Self {
            address: connect.address.clone(),
            pin: connect.pin,
            credential: Zeroizing::new(credential),
            digest: [0; 32],
            tau: 0,
            mask_blocks: 0,
            mask_addresses: connect.mask_addresses.clone(),
            body_addresses: connect.body_addresses.clone(),
            next: AtomicUsize::new(0),
            liveness,
        })
    }

    /// Takes over the processes that the server named, unless the connect string named some. They must be on the server's
    /// own host: otherwise a server could make its clients open connections within their networks.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectString`] when one is no address or on another host, [`Error::TooLong`] when there are too many.
    pub(crate) fn learn(&mut self, hello: &HelloReply) -> Result<()> {
        let catalogue = self.address.clone();
        for (known, named) in [
            (&mut self.mask_addresses, &hello.mask_addresses),
            (&mut self.body_addresses, &hello.body_addresses),
        ] {
            if named.len() > MAX_ADDRESSES {
                let (got, limit) = (named.len() as u64, MAX_ADDRESSES as u64);
                return Err(Error::TooLong { field: "addresses of the server's processes", got, limit });
            }
            if known.is_empty() {
                let checked = named.iter().map(|address| own_host(&catalogue, check_address(address)?));
                *known = checked.collect::<Result<_>>()?;
            }
        }
        Ok(())
    }

    /// Fixes the model.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the entry's digest is not 32 bytes.
    pub(crate) fn choose(&mut self, entry: &ModelEntry) -> Result<()> {
        self.digest = sotto_protocol::digest_from_wire(&entry.digest)?;
        Ok(())
    }

    /// Fixes the shape of a batch: that of the client part, which the digest covers, whatever the server says.
    pub(crate) fn shape(&mut self, instance: &Instance) {
        self.tau = instance.params().tau();
        self.mask_blocks = instance.layout().blocks();
    }

    /// Names this credential at this server with this model: one slot pool each.
    pub(crate) fn identity(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for part in [self.address.as_bytes(), &self.pin.0, self.credential.as_bytes(), &self.digest] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    pub(crate) fn catalogue_address(&self) -> &str {
        &self.address
    }

    pub(crate) fn body_address(&self) -> &str {
        self.pick(&self.body_addresses)
    }

    pub(crate) fn mask_address(&self) -> &str {
        self.pick(&self.mask_addresses)
    }

    fn pick<'a>(&'a self, addresses: &'a [String]) -> &'a str {
        match addresses.len() {
            0 => &self.address,
            count => &addresses[self.next.fetch_add(1, Ordering::Relaxed) % count],
        }
    }

    /// Whether the catalogue's address answers for everything.
    pub(crate) fn is_one_process(&self) -> bool {
        self.mask_addresses.is_empty() && self.body_addresses.is_empty()
    }

    pub(crate) fn pin(&self) -> CertificatePin {
        self.pin
    }

    pub(crate) fn credential(&self) -> &str {
        &self.credential
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(crate) fn tau(&self) -> usize {
        self.tau
    }

    pub(crate) fn mask_blocks(&self) -> usize {
        self.mask_blocks
    }

    /// Whether the server is a child of this process.
    pub(crate) fn ends_with_us(&self) -> bool {
        self.liveness.is_some()
    }

    /// False when the server was a child of this process and has ended.
    pub(crate) fn may_come_back(&self) -> bool {
        self.liveness.as_ref().is_none_or(|alive| alive().is_none())
    }

    /// Replaces a network error by its cause when the server was a child of this process and has ended.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let network = matches!(error, Error::Connect { .. } | Error::Transport(_) | Error::ShuttingDown);
        match self.liveness.as_ref().and_then(|alive| alive()) {
            Some(reason) if network => Error::Connect { address: self.address.clone(), reason },
            _ => error,
        }
    }
}

/// `address`, if it is on the host of the catalogue.
fn own_host(catalogue: &str, address: String) -> Result<String> {
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_ascii_lowercase());
    if host(catalogue) == host(&address) {
        return Ok(address);
    }
    Err(Error::ConnectString(format!(
        "the server names {address}, which is on another host; if that is right, it belongs into the connect string"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_sends_its_clients_to_no_other_host() {
        let text = format!("sotto://example.org:7443/?pin={}&credential=a.b", "ab".repeat(32));
        let learn = |named: &str| {
            let mut target = Target::server(&text.parse().unwrap(), None).unwrap();
            let hello = HelloReply { body_addresses: vec![named.to_owned()], ..HelloReply::default() };
            target.learn(&hello).map(|()| target.body_address().to_owned())
        };
        assert_eq!(learn("Example.org:7445").unwrap(), "Example.org:7445");
        for inside in ["10.0.0.1:22", "localhost:6379", "example.org.evil:1", "[::1]:22"] {
            assert!(matches!(learn(inside), Err(Error::ConnectString(_))), "{inside}");
        }
    }
}
