//! Sessions: the shared masks of one client and model, sent once and compared when the client comes back.
//!
//! Nothing is kept of a session but the hash of its masks: they are a function of the server's secret, the credential, the
//! client's seed and the model. Sending or hashing them is charged like a batch, since a request of 100 bytes costs the
//! server 37 MB of work and answer for SmolLM2-135M.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fhe_layers::{ServerSession, SharedMaskHasher, WireForm};
use tokio::sync::mpsc;
use tonic::Status;
use zeroize::Zeroizing;

use crate::auth::admission::{Bounded, PerCredential};
use crate::auth::credentials::CredentialId;
use crate::bodies::executor::Tables;
use crate::masks::jobs::Masks;
use crate::transport::grpc_status::status;
use crate::transport::listen::pool;
use sotto_protocol::digest_from_wire;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;
use sotto_protocol::wire::{OpenSessionRequest, SessionPiece};

/// Pieces of shared masks that may wait for a slow reader: 2 MB.
const PIECES_BUFFERED: usize = 2;

/// Owner of what sessions need: the secret, the threads that compute shared masks, and bounds on them.
pub(crate) struct Sessions {
    secret: Zeroizing<[u8; 32]>,
    pool: rayon::ThreadPool,
    downloads: Arc<Bounded>,
    downloads_of: PerCredential,
    /// By session; forgotten all at once when there are too many.
    hashes: Mutex<HashMap<[u8; 32], [u8; 32]>>,
}

impl Sessions {
    /// # Errors
    /// [`Error::Internal`] if threads cannot be started.
    pub(super) fn new(secret: Zeroizing<[u8; 32]>, threads: usize) -> Result<Self> {
        Ok(Self {
            secret,
            // A client that opens a session waits for it.
            pool: pool(threads, "sotto-session", None)?,
            downloads: Bounded::new("the list of sessions being opened", limits::MAX_SESSION_DOWNLOADS),
            downloads_of: PerCredential::new(
                "this credential's list of sessions being opened",
                limits::MAX_SESSION_DOWNLOADS_PER_CREDENTIAL,
            ),
            hashes: Mutex::default(),
        })
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    fn known(&self, session: &[u8; 32]) -> Option<[u8; 32]> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(session).copied()
    }

    fn remember(&self, session: [u8; 32], hash: [u8; 32]) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() >= limits::MAX_SESSION_HASHES {
            hashes.clear();
        }
        hashes.insert(session, hash);
    }
}

/// Name of a session in this process.
fn session_id(credential: CredentialId, digest: &[u8; 32], session: &ServerSession) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&credential.0).update(digest).update(session.seed().bytes());
    hasher.update(session.form().to_string().as_bytes());
    *hasher.finalize().as_bytes()
}

impl Masks {
    /// Whether a session is being computed or sent.
    pub(crate) fn opens_sessions(&self) -> bool {
        self.sessions.downloads.taken() > 0
    }

    /// Checks and charges the opening of a session and begins to send its masks, or confirms those that the client has.
    pub(super) async fn open_session(
        self: &Arc<Self>,
        message: OpenSessionRequest,
    ) -> Result<mpsc::Receiver<std::result::Result<SessionPiece, Status>>> {
        if self.common.lifecycle.is_draining() {
            return Err(Error::ShuttingDown);
        }
        let lease = self.common.accounts.verify(&message.lease)?;
        let digest = digest_from_wire(&message.digest)?;
        if digest != lease.lease().digest {
            return Err(Error::Lease("for another model"));
        }
        let credential = lease.lease().credential;
        let form = self.read_form(&message.form)?;
        if form == WireForm::Full {
            return Err(Error::Malformed {
                field: "form of the session",
                expected: "lean or stateless".to_owned(),
                got: "full".to_owned(),
            });
        }
        let known: Option<[u8; 32]> = match message.known_hash.len() {
            0 => None,
            _ => Some(digest_from_wire(&message.known_hash)?),
        };
        let model = Arc::clone(self.common.models.find(&digest)?);
        let places = (self.sessions.downloads.enter()?, self.sessions.downloads_of.enter(credential)?);
        let tables = model.tables().await?;
        let session = self.session(&tables, form, credential, &message.seed)?;
        let id = session_id(credential, &digest, &session);
        let size = (model.info.blocks * form.session_block_bytes(tables.instance().params())) as u64;
        let (sender, receiver) = mpsc::channel(PIECES_BUFFERED);
        let confirmed = |hash: [u8; 32]| SessionPiece {
            size,
            offset: size,
            last: true,
            hash: hash.to_vec().into(),
            worker: self.kept.worker().to_vec().into(),
            ..SessionPiece::default()
        };
        if let (Some(known), Some(hash)) = (known, self.sessions.known(&id))
            && known == hash
        {
            sender.try_send(Ok(confirmed(hash))).ok();
            return Ok(receiver);
        }
        lease.use_masks(model.info.tau as u64)?;
        let (masks, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        let blocks = model.info.blocks;
        let confirmed = confirmed([0; 32]);
        tokio::task::spawn_blocking(move || {
            let _held = (places, lease);
            // False once the reader is gone or has not taken anything for long.
            let send = |piece: SessionPiece| {
                let sent = runtime.block_on(sender.send_timeout(Ok(piece), limits::STALLED_READER_TIMEOUT));
                sent.is_ok()
            };
            let outcome = masks.send_session(
                &tables,
                &session,
                blocks,
                size,
                known,
                &|hash| {
                    masks.sessions.remember(id, hash);
                    send(SessionPiece { hash: hash.to_vec().into(), ..confirmed.clone() })
                },
                &send,
            );
            if let Err(error) = outcome {
                runtime.block_on(sender.send(Err(status(&error)))).ok();
            }
        });
        Ok(receiver)
    }

    /// Sends the masks, unless their hash is `known`.
    #[expect(clippy::too_many_arguments, reason = "one caller; the two senders share a channel")]
    fn send_session(
        &self,
        tables: &Tables,
        session: &ServerSession,
        blocks: usize,
        size: u64,
        known: Option<[u8; 32]>,
        finish: &dyn Fn([u8; 32]) -> bool,
        send: &dyn Fn(SessionPiece) -> bool,
    ) -> Result<()> {
        let pieces = |each: &mut dyn FnMut(Vec<u8>) -> bool| -> Result<Option<[u8; 32]>> {
            let mut hasher = SharedMaskHasher::new();
            for first in (0..blocks).step_by(limits::MAX_MASK_BLOCKS_PER_PIECE) {
                if self.common.lifecycle.is_draining() {
                    return Err(Error::ShuttingDown);
                }
                let piece = first..blocks.min(first + limits::MAX_MASK_BLOCKS_PER_PIECE);
                let packed = self.sessions.pool.install(|| tables.shared_masks(session, piece))?.concat();
                hasher.update(&packed);
                if !each(packed) {
                    return Ok(None);
                }
            }
            Ok(Some(hasher.finish()))
        };
        if known.is_some() {
            let hash = pieces(&mut |_| true)?;
            if let Some(hash) = hash.filter(|_| hash == known) {
                finish(hash);
                return Ok(());
            }
        }
        let mut offset = 0;
        let worker = bytes::Bytes::copy_from_slice(self.kept.worker());
        let hash = pieces(&mut |data| {
            let length = data.len() as u64;
            self.common.metrics.session_bytes.inc_by(length);
            let piece = SessionPiece {
                size,
                offset,
                data: data.into(),
                worker: worker.clone(),
                ..SessionPiece::default()
            };
            offset += length;
            send(piece)
        })?;
        if let Some(hash) = hash {
            finish(hash);
        }
        Ok(())
    }
}
