//! A session: the shared masks that serve all batches of one client and model.

use crate::bits;
use crate::error::{Error, Result};
use crate::form::{Widths, WireForm};
use crate::instance::Instance;
use crate::words::{SessionSeed, SharedMaskHasher};
use std::sync::Arc;

/// The shared masks `a'` of a session as a client keeps them, and what its batches need of it.
///
/// Holds no secret: seed and masks are known to the server. It is not `Clone` all the same, since one session belongs to one
/// credential. Cache [`ClientSession::packed_masks`] under (server pin, credential, digest, seed) with mode 0600, and open it
/// again with [`ClientSession::from_masks`], which checks the hash.
pub struct ClientSession {
    instance: Arc<Instance>,
    form: WireForm,
    seed: SessionSeed,
    /// `pk_a`, natural NTT order, `[n]`.
    key_mask: Vec<u64>,
    /// `[blocks]` of [`WireForm::session_block_bytes`].
    masks: Vec<u8>,
    hash: [u8; 32],
}

impl ClientSession {
    /// A session whose masks are here: downloaded by [`SessionDownload`], or from a cache.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for the full form, [`Error::Mismatch`] for another number of bytes, [`Error::Foreign`] when
    /// `expected_hash` is given and the masks have another.
    pub fn from_masks(
        instance: Arc<Instance>,
        form: WireForm,
        seed: SessionSeed,
        masks: Vec<u8>,
        expected_hash: Option<&[u8; 32]>,
    ) -> Result<Self> {
        form.session_widths()?;
        Error::check("bytes of shared masks", Self::mask_bytes(&instance, form), masks.len())?;
        let mut hasher = SharedMaskHasher::new();
        hasher.update(&masks);
        let hash = hasher.finish();
        if expected_hash.is_some_and(|expected| *expected != hash) {
            return Err(Error::Foreign { what: "shared masks", of: "session" });
        }
        let mut key_mask = vec![0; instance.params().n()];
        instance.session_key_mask(&seed, &mut key_mask);
        Ok(Self { instance, form, seed, key_mask, masks, hash })
    }

    /// Bytes of all shared masks of `instance` in `form`; 0 in the full form.
    pub fn mask_bytes(instance: &Instance, form: WireForm) -> usize {
        instance.layout().blocks() * form.session_block_bytes(instance.params())
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The wire form.
    pub fn form(&self) -> WireForm {
        self.form
    }

    /// The public seed.
    pub fn seed(&self) -> &SessionSeed {
        &self.seed
    }

    /// Hash of the shared masks: to be compared with the server's when a session is resumed.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The shared masks as they travelled.
    pub fn packed_masks(&self) -> &[u8] {
        &self.masks
    }

    pub(super) fn key_mask(&self) -> &[u64] {
        &self.key_mask
    }

    pub(super) fn widths(&self) -> Result<Widths> {
        self.form.session_widths()
    }

    /// The shared mask of `block`, left-aligned words.
    pub(super) fn load_mask(&self, block: usize, out: &mut [u32]) -> Result<()> {
        let size = self.form.session_block_bytes(self.instance.params());
        let bytes = &self.masks[block * size..(block + 1) * size];
        bits::unpack_into("bytes of a shared mask", bytes, self.widths()?.shared(), out)
    }
}

/// Shared masks as they arrive, in order.
pub struct SessionDownload {
    instance: Arc<Instance>,
    form: WireForm,
    seed: SessionSeed,
    masks: Vec<u8>,
    expected: usize,
}

impl SessionDownload {
    /// Nothing has arrived. Memory is taken as bytes arrive.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for the full form.
    pub fn new(instance: Arc<Instance>, form: WireForm, seed: SessionSeed) -> Result<Self> {
        form.session_widths()?;
        let expected = ClientSession::mask_bytes(&instance, form);
        Ok(Self { instance, form, seed, masks: Vec::new(), expected })
    }

    /// Appends what arrived.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for more bytes than the session has.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<()> {
        let got = self.masks.len() + bytes.len();
        if got > self.expected {
            return Err(Error::Mismatch {
                what: "bytes of shared masks",
                expected: self.expected as u64,
                got: got as u64,
            });
        }
        self.masks.extend_from_slice(bytes);
        Ok(())
    }

    /// `(bytes that have arrived, bytes in all)`: for a progress bar.
    pub fn progress(&self) -> (usize, usize) {
        (self.masks.len(), self.expected)
    }

    /// The session.
    ///
    /// # Errors
    /// As [`ClientSession::from_masks`].
    pub fn finish(self, expected_hash: &[u8; 32]) -> Result<ClientSession> {
        ClientSession::from_masks(self.instance, self.form, self.seed, self.masks, Some(expected_hash))
    }
}
