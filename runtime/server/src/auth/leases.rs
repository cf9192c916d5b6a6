//! Leases: a piece of a credential's budget, signed by the catalogue, that body replicas and mask workers meter by
//! themselves.
//!
//! Bytes of a lease: version (1), lease id (16), credential id (8), model digest (32), body tokens (8), mask slots
//! (8), expiry in seconds since 1970 (8), all little-endian, then a keyed BLAKE3 hash of the rest (32).
//!
//! In the catalogue's own process only leases of the running process count: after a restart the client opens a new
//! one, so no lease is spent twice. A separate replica meters each lease by itself; several replicas may together
//! accept a lease as often as there are replicas, which the size and life of a lease bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::auth::credentials::{CredentialId, Grant, unix_now};
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 16 + 8 + 32 + 8 + 8 + 8;
const LEASE_BYTES: usize = SIGNED_BYTES + 32;

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    id: [u8; 16],
    /// Who pays.
    pub credential: CredentialId,
    /// The model it is for.
    pub digest: [u8; 32],
    /// How much it covers.
    pub grant: Grant,
    expires_unix_s: u64,
}

/// The key that signs leases and seeds mask jobs; shared by the processes of one server.
pub struct SigningKey(Zeroizing<[u8; 32]>);

impl SigningKey {
    /// Wraps 32 secret bytes.
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// A key of its own for each purpose.
    fn derived(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, self.0.as_slice()))
    }

    /// Secret that hides the shared masks of all sessions.
    pub(crate) fn session_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derived("sotto 2026 session secret v1")
    }

    /// Seed of a mask job's re-randomisation: a pseudo-random function of who asks for which keys under which name,
    /// so that a retry gives the same bytes and other keys never meet the same randomness.
    pub fn job_seed(&self, credential: CredentialId, batch: &[u8; 16], keys_hash: &[u8; 32]) -> [u8; 32] {
        let key = self.derived("sotto 2026 mask job seed v1");
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&credential.0).update(batch).update(keys_hash);
        hasher.finalize().into()
    }
}

impl Lease {
    fn to_bytes(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEASE_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.credential.0);
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.grant.body_tokens.to_le_bytes());
        bytes.extend_from_slice(&self.grant.mask_slots.to_le_bytes());
        bytes.extend_from_slice(&self.expires_unix_s.to_le_bytes());
        let signature = blake3::keyed_hash(key, &bytes);
        bytes.extend_from_slice(signature.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8], key: &[u8; 32]) -> Result<Self> {
        let whole: &[u8; LEASE_BYTES] = bytes.try_into().map_err(|_| Error::Lease("malformed"))?;
        let (signed, signature) = whole.split_at(SIGNED_BYTES);
        let signature: [u8; 32] = signature.try_into().map_err(|_| Error::Lease("malformed"))?;
        // Compares in constant time.
        if blake3::keyed_hash(key, signed) != signature || signed[0] != VERSION {
            return Err(Error::Lease("not signed by this server"));
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| signed[at + i]));
        Ok(Self {
            id: std::array::from_fn(|i| signed[1 + i]),
            credential: CredentialId(std::array::from_fn(|i| signed[17 + i])),
            digest: std::array::from_fn(|i| signed[25 + i]),
            grant: Grant { body_tokens: number(57), mask_slots: number(65) },
            expires_unix_s: number(73),
        })
    }
}

/// A lease and what was used of it.
pub struct MeteredLease {
    lease: Lease,
    deadline: Instant,
    usage: Mutex<Usage>,
}

#[derive(Default)]
struct Usage {
    closed: bool,
    /// When somebody last came with it; `None` for never.
    seen: Option<Instant>,
    per_round: Vec<u64>,
    body_tokens: u64,
    mask_slots: u64,
}

impl MeteredLease {
    fn new(lease: Lease, life: Duration) -> Self {
        let now = Instant::now();
        Self { lease, deadline: now + life, usage: Mutex::new(Usage { seen: Some(now), ..Usage::default() }) }
    }

    /// What the lease says.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Counts `tokens` bodies of `round`. The charge of a lease is its largest count over the rounds.
    ///
    /// # Errors
    /// [`Error::Lease`] if it is closed, expired or does not cover them; nothing is counted then.
    pub fn use_bodies(&self, round: usize, tokens: u64) -> Result<()> {
        let mut usage = self.usable()?;
        if usage.per_round.len() <= round {
            usage.per_round.resize(round + 1, 0);
        }
        let count = usage.per_round[round].saturating_add(tokens);
        if count > self.lease.grant.body_tokens {
            return Err(Error::Lease("its body tokens are used up"));
        }
        usage.per_round[round] = count;
        usage.body_tokens = usage.body_tokens.max(count);
        Ok(())
    }

    /// Counts the slots of a batch.
    ///
    /// # Errors
    /// [`Error::Lease`] if it is closed, expired or does not cover them; nothing is counted then.
    pub fn use_masks(&self, slots: u64) -> Result<()> {
        let mut usage = self.usable()?;
        let count = usage.mask_slots.saturating_add(slots);
        if count > self.lease.grant.mask_slots {
            return Err(Error::Lease("its mask slots are used up"));
        }
        usage.mask_slots = count;
        Ok(())
    }

    /// Ends the lease and returns what was not used; `None` if it had ended before.
    fn close(&self) -> Option<Grant> {
        let mut usage = self.lock();
        if std::mem::replace(&mut usage.closed, true) {
            return None;
        }
        Some(Grant {
            body_tokens: self.lease.grant.body_tokens - usage.body_tokens,
            mask_slots: self.lease.grant.mask_slots - usage.mask_slots,
        })
    }

    fn usable(&self) -> Result<std::sync::MutexGuard<'_, Usage>> {
        let (now, mut usage) = (Instant::now(), self.lock());
        if usage.closed {
            return Err(Error::Lease("closed"));
        }
        if now >= self.deadline {
            return Err(Error::Lease("expired"));
        }
        usage.seen = Some(now);
        Ok(usage)
    }

    /// Whether nobody came with it for [`limits::LEASE_IDLE_TIMEOUT`].
    fn is_idle(&self, now: Instant) -> bool {
        let seen = self.lock().seen;
        seen.is_none_or(|seen| now.saturating_duration_since(seen) >= limits::LEASE_IDLE_TIMEOUT)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leases this process knows.
pub struct LeaseBook {
    key: Zeroizing<[u8; 32]>,
    /// Whether the catalogue runs in this process, so that only leases it opened itself count.
    own_only: bool,
    known: Mutex<HashMap<[u8; 16], Arc<MeteredLease>>>,
}

impl LeaseBook {
    /// An empty book; `own_only` in the catalogue's process.
    pub fn new(signing: &SigningKey, own_only: bool) -> Self {
        Self { key: signing.derived("sotto 2026 lease v1"), own_only, known: Mutex::default() }
    }

    /// Signs a lease over `grant`, which must have been charged already.
    ///
    /// # Errors
    /// [`Error::Busy`] if the credential has too many leases open.
    pub fn open(&self, credential: CredentialId, digest: [u8; 32], grant: Grant) -> Result<Vec<u8>> {
        let lease = Lease {
            id: rand::random(),
            credential,
            digest,
            grant,
            expires_unix_s: unix_now() + limits::LEASE_LIFETIME.as_secs(),
        };
        let bytes = lease.to_bytes(&self.key);
        let mut known = self.lock();
        let open = known.values().filter(|other| other.lease.credential == credential).count();
        if open >= limits::MAX_LEASES_PER_CREDENTIAL {
            return Err(Error::Busy { what: "the list of leases", retry_after: Duration::from_secs(30) });
        }
        known.insert(lease.id, Arc::new(MeteredLease::new(lease, limits::LEASE_LIFETIME)));
        Ok(bytes)
    }

    /// Checks signature, model and life of a lease.
    ///
    /// # Errors
    /// [`Error::Lease`] saying what is wrong.
    pub fn verify(&self, bytes: &[u8], digest: Option<&[u8; 32]>) -> Result<Arc<MeteredLease>> {
        let lease = Lease::from_bytes(bytes, &self.key)?;
        if digest.is_some_and(|digest| *digest != lease.digest) {
            return Err(Error::Lease("for another model"));
        }
        let mut known = self.lock();
        if let Some(metered) = known.get(&lease.id) {
            drop(metered.usable()?);
            return Ok(Arc::clone(metered));
        }
        if self.own_only {
            return Err(Error::Lease("closed, or of an earlier run of the server"));
        }
        let life = (lease.expires_unix_s + limits::LEASE_CLOCK_LEEWAY.as_secs()).saturating_sub(unix_now());
        if life == 0 {
            return Err(Error::Lease("expired"));
        }
        // Bounded even if the catalogue's clock runs far ahead.
        let life = Duration::from_secs(life).min(limits::LEASE_LIFETIME + 2 * limits::LEASE_CLOCK_LEEWAY);
        let metered = Arc::new(MeteredLease::new(lease, life));
        known.insert(metered.lease.id, Arc::clone(&metered));
        Ok(metered)
    }

    /// Ends a lease that this process opened; returns who gets how much back.
    ///
    /// # Errors
    /// [`Error::Lease`] if it is not one of this process or had ended before.
    pub fn close(&self, bytes: &[u8], credential: CredentialId) -> Result<Grant> {
        let metered = self.verify(bytes, None)?;
        if metered.lease.credential != credential {
            return Err(Error::Lease("of another credential"));
        }
        self.lock().remove(&metered.lease.id);
        metered.close().ok_or(Error::Lease("closed"))
    }

    /// Ends leases that have expired by `now`, those that `revoked` names and, in the catalogue's own process, those that
    /// are idle: no stream and no job holds them, and nobody came with them for [`limits::LEASE_IDLE_TIMEOUT`]. Returns
    /// what they did not use.
    ///
    /// So the leases of a client that crashed come back soon, and those of one that is connected stay. What is given back
    /// was not used and cannot be used any more: a lease is closed before its rest is counted.
    pub fn sweep(
        &self,
        now: Instant,
        mut revoked: impl FnMut(CredentialId) -> bool,
    ) -> Vec<(CredentialId, Grant)> {
        // The book and the list below hold a lease, and whoever uses it.
        let is_idle = |metered: &Arc<MeteredLease>| {
            self.own_only && Arc::strong_count(metered) <= 2 && metered.is_idle(now)
        };
        let all: Vec<_> = self.lock().values().cloned().collect();
        let ended: Vec<_> = all
            .into_iter()
            .filter(|metered| {
                now >= metered.deadline || is_idle(metered) || revoked(metered.lease.credential)
            })
            .collect();
        let mut known = self.lock();
        let mut unused = Vec::new();
        for metered in ended {
            known.remove(&metered.lease.id);
            unused.extend(metered.close().map(|grant| (metered.lease.credential, grant)));
        }
        unused
    }

    /// Number of leases known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no lease is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 16], Arc<MeteredLease>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Grant = Grant { body_tokens: 10, mask_slots: 64 };
    const WHO: CredentialId = CredentialId([5; 8]);

    fn key() -> SigningKey {
        SigningKey::new(Zeroizing::new([8; 32]))
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let book = LeaseBook::new(&key(), true);
        let bytes = book.open(WHO, [1; 32], GRANT).unwrap();
        assert_eq!(book.verify(&bytes, Some(&[1; 32])).unwrap().lease().grant, GRANT);
        assert!(book.verify(&bytes, Some(&[2; 32])).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(book.verify(&changed, None).is_err(), "byte {at}");
        }
        assert!(book.verify(&bytes[1..], None).is_err());
    }

    #[test]
    fn the_charge_is_the_largest_count_over_the_rounds() {
        let book = LeaseBook::new(&key(), true);
        let bytes = book.open(WHO, [1; 32], GRANT).unwrap();
        let lease = book.verify(&bytes, None).unwrap();
        lease.use_bodies(3, 6).unwrap();
        lease.use_bodies(0, 4).unwrap();
        assert!(lease.use_bodies(3, 5).is_err());
        lease.use_bodies(0, 4).unwrap();
        lease.use_masks(64).unwrap();
        assert!(lease.use_masks(1).is_err());
        assert_eq!(book.close(&bytes, WHO).unwrap(), Grant { body_tokens: 2, mask_slots: 0 });
        assert!(lease.use_bodies(1, 1).is_err(), "a closed lease covers nothing");
        assert!(book.close(&bytes, WHO).is_err());
    }

    #[test]
    fn a_restarted_catalogue_refuses_old_leases_and_a_replica_accepts_them() {
        let bytes = LeaseBook::new(&key(), true).open(WHO, [1; 32], GRANT).unwrap();
        assert!(LeaseBook::new(&key(), true).verify(&bytes, None).is_err());
        let replica = LeaseBook::new(&key(), false);
        replica.verify(&bytes, None).unwrap().use_bodies(0, 10).unwrap();
        assert!(replica.verify(&bytes, None).unwrap().use_bodies(0, 1).is_err());
    }

    #[test]
    fn revoked_leases_end_and_say_what_is_left() {
        let book = LeaseBook::new(&key(), true);
        let bytes = book.open(WHO, [1; 32], GRANT).unwrap();
        assert!(book.sweep(Instant::now(), |_| false).is_empty());
        assert_eq!(book.sweep(Instant::now(), |who| who == WHO), vec![(WHO, GRANT)]);
        assert!(book.verify(&bytes, None).is_err());
    }

    #[test]
    fn the_lease_of_a_client_that_is_gone_comes_back_soon() {
        let book = LeaseBook::new(&key(), true);
        let bytes = book.open(WHO, [1; 32], GRANT).unwrap();
        let stream = book.verify(&bytes, None).unwrap();
        stream.use_bodies(0, 3).unwrap();
        let later = || Instant::now() + limits::LEASE_IDLE_TIMEOUT;
        assert!(book.sweep(later(), |_| false).is_empty(), "a stream holds it");
        drop(stream);
        assert!(book.sweep(Instant::now(), |_| false).is_empty(), "it was used a moment ago");
        assert_eq!(book.sweep(later(), |_| false), vec![(WHO, Grant { body_tokens: 7, mask_slots: 64 })]);
        assert!(book.verify(&bytes, None).is_err(), "what was given back cannot be spent again");
        assert!(book.close(&bytes, WHO).is_err());
        // A replica does not see who else uses a lease, and would take an ended one for a new one.
        let replica = LeaseBook::new(&key(), false);
        replica.verify(&bytes, None).unwrap().use_bodies(0, 10).unwrap();
        assert!(replica.sweep(later(), |_| false).is_empty());
        assert!(replica.verify(&bytes, None).unwrap().use_bodies(0, 1).is_err());
    }

    #[test]
    fn job_seeds_differ_in_every_input() {
        let base = key().job_seed(WHO, &[1; 16], &[2; 32]);
        assert_eq!(base, key().job_seed(WHO, &[1; 16], &[2; 32]));
        assert_ne!(base, key().job_seed(CredentialId([6; 8]), &[1; 16], &[2; 32]));
        assert_ne!(base, key().job_seed(WHO, &[2; 16], &[2; 32]));
        assert_ne!(base, key().job_seed(WHO, &[1; 16], &[3; 32]));
    }
}
