//! ConversationVaults: one vault per conversation, and what its person decided about single values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::Deserialize;

use super::reply::Refusal;
use crate::detect::{Entity, Label, Source, Span};
use crate::error::Result;
use crate::recognizers::denied::{Denied, DeniedValue};
use crate::recognizers::{Candidate, Recognizer};
use crate::vault::{Scope, Vault, placeholder};

/// ConversationVaults that are kept; the one unused for longest goes first.
const MAX_SESSIONS: usize = 1024;
/// Bytes of a session's name.
const MAX_NAME_BYTES: usize = 128;
/// Values that a session adds or drops.
const MAX_CHOICES: usize = 1000;

/// Values of a conversation.
const MAX_VALUES: usize = 100_000;
/// Time without use after which a conversation is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// What a person decided about a text: values to redact beside those found, values to leave.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Choices {
    /// Name of the session.
    pub(super) session: Option<String>,
    /// Values to redact.
    pub(super) add: Vec<DeniedValue>,
    /// Values to leave, as they stand in the text.
    pub(super) drop: Vec<String>,
}

impl Choices {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.add.len() > MAX_CHOICES || self.drop.len() > MAX_CHOICES {
            return Err(Refusal::bad(format!("at most {MAX_CHOICES} values can be added or dropped")));
        }
        let is_known = |label: &str| placeholder::is_label(label);
        if self.add.iter().any(|added| added.value.trim().is_empty() || !is_known(&added.label)) {
            return Err(Refusal::bad("added values are not empty and have a label such as CITY or PRIVATE"));
        }
        if self.session.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
            return Err(Refusal::bad(format!("a session's name has 1 to {MAX_NAME_BYTES} bytes")));
        }
        Ok(())
    }

    /// The spans of a text with these decisions.
    pub(super) fn apply(&self, text: &str, spans: &mut Vec<Span>) -> Result<()> {
        let chars: Vec<char> = text.chars().collect();
        let dropped = |span: &Span| {
            let value: String = chars[span.start..span.end].iter().collect();
            self.drop.contains(&value)
        };
        spans.retain(|span| !dropped(span));
        if !self.add.is_empty() {
            let mut found: Vec<Candidate> = Vec::new();
            Denied::new(&self.add)?.find(text, &mut found);
            for candidate in found {
                let start = text[..candidate.range.start].chars().count();
                let end = start + text[candidate.range.clone()].chars().count();
                let label = Entity::from_label(candidate.label.as_str()).map_or(candidate.label, Label::from);
                spans.retain(|span| span.end <= start || end <= span.start);
                spans.push(Span {
                    start,
                    end,
                    label,
                    score: 1.0,
                    source: Source::Recognizer("person".into()),
                });
            }
        }
        spans.sort_by_key(|span| span.start);
        Ok(())
    }
}

/// What is kept of a conversation.
#[derive(Default)]
pub(super) struct State {
    pub(super) vault: Vault,
    /// What its texts held so far, for the endpoint that restores single texts.
    pub(super) scope: Scope,
}

/// A conversation, as the requests that belong to it share it.
pub(super) type Conversation = Mutex<State>;

/// The vaults of all conversations that have a name.
///
/// A request without one is a conversation of its own: chat APIs are sent the whole history each time, so the same
/// values get the same placeholders again. Where a request names an earlier answer instead, it continues the
/// conversation of that answer.
#[derive(Default)]
pub(super) struct ConversationVaults {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<Key, Kept>,
    clock: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A session's name.
    Session(String),
    /// The identity of an answer.
    Answer(String),
}

struct Kept {
    conversation: Arc<Conversation>,
    /// Place in the order of use.
    used: u64,
    at: Instant,
}

impl ConversationVaults {
    /// The conversation of a session, or that of an earlier answer; a new one if there is none.
    ///
    /// # Errors
    /// If it holds too many values.
    pub(super) fn of(
        &self,
        session: Option<&str>,
        answer: Option<&str>,
    ) -> Result<Arc<Conversation>, Refusal> {
        let session = session.map(|name| Key::Session(name.to_owned()));
        let conversation = match session.or_else(|| answer.map(|id| Key::Answer(id.to_owned()))) {
            Some(key) => self.kept(key),
            None => Arc::default(),
        };
        if lock(&conversation).vault.len() > MAX_VALUES {
            let message = format!("the session holds more than {MAX_VALUES} values; begin another");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "session_full", message));
        }
        Ok(conversation)
    }

    fn kept(&self, key: Key) -> Arc<Conversation> {
        let mut inner = self.lock();
        let now = inner.tick();
        let fresh = || Kept { conversation: Arc::default(), used: now, at: Instant::now() };
        let kept = inner.kept.entry(key).or_insert_with(fresh);
        (kept.used, kept.at) = (now, Instant::now());
        let conversation = Arc::clone(&kept.conversation);
        inner.forget();
        conversation
    }

    /// Notes that a request may continue this conversation under the identity of its answer.
    pub(super) fn continues(&self, answer: &str, conversation: &Arc<Conversation>) {
        if answer.is_empty() || answer.len() > MAX_NAME_BYTES {
            return;
        }
        let mut inner = self.lock();
        let used = inner.tick();
        let kept = Kept { conversation: Arc::clone(conversation), used, at: Instant::now() };
        inner.kept.insert(Key::Answer(answer.to_owned()), kept);
        inner.forget();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Drops what was not used for long, and above the limit what was not used for longest.
    fn forget(&mut self) {
        self.kept.retain(|_, kept| kept.at.elapsed() < IDLE);
        while self.kept.len() > MAX_SESSIONS {
            let idle = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            let Some(idle) = idle else { return };
            self.kept.remove(&idle);
        }
    }
}

/// Locks a conversation; one that a panic interrupted is still consistent, as values are inserted last.
pub(super) fn lock(conversation: &Conversation) -> std::sync::MutexGuard<'_, State> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_add_and_drop_values() {
        let choices: Choices =
            serde_json::from_str(r#"{"add": [{"value": "nightjar"}], "drop": ["Rome"]}"#).unwrap();
        choices.check().unwrap();
        let mut spans =
            vec![Span { start: 0, end: 4, label: Entity::City.into(), score: 0.9, source: Source::Model }];
        choices.apply("Rome, é Nightjar", &mut spans).unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!((spans[0].start, spans[0].end, spans[0].label.as_str()), (8, 16, "PRIVATE"));
    }

    #[test]
    fn idle_conversations_go_first() {
        let vaults = ConversationVaults::default();
        let of = |name: &str| vaults.of(Some(name), None).unwrap();
        let first = of("0");
        for name in 1..MAX_SESSIONS {
            of(&name.to_string());
        }
        assert!(Arc::ptr_eq(&first, &of("0")));
        of("one more");
        assert!(Arc::ptr_eq(&first, &of("0")));
        assert_eq!(vaults.inner.lock().unwrap().kept.len(), MAX_SESSIONS);
    }

    #[test]
    fn requests_without_a_session_share_nothing() {
        let vaults = ConversationVaults::default();
        let first = vaults.of(None, None).unwrap();
        assert!(!Arc::ptr_eq(&first, &vaults.of(None, None).unwrap()));
        assert!(vaults.inner.lock().unwrap().kept.is_empty());
        vaults.continues("resp_1", &first);
        assert!(Arc::ptr_eq(&first, &vaults.of(None, Some("resp_1")).unwrap()));
        // The name of a session cannot be that of an answer.
        assert!(!Arc::ptr_eq(&first, &vaults.of(Some("resp_1"), None).unwrap()));
    }
}
