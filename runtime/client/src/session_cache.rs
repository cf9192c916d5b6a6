//! The shared masks of a session on disk: public data, kept so that they are downloaded once.
//!
//! One file for each (server pin, credential, digest, form); its name is a hash of them, so it tells nothing about the
//! credential. It holds the session's seed, which is a cookie: whoever sees it twice knows that it is the same client. The
//! file has mode 0600 and its hash is checked when it is opened and compared with the server's when a session starts.

use std::path::PathBuf;
use std::sync::Arc;

use fhe_layers::{ClientSession, Instance, SessionSeed, WireForm};
use sha2::{Digest, Sha256};
use sotto_storage::Cache;

use crate::target::Target;

/// First bytes of a file.
const MAGIC: &[u8; 8] = b"SOTTOSM1";

/// Bytes before the masks: magic, seed, hash.
const HEAD: usize = 8 + 32 + 32;

/// The file of one session.
pub(crate) struct SessionCache {
    path: PathBuf,
}

impl SessionCache {
    /// The file for `target` in `form`.
    pub(crate) fn new(cache: &Cache, target: &Target, form: WireForm) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"sotto session file");
        hasher.update(target.pin().0);
        for part in [target.credential().as_bytes(), target.digest(), form.to_string().as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name = format!("{}.masks", hex::encode(hasher.finalize()));
        Self { path: cache.root().join("sessions").join(name) }
    }

    /// The session that was saved; `None` if there is none or its file is damaged, which is then removed.
    pub(crate) fn load(&self, instance: &Arc<Instance>, form: WireForm) -> Option<ClientSession> {
        let expected = HEAD + ClientSession::mask_bytes(instance, form);
        if std::fs::metadata(&self.path).ok()?.len() != expected as u64 {
            self.remove();
            return None;
        }
        let mut bytes = std::fs::read(&self.path).ok()?;
        let session = (bytes.len() == expected && bytes[..8] == *MAGIC).then(|| {
            let (mut seed, mut hash) = ([0; 32], [0; 32]);
            seed.copy_from_slice(&bytes[8..40]);
            hash.copy_from_slice(&bytes[40..HEAD]);
            let masks = bytes.split_off(HEAD);
            let seed = SessionSeed::from_bytes(seed);
            ClientSession::from_masks(Arc::clone(instance), form, seed, masks, Some(&hash)).ok()
        });
        let session = session.flatten();
        if session.is_none() {
            tracing::warn!(path = %self.path.display(), "damaged shared masks are downloaded again");
            self.remove();
        }
        session
    }

    /// Saves a session. Failing to costs a download next time and nothing else.
    pub(crate) fn save(&self, session: &ClientSession) {
        let mut bytes = Vec::with_capacity(HEAD + session.packed_masks().len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(session.seed().bytes());
        bytes.extend_from_slice(session.hash());
        bytes.extend_from_slice(session.packed_masks());
        if let Err(error) = sotto_storage::write_atomically(&self.path, &bytes) {
            tracing::warn!(path = %self.path.display(), %error, "shared masks were not saved");
        }
    }

    fn remove(&self) {
        std::fs::remove_file(&self.path).ok();
    }

    /// Where the file is.
    #[cfg(test)]
    fn path(&self) -> &std::path::Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhe_layers::{MatrixSpec, ModelDigest, RoundSpec, Set};
    use sotto_protocol::connect_string::ConnectString;
    use sotto_protocol::pin::CertificatePin;

    fn target(credential: &str) -> Target {
        let connect = ConnectString {
            address: "127.0.0.1:1".to_owned(),
            pin: CertificatePin([1; 32]),
            model: None,
            credential: Some(credential.to_owned()),
            mask_addresses: Vec::new(),
            body_addresses: Vec::new(),
        };
        Target::server(&connect, None).unwrap()
    }

    #[test]
    fn a_saved_session_opens_again_and_a_damaged_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let spec = RoundSpec { d_in: 8, matrices: vec![MatrixSpec { rows: 3, columns: 0..8 }] };
        let params = Set::Default.params(64).unwrap();
        let instance = Arc::new(Instance::new(params, vec![spec], ModelDigest([2; 32]), "plain").unwrap());
        let form = WireForm::lean(instance.params());
        let masks = vec![7; ClientSession::mask_bytes(&instance, form)];
        let seed = SessionSeed::from_os().unwrap();
        let session = ClientSession::from_masks(Arc::clone(&instance), form, seed, masks, None).unwrap();
        let file = SessionCache::new(&cache, &target("a.b"), form);
        assert!(file.load(&instance, form).is_none());
        file.save(&session);
        let again = file.load(&instance, form).unwrap();
        assert_eq!((again.seed(), again.hash()), (session.seed(), session.hash()));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file.path()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(SessionCache::new(&cache, &target("a.c"), form).load(&instance, form).is_none());
        let mut bytes = std::fs::read(file.path()).unwrap();
        bytes[HEAD + 5] ^= 1;
        std::fs::write(file.path(), bytes).unwrap();
        assert!(file.load(&instance, form).is_none());
        assert!(!file.path().exists());
    }
}
