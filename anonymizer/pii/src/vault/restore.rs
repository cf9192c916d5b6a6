//! The way back: placeholders in an answer become values again.

use super::placeholder::{self, Found};
use super::{Scope, StreamRestorer, Vault};

/// What becomes of a value where it is put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// It stays as it is.
    #[default]
    None,
    /// It is escaped to stand inside a JSON string.
    Json,
}

/// A restored text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The text with values.
    pub text: String,
    /// Placeholders that were replaced.
    pub replaced: usize,
    /// Placeholders that the vault does not know, as they stood in the text; they were left there.
    pub unknown: Vec<String>,
    /// Placeholders that were left because they stand in the target of a link or picture.
    pub withheld: Vec<String>,
}

impl Vault {
    /// Puts values back where placeholders stand, whatever the text is. For texts of one's own: an answer of a provider
    /// is restored with [`Scope::restore`].
    pub fn restore(&self, text: &str) -> Restored {
        self.restore_as(text, Escaping::None)
    }

    /// As [`restore`](Self::restore), for text that is not plain.
    pub fn restore_as(&self, text: &str, escaping: Escaping) -> Restored {
        let mut restored = Restored::default();
        let mut at = 0;
        for found in placeholder::find_all(text) {
            restored.text.push_str(&text[at..found.range.start]);
            at = found.range.end;
            self.put(text, &found, escaping, &mut restored);
        }
        restored.text.push_str(&text[at..]);
        restored
    }

    /// Appends what a placeholder of `text` stands for.
    pub(super) fn put(&self, text: &str, found: &Found, escaping: Escaping, restored: &mut Restored) {
        match self.lookup(&found.label, found.number) {
            Some(value) => {
                push_escaped(&mut restored.text, value, escaping);
                restored.text.push_str(&text[found.suffix.clone()]);
                restored.replaced += 1;
            }
            None => {
                let verbatim = &text[found.range.clone()];
                restored.text.push_str(verbatim);
                // Lower-case look-alikes such as "[item 1]" are ordinary text.
                let is_form = verbatim == placeholder::canonical(&found.label, found.number);
                if is_form && !self.is_reserved(&found.label, found.number) {
                    restored.unknown.push(verbatim.to_owned());
                }
            }
        }
    }
}

impl Scope {
    /// Restores an answer: values of the request, and none inside the target of a link or picture that the request did
    /// not hold.
    pub fn restore(&self, text: &str) -> Restored {
        self.restore_as(text, Escaping::None)
    }

    /// As [`restore`](Self::restore), for text that is not plain.
    pub fn restore_as(&self, text: &str, escaping: Escaping) -> Restored {
        let mut stream = StreamRestorer::new(escaping);
        let mut text = stream.push(self, text);
        text.push_str(&stream.finish(self));
        Restored { text, replaced: stream.replaced, unknown: stream.unknown, withheld: stream.withheld }
    }
}

fn push_escaped(into: &mut String, value: &str, escaping: Escaping) {
    match escaping {
        Escaping::None => into.push_str(value),
        Escaping::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            into.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
}
