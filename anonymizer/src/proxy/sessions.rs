//! Sessions: one vault per conversation, and what its person decided about single values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::reply::Refusal;
use crate::detect::{Entity, Label, Source, Span};
use crate::error::Result;
use crate::recognizers::denied::{Denied, DeniedValue};
use crate::recognizers::{Candidate, Recognizer};
use crate::vault::{Redacted, Vault, placeholder};

/// Sessions that are kept; the one unused for longest goes first.
const MAX_SESSIONS: usize = 1024;
/// Bytes of a session's name.
const MAX_NAME_BYTES: usize = 128;
/// Values that a session adds or drops.
const MAX_CHOICES: usize = 1000;

/// The name of the session of requests that name none.
pub(super) const DEFAULT: &str = "default";

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

/// All sessions of a proxy.
#[derive(Default)]
pub(super) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    vaults: HashMap<String, (Arc<Mutex<Vault>>, u64)>,
    clock: u64,
}

impl Sessions {
    /// The vault of a session, a new one if there is none.
    pub(super) fn vault(&self, name: &str) -> Arc<Mutex<Vault>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        if !inner.vaults.contains_key(name) && inner.vaults.len() >= MAX_SESSIONS {
            let idle = inner.vaults.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            if let Some(idle) = idle {
                inner.vaults.remove(&idle);
            }
        }
        let (vault, used) = inner.vaults.entry(name.to_owned()).or_default();
        *used = now;
        Arc::clone(vault)
    }
}

/// Locks a vault; one that a panic left behind is still consistent, as values are inserted last.
pub(super) fn lock(vault: &Mutex<Vault>) -> std::sync::MutexGuard<'_, Vault> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Redacts a text without leaving a trace in the vault.
pub(super) fn preview(
    vault: &Mutex<Vault>,
    text: &str,
    spans: &[Span],
    spared: &[String],
) -> Result<Redacted> {
    let mut copy = lock(vault).clone();
    copy.redact_sparing(text, spans, spared)
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
    fn idle_sessions_go_first() {
        let sessions = Sessions::default();
        let first = sessions.vault("0");
        for name in 1..MAX_SESSIONS {
            sessions.vault(&name.to_string());
        }
        assert!(Arc::ptr_eq(&first, &sessions.vault("0")));
        sessions.vault("one more");
        assert!(Arc::ptr_eq(&first, &sessions.vault("0")));
        assert_eq!(sessions.inner.lock().unwrap().vaults.len(), MAX_SESSIONS);
    }
}
