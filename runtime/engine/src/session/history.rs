//! Conversations on disk, for `/save` and `/load`. Nothing is written unless the user asks.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use sotto_models::chat_template::Message;
use sotto_protocol::error::{Error, Result};
use sotto_storage::write_atomically;

/// Largest conversation file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Version of the file's form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    messages: Vec<Message>,
}

/// Writes a conversation. A link is followed; what is no file, such as a device, is left as it is.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::DiskFull`].
pub fn save(path: &Path, messages: &[Message]) -> Result<()> {
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a file");
        return Err(Error::io("writing", path, source));
    }
    let saved = Saved { version: VERSION, messages: messages.to_vec() };
    let bytes = serde_json::to_vec_pretty(&saved)
        .map_err(|error| Error::Internal(format!("conversation: {error}")))?;
    write_atomically(path, &bytes).map_err(|source| Error::io("writing", path, source))
}

/// Reads a conversation.
///
/// # Errors
///
/// [`Error::Io`], [`Error::TooLong`] or [`Error::Malformed`].
pub fn load(path: &Path) -> Result<Vec<Message>> {
    let failed = |source| Error::io("reading", path, source);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // A device tells no length.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::TooLong {
            field: "conversation file",
            got: bytes.len() as u64,
            limit: MAX_FILE_BYTES,
        });
    }
    let malformed = |got: String| Error::Malformed {
        field: "conversation file",
        expected: format!("what /save writes, version {VERSION}"),
        got,
    };
    let saved: Saved = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("line {} column {}", error.line(), error.column())))?;
    if saved.version != VERSION {
        return Err(malformed(format!("version {}", saved.version)));
    }
    let known = |role: &str| matches!(role, "system" | "user" | "assistant");
    match saved.messages.iter().position(|message| !known(&message.role)) {
        Some(index) => Err(malformed(format!("an unknown role in message {index}"))),
        None => Ok(saved.messages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn devices_and_links_stay_what_they_are() {
        for device in ["/dev/null", "/dev/full"] {
            assert!(save(Path::new(device), &[]).is_err());
            assert!(!std::fs::metadata(device).unwrap().is_file(), "{device} was replaced");
        }
        assert!(matches!(load(Path::new("/dev/zero")), Err(Error::TooLong { .. })));
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        save(&link, &[Message::new("user", "hi")]).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&file).unwrap().len(), 1);
    }

    #[test]
    fn conversations_survive_a_round_trip() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("talk.json");
        let messages = vec![Message::new("system", "be brief"), Message::new("user", "hi")];
        save(&path, &messages).unwrap();
        assert_eq!(load(&path).unwrap(), messages);
        let wizard = "{\"version\":1,\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}";
        for bad in ["", "{", "{\"version\":2,\"messages\":[]}", "[]", wizard] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path), Err(Error::Malformed { .. })), "{bad:?} was accepted");
        }
    }
}
