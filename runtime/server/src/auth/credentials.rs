//! Credentials, their budgets and the batches charged to them, in one small database file.
//!
//! A credential is `<id>.<secret>`: the id (16 hex digits) names it in listings, the secret (256 random bits, base64)
//! is stored as SHA-256 only; with that much entropy a slow hash adds nothing. Each credential has two counters, mask
//! slots and body tokens. A counter is charged, synced to disk, *before* a lease is handed out, so that a crash can
//! cost a credential the unused rest of its leases but never gives work away.
//!
//! The file is opened for each operation and closed again: `sotto credential` works beside a running server.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;

const CREDENTIALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("credentials");
const BATCHES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("batches");

/// A counter that is not limited.
pub const UNLIMITED: u64 = u64::MAX;

/// How long a checked credential is believed without asking the file again.
const CACHE_LIFETIME: Duration = Duration::from_secs(2);

/// A change of the file this soon after another may leave its time of modification as it was.
const TICK: Duration = Duration::from_secs(1);

/// How often the file is read at most, for credentials that are not known, while its time of modification may lie.
const SEARCH_INTERVAL: Duration = Duration::from_millis(25);

/// How long to wait for another process that has the file open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a batch id is remembered.
const BATCH_MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Public name of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(pub [u8; 8]);

impl std::fmt::Display for CredentialId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

/// A budget and what is charged to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The whole budget; [`UNLIMITED`] for none.
    pub budget: u64,
    /// Charged so far, leases under way included.
    pub charged: u64,
}

impl Counter {
    /// What is left.
    pub fn left(&self) -> u64 {
        if self.budget == UNLIMITED { UNLIMITED } else { self.budget.saturating_sub(self.charged) }
    }
}

/// What the store knows about a credential; the secret only as a hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CredentialRecord {
    hash: String,
    /// The operator's note.
    pub label: String,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// No longer accepted.
    pub revoked: bool,
    /// Slots of mask batches.
    pub mask_slots: Counter,
    /// Tokens through the body half: the largest count over a model's rounds.
    pub body_tokens: Counter,
}

/// What a lease takes from a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Tokens through the body half.
    pub body_tokens: u64,
    /// Mask slots.
    pub mask_slots: u64,
}

/// What is known about a batch id that a job names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// First seen now: to be charged.
    New,
    /// Seen with the same keys: already charged.
    Known,
}

/// How many mask blocks a job wants.
#[derive(Clone, Copy, Debug)]
pub struct BlockCount {
    /// Of this job.
    pub wanted: u64,
    /// Of a whole batch.
    pub whole: u64,
}

enum CredentialBackend {
    File(PathBuf),
    Memory(Box<Database>),
}

/// What tells one state of the store's file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

/// A reading of the whole file.
struct Searched {
    at: Instant,
    /// Of the file when it had been read.
    stamp: Option<Stamp>,
    /// Then, by the clock that stamps files.
    now: SystemTime,
}

impl Searched {
    /// Whether reading it again would give the same, as far as `stamp` tells.
    fn holds(&self, stamp: Option<Stamp>) -> bool {
        let settled = self
            .stamp
            .is_none_or(|stamp| self.now.duration_since(stamp.modified).is_ok_and(|age| age > TICK));
        self.stamp == stamp && (settled || self.at.elapsed() < SEARCH_INTERVAL)
    }
}

/// The credential store.
pub struct Store {
    backend: CredentialBackend,
    /// One operation at a time in this process.
    serial: Mutex<()>,
    cache: Mutex<HashMap<CredentialId, (CredentialRecord, Instant)>>,
    /// The last reading of the file for a credential that was not met before.
    searched: Mutex<Option<Searched>>,
    /// Credentials that are never written to the file.
    ephemeral: Mutex<HashMap<CredentialId, CredentialRecord>>,
}

/// When a batch was first seen, in seconds since 1970, and how many blocks of it were given. Earlier versions kept the
/// time alone.
fn batch_numbers(value: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = value.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    (number(32).unwrap_or(0), number(40).unwrap_or(0))
}

impl Store {
    /// The store in the file `path`, created if missing.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::DiskFull`] if it cannot be opened or created.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Self::new(CredentialBackend::File(path.to_owned()));
        store.initialise()?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(|error| Error::io("restrict", path, error))?;
        Ok(store)
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// [`Error::Store`] if the database refuses.
    pub fn in_memory() -> Result<Self> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).map_err(store_error)?;
        let store = Self::new(CredentialBackend::Memory(Box::new(database)));
        store.initialise()?;
        Ok(store)
    }

    fn new(backend: CredentialBackend) -> Self {
        Self {
            backend,
            serial: Mutex::new(()),
            cache: Mutex::default(),
            searched: Mutex::default(),
            ephemeral: Mutex::default(),
        }
    }

    fn initialise(&self) -> Result<()> {
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(CREDENTIALS)?;
            transaction.commit()?;
            Ok(())
        })?;
        self.forget_old_batches()
    }

    /// Makes a credential and returns its text, which is not stored and cannot be shown again.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::DiskFull`].
    pub fn add(&self, label: &str, mask_slots: u64, body_tokens: u64) -> Result<(CredentialId, String)> {
        let (id, text, record) = fresh(label, mask_slots, body_tokens);
        self.update(id, |slot| {
            *slot = Some(record);
            Ok(())
        })?;
        Ok((id, text))
    }

    /// All credentials, by id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list(&self) -> Result<Vec<(CredentialId, CredentialRecord)>> {
        let mut found = Vec::new();
        self.with_database(|database| {
            for entry in database.begin_read()?.open_table(CREDENTIALS)?.iter()? {
                let (key, value) = entry?;
                found.push((key.value().to_owned(), value.value().to_owned()));
            }
            Ok(())
        })?;
        found
            .into_iter()
            .map(|(key, value)| Ok((parse_id(&key).ok_or_else(corrupt)?, decode(&value)?)))
            .collect()
    }

    /// As [`Store::add`], but the credential is forgotten with the process: it is not written to the file.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn add_ephemeral(
        &self,
        label: &str,
        mask_slots: u64,
        body_tokens: u64,
    ) -> Result<(CredentialId, String)> {
        let (id, text, record) = fresh(label, mask_slots, body_tokens);
        lock(&self.ephemeral).insert(id, record);
        Ok((id, text))
    }

    /// Refuses the credential from now on; running leases end within [`limits::LEASE_LIFETIME`] on separate replicas
    /// and at once in the catalogue's own process.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none of that id, [`Error::Store`].
    pub fn revoke(&self, id: CredentialId) -> Result<()> {
        self.update(id, |slot| match slot {
            Some(record) => {
                record.revoked = true;
                Ok(())
            }
            None => Err(Error::Usage(format!("there is no credential {id}"))),
        })
    }

    /// Checks the text a client sent.
    ///
    /// # Errors
    /// [`Error::Credential`] if it is malformed, unknown, wrong or revoked; [`Error::Store`].
    pub fn authenticate(&self, text: &str) -> Result<(CredentialId, CredentialRecord)> {
        if text.len() > limits::MAX_CREDENTIAL_BYTES {
            return Err(Error::Credential);
        }
        let (id, secret) = text.split_once('.').ok_or(Error::Credential)?;
        let id = parse_id(id).ok_or(Error::Credential)?;
        let secret = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| Error::Credential)?);
        let record = self.record(id)?.ok_or(Error::Credential)?;
        let expected: [u8; 32] =
            hex::decode(&record.hash).ok().and_then(|hash| hash.try_into().ok()).ok_or_else(corrupt)?;
        let got: [u8; 32] = Sha256::digest(secret.as_slice()).into();
        // blake3's Hash compares in constant time.
        if blake3::Hash::from(expected) != blake3::Hash::from(got) || record.revoked {
            return Err(Error::Credential);
        }
        Ok((id, record))
    }

    /// Whether the credential is gone or revoked.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn is_revoked(&self, id: CredentialId) -> Result<bool> {
        Ok(self.record(id)?.is_none_or(|record| record.revoked))
    }

    fn record(&self, id: CredentialId) -> Result<Option<CredentialRecord>> {
        if let Some(record) = lock(&self.ephemeral).get(&id) {
            return Ok(Some(record.clone()));
        }
        let cached = lock(&self.cache).get(&id).cloned();
        match cached {
            Some((record, at)) if at.elapsed() < CACHE_LIFETIME => Ok(Some(record)),
            Some(_) => self.read_again(id),
            None => self.search(id),
        }
    }

    /// A credential that was met before, as it is now.
    fn read_again(&self, id: CredentialId) -> Result<Option<CredentialRecord>> {
        let mut found = None;
        self.with_database(|database| {
            let table = database.begin_read()?.open_table(CREDENTIALS)?;
            found = table.get(id.to_string().as_str())?.map(|value| value.value().to_owned());
            Ok(())
        })?;
        let record = found.map(|bytes| decode(&bytes)).transpose()?;
        let mut cache = lock(&self.cache);
        match &record {
            Some(record) => cache.insert(id, (record.clone(), Instant::now())),
            None => cache.remove(&id),
        };
        Ok(record)
    }

    /// A credential that was not met before. All of them are read then, and not again while the file is the same: a peer
    /// that makes ids up does not keep it busy.
    fn search(&self, id: CredentialId) -> Result<Option<CredentialRecord>> {
        // Held while the file is read: who comes meanwhile waits for that, and does not read it again.
        let mut searched = lock(&self.searched);
        if !searched.as_ref().is_some_and(|searched| searched.holds(self.stamp())) {
            let at = Instant::now();
            let all = self.list()?;
            let mut cache = lock(&self.cache);
            for (id, record) in all {
                // What is there is at least as new.
                cache.entry(id).or_insert((record, at));
            }
            *searched = Some(Searched { at, stamp: self.stamp(), now: SystemTime::now() });
        }
        Ok(lock(&self.cache).get(&id).map(|(record, _)| record.clone()))
    }

    /// Tells one state of the file from another; `None` in memory.
    fn stamp(&self) -> Option<Stamp> {
        let CredentialBackend::File(path) = &self.backend else { return None };
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp { modified: meta.modified().ok()?, bytes: meta.len(), inode: meta.ino() })
    }

    /// Charges up to `wanted`, synced to disk before it returns; `unit` is what mask slots come in (tau).
    ///
    /// # Errors
    /// [`Error::Budget`] if something is wanted of which nothing is left, [`Error::Credential`] if revoked,
    /// [`Error::Store`], [`Error::DiskFull`].
    pub fn charge(&self, id: CredentialId, wanted: Grant, unit: u64) -> Result<Grant> {
        let mut grant = Grant::default();
        self.update(id, |slot| {
            let record = slot.as_mut().filter(|record| !record.revoked).ok_or(Error::Credential)?;
            grant.body_tokens = wanted.body_tokens.min(record.body_tokens.left());
            grant.mask_slots = wanted.mask_slots.min(record.mask_slots.left()) / unit * unit;
            if wanted == Grant::default() {
                // A lease over nothing would still let its holder have paid batches computed again.
                let expected = "body tokens or mask slots".to_owned();
                return Err(Error::Malformed { field: "lease", expected, got: "neither".to_owned() });
            }
            if grant.body_tokens == 0 && wanted.body_tokens > 0 {
                let counter = "body tokens";
                return Err(Error::Budget { counter, wanted: wanted.body_tokens, left: 0 });
            }
            if grant.mask_slots == 0 && wanted.mask_slots > 0 {
                let left = record.mask_slots.left();
                return Err(Error::Budget { counter: "mask slots", wanted: wanted.mask_slots, left });
            }
            record.body_tokens.charged = record.body_tokens.charged.saturating_add(grant.body_tokens);
            record.mask_slots.charged = record.mask_slots.charged.saturating_add(grant.mask_slots);
            Ok(())
        })?;
        Ok(grant)
    }

    /// Gives back what a lease did not use.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::DiskFull`].
    pub fn give_back(&self, id: CredentialId, unused: Grant) -> Result<()> {
        self.update(id, |slot| {
            if let Some(record) = slot {
                record.body_tokens.charged = record.body_tokens.charged.saturating_sub(unused.body_tokens);
                record.mask_slots.charged = record.mask_slots.charged.saturating_sub(unused.mask_slots);
            }
            Ok(())
        })
    }

    /// Charges a batch the first time its id is seen: remembers, synced to disk, that `batch` belongs to `keys_hash` (a
    /// hash over keys and model) and runs `charge` before; if that fails, nothing is remembered.
    ///
    /// Jobs of one id that come at the same time are looked at one after the other: none goes free because another that
    /// is then refused was seen first.
    ///
    /// Blocks of a known batch are computed again free of charge, so that a client can resume; all its jobs together get
    /// [`limits::MAX_BATCH_REPEATS`] whole batches.
    ///
    /// # Errors
    /// [`Error::BatchConflict`] if the id was used with another hash, [`Error::Budget`] if its blocks were computed too
    /// often, what `charge` fails with, [`Error::Store`], [`Error::DiskFull`].
    pub fn charge_batch(
        &self,
        id: CredentialId,
        batch: BatchId,
        keys_hash: [u8; 32],
        blocks: BlockCount,
        charge: impl FnOnce() -> Result<()>,
    ) -> Result<BatchState> {
        let key = batch_key(id, batch);
        let mut outcome = Ok(BatchState::New);
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(BATCHES)?;
                let known = table.get(key.as_slice())?.map(|value| value.value().to_owned());
                outcome = match known {
                    None => charge().map(|()| BatchState::New),
                    Some(ref value) if value.starts_with(&keys_hash) => Ok(BatchState::Known),
                    Some(_) => Err(Error::BatchConflict),
                };
                let (seen_unix_s, given) = known.as_deref().map_or((unix_now(), 0), batch_numbers);
                let (given, most) =
                    (given.saturating_add(blocks.wanted), limits::MAX_BATCH_REPEATS * blocks.whole);
                if outcome.is_ok() && given > most {
                    let counter = "mask blocks of this batch";
                    outcome = Err(Error::Budget { counter, wanted: given, left: most });
                }
                if outcome.is_ok() {
                    let value =
                        [keys_hash.as_slice(), &seen_unix_s.to_le_bytes(), &given.to_le_bytes()].concat();
                    table.insert(key.as_slice(), value.as_slice())?;
                }
            }
            if outcome.is_ok() {
                transaction.commit()?
            } else {
                transaction.abort()?
            }
            Ok(())
        })?;
        outcome
    }

    /// Forgets the batches that are older than [`BATCH_MEMORY`].
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::DiskFull`].
    pub(crate) fn forget_old_batches(&self) -> Result<()> {
        self.forget_batches_before(unix_now().saturating_sub(BATCH_MEMORY.as_secs()))
    }

    /// Forgets the batches first seen before `horizon`, seconds since 1970.
    fn forget_batches_before(&self, horizon: u64) -> Result<()> {
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(BATCHES)?.retain(|_, value| batch_numbers(value).0 >= horizon)?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn update(
        &self,
        id: CredentialId,
        change: impl FnOnce(&mut Option<CredentialRecord>) -> Result<()>,
    ) -> Result<()> {
        if let Some(record) = lock(&self.ephemeral).get_mut(&id) {
            let mut slot = Some(record.clone());
            change(&mut slot)?;
            *record = slot.ok_or_else(corrupt)?;
            return Ok(());
        }
        let key = id.to_string();
        let mut outcome = Ok(());
        let mut after = None;
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(CREDENTIALS)?;
                let stored = table.get(key.as_str())?.map(|value| value.value().to_owned());
                let changed = || -> Result<Vec<u8>> {
                    let mut slot = stored.as_deref().map(decode).transpose()?;
                    change(&mut slot)?;
                    let bytes = serde_json::to_vec(&slot).map_err(|_| corrupt())?;
                    after = slot;
                    Ok(bytes)
                };
                match changed() {
                    Ok(bytes) => drop(table.insert(key.as_str(), bytes.as_slice())?),
                    Err(error) => outcome = Err(error),
                }
            }
            if outcome.is_ok() {
                transaction.commit()?
            } else {
                transaction.abort()?
            }
            Ok(())
        })?;
        let mut cache = lock(&self.cache);
        match after {
            Some(record) if outcome.is_ok() => drop(cache.insert(id, (record, Instant::now()))),
            _ => drop(cache.remove(&id)),
        }
        outcome
    }

    fn with_database(
        &self,
        operation: impl FnOnce(&Database) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        let _serial = lock(&self.serial);
        match &self.backend {
            CredentialBackend::Memory(database) => operation(database).map_err(store_error),
            CredentialBackend::File(path) => {
                let database = open_waiting(path)?;
                operation(&database).map_err(store_error)
            }
        }
    }
}

/// A new credential: id, text, record.
fn fresh(label: &str, mask_slots: u64, body_tokens: u64) -> (CredentialId, String, CredentialRecord) {
    let id = CredentialId(rand::random());
    let secret = zeroize::Zeroizing::new(rand::random::<[u8; 32]>());
    let record = CredentialRecord {
        hash: hex::encode(Sha256::digest(secret.as_slice())),
        label: label.to_owned(),
        created_unix_s: unix_now(),
        revoked: false,
        mask_slots: Counter { budget: mask_slots, charged: 0 },
        body_tokens: Counter { budget: body_tokens, charged: 0 },
    };
    (id, format!("{id}.{}", URL_SAFE_NO_PAD.encode(secret.as_slice())), record)
}

/// Opens the file, waiting for another process that has it open.
fn open_waiting(path: &Path) -> Result<Database> {
    let start = Instant::now();
    loop {
        match Database::create(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if start.elapsed() < OPEN_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(3));
            }
            Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))) => {
                return Err(Error::io("open", path, error));
            }
            other => return other.map_err(store_error),
        }
    }
}

fn store_error(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("write", Path::new("the credential store"), error),
        other => Error::Store(other.to_string()),
    }
}

fn corrupt() -> Error {
    Error::Store("a record is damaged".to_owned())
}

fn decode(bytes: &[u8]) -> Result<CredentialRecord> {
    serde_json::from_slice(bytes).map_err(|_| corrupt())
}

/// Reads a credential's id; accepts the id alone.
pub fn parse_id(text: &str) -> Option<CredentialId> {
    let mut id = [0; 8];
    hex::decode_to_slice(text, &mut id).ok()?;
    Some(CredentialId(id))
}

fn batch_key(id: CredentialId, batch: BatchId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&id.0);
    key[8..].copy_from_slice(&batch.0);
    key
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
