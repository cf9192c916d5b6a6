//! Credentials and leases: what every service asks before it works, and what it charges.

use std::sync::Arc;
use std::time::Instant;

use crate::auth::credentials::{BatchState, BlockCount, CredentialId, CredentialRecord, Grant, Store};
use crate::auth::leases::{LeaseBook, MeteredLease, SigningKey};
use crate::ops::config::{Role, ServerConfig};
use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;

/// Owner of the credential store and of the leases this process knows.
pub(crate) struct Accounts {
    store: Store,
    leases: LeaseBook,
    /// Whether the catalogue is in this process: it alone gives back what leases did not use.
    is_catalogue: bool,
    /// Which counters this process alone meters, so that it knows what was not used.
    meters_bodies: bool,
    meters_masks: bool,
}

impl Accounts {
    pub(crate) fn new(store: Store, signing: &SigningKey, config: &ServerConfig) -> Self {
        let is_catalogue = config.roles.contains(&Role::Catalogue);
        Self {
            store,
            leases: LeaseBook::new(signing, is_catalogue),
            is_catalogue,
            meters_bodies: config.roles.contains(&Role::Body) && config.body_addresses.is_empty(),
            meters_masks: config.roles.contains(&Role::Mask) && config.mask_addresses.is_empty(),
        }
    }

    /// Whose credential `text` is.
    ///
    /// # Errors
    /// As [`Store::authenticate`].
    pub(crate) fn authenticate(&self, text: &str) -> Result<(CredentialId, CredentialRecord)> {
        self.store.authenticate(text)
    }

    /// Charges up to `wanted` and signs a lease over what was granted.
    ///
    /// # Errors
    /// As [`Store::charge`] and [`LeaseBook::open`]; nothing stays charged then.
    pub(crate) fn open_lease(
        &self,
        credential: CredentialId,
        digest: [u8; 32],
        wanted: Grant,
        tau: u64,
    ) -> Result<(Vec<u8>, Grant)> {
        let grant = self.store.charge(credential, wanted, tau)?;
        let lease = self.leases.open(credential, digest, grant).inspect_err(|_| {
            self.store.give_back(credential, grant).ok();
        })?;
        Ok((lease, grant))
    }

    /// Ends a lease and gives back what this process knows to be unused.
    ///
    /// # Errors
    /// As [`LeaseBook::close`] and [`Store::give_back`].
    pub(crate) fn close_lease(&self, lease: &[u8], credential: CredentialId) -> Result<Grant> {
        let unused = self.returnable(self.leases.close(lease, credential)?);
        self.store.give_back(credential, unused)?;
        Ok(unused)
    }

    /// Checks a lease that a peer sent.
    ///
    /// # Errors
    /// [`Error::Lease`] saying what is wrong.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<Arc<MeteredLease>> {
        if bytes.len() > limits::MAX_LEASE_BYTES {
            return Err(Error::Lease("malformed"));
        }
        self.leases.verify(bytes, None)
    }

    /// As [`Store::charge_batch`].
    ///
    /// # Errors
    /// As [`Store::charge_batch`].
    pub(crate) fn charge_batch(
        &self,
        credential: CredentialId,
        batch: BatchId,
        keys_hash: [u8; 32],
        blocks: BlockCount,
        charge: impl FnOnce() -> Result<()>,
    ) -> Result<BatchState> {
        self.store.charge_batch(credential, batch, keys_hash, blocks, charge)
    }

    /// Forgets batch ids that are long out of use.
    pub(crate) fn forget_old_batches(&self) {
        if let Err(error) = self.store.forget_old_batches() {
            tracing::warn!(%error, "old batches are still remembered");
        }
    }

    /// Ends expired, idle and revoked leases (`all`: every lease) and gives back what they did not use.
    pub(crate) fn sweep(&self, all: bool) {
        if !self.is_catalogue {
            self.leases.sweep(Instant::now(), |_| false);
            return;
        }
        let ended =
            self.leases.sweep(Instant::now(), |who| all || self.store.is_revoked(who).unwrap_or(false));
        for (credential, unused) in ended {
            if let Err(error) = self.store.give_back(credential, self.returnable(unused)) {
                tracing::error!(%error, "cannot give back what a lease did not use");
            }
        }
    }

    /// The part of an unused grant that no other process can have metered.
    fn returnable(&self, mut unused: Grant) -> Grant {
        if !self.meters_bodies {
            unused.body_tokens = 0;
        }
        if !self.meters_masks {
            unused.mask_slots = 0;
        }
        unused
    }
}
