//! What an answer may be restored with: the values whose placeholders its request held, and no others.

use std::collections::HashSet;

use super::Vault;
use super::placeholder::{self, Found};
use super::targets::TargetTracker;
use crate::detect::Entity;

/// A part of a vault, and the link targets in which its values may be put back.
///
/// A provider knows the form of placeholders: without this limit an answer that holds `[EMAIL_1]` to `[EMAIL_200]`
/// would be given every address of the session.
#[derive(Clone, Default)]
pub struct Scope {
    vault: Vault,
    targets: HashSet<String>,
    /// Names that a request held without brackets, as code does: they are no placeholders.
    bare: HashSet<(String, u32)>,
}

impl Scope {
    /// The values of `vault` whose placeholders stand in the texts of a request, as it was forwarded. In link targets,
    /// they are restored only if a text of the request held the target too, up to the placeholder.
    pub fn of_request<'a>(vault: &Vault, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scope = Self::default();
        scope.vault.reserved.clone_from(&vault.reserved);
        for text in texts {
            scope.add(vault, text);
        }
        scope
    }

    fn add(&mut self, vault: &Vault, text: &str) {
        let mut tracker = TargetTracker::default();
        let mut at = 0;
        for found in placeholder::find_all(text) {
            self.note_bare(&text[at..found.range.start]);
            tracker.push(&text[at..found.range.start]);
            at = found.range.end;
            let canonical = placeholder::canonical(&found.label, found.number);
            if tracker.in_target() {
                self.targets.extend(tracker.target_up_to(&canonical));
            }
            tracker.push_value(&text[found.range.clone()], &canonical);
            self.vault.adopt(vault, &found.label, found.number);
        }
        self.note_bare(&text[at..]);
    }

    fn note_bare(&mut self, text: &str) {
        self.bare.extend(placeholder::find_bare(text).map(|found| (found.label, found.number)));
    }

    /// Whether a name without brackets can only be a placeholder of the request.
    pub(super) fn knows_bare(&self, found: &Found) -> bool {
        self.vault.lookup(&found.label, found.number).is_some()
            && !self.bare.contains(&(found.label.clone(), found.number))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.vault.len()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.vault.is_empty()
    }

    /// Adds what another request of the same conversation held.
    pub fn extend(&mut self, other: &Self) {
        for (label, number, _) in &other.vault.entries {
            self.vault.adopt(&other.vault, label.as_str(), *number);
        }
        self.targets.extend(other.targets.iter().cloned());
        self.bare.extend(other.bare.iter().cloned());
    }

    /// The number that a placeholder stands for, if it does for one and nothing surrounds it.
    pub fn number(&self, placeholder: &str) -> Option<serde_json::Number> {
        self.vault.number(placeholder)
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Whether a placeholder inside a target may be restored there.
    pub(super) fn allows(&self, tracker: &TargetTracker, found: &Found) -> bool {
        let canonical = placeholder::canonical(&found.label, found.number);
        // A whole address of the request leads where the request knew of.
        let is_url = found.label == Entity::Url.as_str() && tracker.at_start();
        let value = self.vault.lookup(&found.label, found.number).unwrap_or_default();
        (is_url && value.contains("://"))
            || tracker.target_up_to(&canonical).is_some_and(|target| self.targets.contains(&target))
    }
}
