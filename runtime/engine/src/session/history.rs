//! Conversations on disk, for `/save` and `/load`. Nothing is written unless the user asks.

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

/// Writes a conversation.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::DiskFull`].
pub fn save(path: &Path, messages: &[Message]) -> Result<()> {
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
    let meta = std::fs::metadata(path).map_err(|source| Error::io("reading", path, source))?;
    if meta.len() > MAX_FILE_BYTES {
        return Err(Error::TooLong { field: "conversation file", got: meta.len(), limit: MAX_FILE_BYTES });
    }
    let bytes = std::fs::read(path).map_err(|source| Error::io("reading", path, source))?;
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
