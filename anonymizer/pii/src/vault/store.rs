//! A vault on disk: encrypted with XChaCha20-Poly1305 under a key file or a passphrase (Argon2id, RFC 9106), written
//! atomically and readable by its owner only.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `SOTTOVLT` |
//! | 1 | version, 2; version 1 is read, too |
//! | 1 | 0 key file, 1 passphrase |
//! | 16 | salt of the passphrase (random also with a key file) |
//! | 24 | nonce |
//! | rest | ciphertext of a JSON array of `[label, number, value, whether it was a JSON number]` (version 1: without the last), and tag; all bytes before are authenticated |

use std::io::Write;
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::TryRng;
use zeroize::Zeroizing;

use super::Vault;
use crate::detect::{Entity, Label};
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"SOTTOVLT";
const VERSION: u8 = 2;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 + SALT_BYTES + NONCE_BYTES;
/// Largest file that is read: a full vault of short values, with room.
const MAX_BYTES: u64 = 1 << 28;

/// Argon2id: RFC 9106 section 4, second recommended option (64 MiB, 3 passes), with one lane.
const ARGON2: (u32, u32, u32) = (64 << 10, 3, 1);

/// What a saved vault is encrypted under. Wiped when dropped.
pub enum VaultKey {
    /// 32 random bytes.
    Key(Zeroizing<[u8; KEY_BYTES]>),
    /// Words of a person.
    Passphrase(Zeroizing<String>),
}

impl VaultKey {
    /// Reads a key file, or makes one (mode 0600) if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or written, or does not hold 64 hexadecimal digits.
    pub fn from_file(path: &Path) -> Result<Self> {
        match std::fs::read(path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let bytes = Zeroizing::new(hex::decode(text.trim_ascii()).unwrap_or_default());
                let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| Error::Vault {
                    path: path.display().to_string(),
                    reason: format!("no key file: one holds {} hexadecimal digits", 2 * KEY_BYTES),
                })?;
                Ok(Self::Key(Zeroizing::new(key)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; KEY_BYTES]);
                fill_random(&mut *key)?;
                let text = Zeroizing::new(format!("{}\n", hex::encode(*key)));
                write_private(path, text.as_bytes())?;
                Ok(Self::Key(key))
            }
            Err(error) => Err(Error::io("reading", path, error)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Key(_) => 0,
            Self::Passphrase(_) => 1,
        }
    }

    fn cipher(&self, salt: &[u8], path: &Path) -> Result<XChaCha20Poly1305> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        match self {
            Self::Key(bytes) => key.copy_from_slice(&**bytes),
            Self::Passphrase(words) => {
                let (memory, passes, lanes) = ARGON2;
                let mut derive = || {
                    let params = argon2::Params::new(memory, passes, lanes, Some(KEY_BYTES))?;
                    let argon =
                        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
                    argon.hash_password_into(words.as_bytes(), salt, &mut *key)
                };
                derive().map_err(|error| refused(path, format!("deriving its key: {error}")))?;
            }
        }
        XChaCha20Poly1305::new_from_slice(&*key).map_err(|error| refused(path, error.to_string()))
    }
}

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::Vault { path: path.display().to_string(), reason: reason.into() }
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    rand::rngs::SysRng.try_fill_bytes(bytes).map_err(|error| Error::Io {
        context: "randomness of the operating system".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })
}

/// Writes a file that only its owner reads, in place of an older one only once it is complete.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("writing", path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let staged = directory.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&staged).map_err(failed)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&staged, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&staged);
    }
    written.map_err(failed)
}

impl Vault {
    /// Saves the vault, in place of what was at `path`.
    ///
    /// # Errors
    /// If the disk or the system's randomness fail.
    pub fn save(&self, path: &Path, key: &VaultKey) -> Result<()> {
        let rows: Vec<(&str, u32, &str, bool)> = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, (label, number, value))| {
                (label.as_str(), *number, value.as_str(), self.numbers.contains(&index))
            })
            .collect();
        let plain =
            Zeroizing::new(serde_json::to_vec(&rows).map_err(|error| refused(path, error.to_string()))?);
        let mut file = Vec::with_capacity(HEADER_BYTES + plain.len() + 16);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&[VERSION, key.kind()]);
        let mut random = [0; SALT_BYTES + NONCE_BYTES];
        fill_random(&mut random)?;
        file.extend_from_slice(&random);
        let (salt, nonce) = random.split_at(SALT_BYTES);
        let nonce = XNonce::try_from(nonce).map_err(|_| refused(path, "nonce"))?;
        let payload = Payload { msg: &plain, aad: &file };
        let sealed = key
            .cipher(salt, path)?
            .encrypt(&nonce, payload)
            .map_err(|_| refused(path, "encrypting it failed"))?;
        file.extend_from_slice(&sealed);
        write_private(path, &file)
    }

    /// Opens a saved vault.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or was saved under another key.
    pub fn open(path: &Path, key: &VaultKey) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|error| Error::io("reading", path, error))?;
        if meta.len() > MAX_BYTES {
            return Err(refused(path, format!("{} bytes; at most {MAX_BYTES} are read", meta.len())));
        }
        let file = std::fs::read(path).map_err(|error| Error::io("reading", path, error))?;
        if file.len() < HEADER_BYTES || !file.starts_with(MAGIC) {
            return Err(refused(path, "not a saved vault"));
        }
        let (header, sealed) = file.split_at(HEADER_BYTES);
        let version = header[8];
        if !(1..=VERSION).contains(&version) {
            return Err(refused(path, format!("version {version}; this program reads 1 to {VERSION}")));
        }
        if header[9] != key.kind() {
            return Err(refused(path, "it was saved with the other kind of key (key file or passphrase)"));
        }
        let (salt, nonce) = header[10..].split_at(SALT_BYTES);
        let nonce = XNonce::try_from(nonce).map_err(|_| refused(path, "nonce"))?;
        let opened = key.cipher(salt, path)?.decrypt(&nonce, Payload { msg: sealed, aad: header });
        let plain = Zeroizing::new(opened.map_err(|_| refused(path, "wrong key, or the file was changed"))?);
        let wrong = |_| refused(path, "its contents are not those of a vault");
        let rows: Vec<(String, u32, String, bool)> = if version == 1 {
            let rows: Vec<(String, u32, String)> = serde_json::from_slice(&plain).map_err(wrong)?;
            rows.into_iter().map(|(label, number, value)| (label, number, value, false)).collect()
        } else {
            serde_json::from_slice(&plain).map_err(wrong)?
        };
        let mut vault = Self::new();
        for (label, number, value, is_number) in rows {
            let value = Zeroizing::new(value);
            if vault.lookup(&label, number).is_some() || number == 0 {
                return Err(refused(path, "a placeholder occurs twice or has no number"));
            }
            let label = Entity::from_label(&label).map_or_else(|| Label::new(label), Label::from);
            if is_number {
                vault.numbers.insert(vault.entries.len());
            }
            vault.insert(label, number, &value)?;
        }
        Ok(vault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_version_1_are_read_and_later_ones_are_not() {
        let key = VaultKey::Key(Zeroizing::new([7; KEY_BYTES]));
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = |version: u8, rows: &[u8]| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([version, key.kind()]);
            bytes.extend([0; SALT_BYTES + NONCE_BYTES]);
            let (salt, nonce) = bytes[10..].split_at(SALT_BYTES);
            let nonce = XNonce::try_from(nonce).unwrap();
            let payload = Payload { msg: rows, aad: &bytes };
            let sealed = key.cipher(salt, file.path()).unwrap().encrypt(&nonce, payload).unwrap();
            bytes.extend(sealed);
            std::fs::write(file.path(), bytes).unwrap();
            Vault::open(file.path(), &key)
        };
        let old = open(1, br#"[["CITY", 1, "Rome"]]"#).unwrap();
        assert_eq!(old.restore("[CITY_1]").text, "Rome");
        assert!(open(2, br#"[["CITY", 1, "Rome"]]"#).is_err());
        let new = open(2, br#"[["PHONE_NUMBER", 1, "5550123", true]]"#).unwrap();
        assert!(new.number("[PHONE_NUMBER_1]").is_some());
        let error = open(3, b"[]").err().unwrap().to_string();
        assert!(error.contains("this program reads 1 to 2"), "{error}");
    }
}
