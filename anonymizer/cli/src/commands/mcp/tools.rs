//! The tools, and the conversations whose values they keep.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::files;
use crate::commands::args::VaultArgs;
use crate::commands::jsonl::SpanRecord;
use crate::error::{Error, Result};
use crate::scan::Scanner;
use crate::vault::store::VaultKey;
use crate::vault::{Scope, Vault, VaultRules, placeholder};

/// The tools' names.
pub(super) const NAMES: [&str; 3] = ["redact", "restore", "check"];
/// Sessions beside the first.
const MAX_SESSIONS: usize = 256;
/// Bytes of a session's name.
const MAX_NAME_BYTES: usize = 128;

/// Values of one session, and what its redacted texts held.
#[derive(Default)]
struct Session {
    vault: Vault,
    scope: Scope,
}

/// The sessions of this server.
pub(super) struct Tools {
    first: Session,
    key: Option<VaultKey>,
    named: BTreeMap<String, Session>,
    rules: VaultRules,
}

impl Tools {
    pub(super) fn new(vault: Vault, key: Option<VaultKey>, rules: VaultRules) -> Self {
        Self { first: Session { vault, scope: Scope::default() }, key, named: BTreeMap::new(), rules }
    }

    /// Calls a tool; the answer is a text, and the same with its details.
    pub(super) fn call(
        &mut self,
        tool: &str,
        arguments: &Value,
        scanner: &mut Scanner,
        saved: &VaultArgs,
    ) -> Result<(String, Value)> {
        let wrong = |reason: &str| Error::input("arguments", reason);
        let text = arguments["text"].as_str().ok_or_else(|| wrong("text is missing or no string"))?;
        let name = match &arguments["session"] {
            Value::Null => None,
            Value::String(name) if (1..=MAX_NAME_BYTES).contains(&name.len()) => Some(name.as_str()),
            _ => return Err(wrong("session is no string of 1 to 128 bytes")),
        };
        let full = self.named.len() >= MAX_SESSIONS;
        let session = match name {
            None => &mut self.first,
            Some(name) if full && !self.named.contains_key(name) => {
                return Err(wrong("too many sessions are in use; use one of them"));
            }
            Some(name) => self.named.entry(name.to_owned()).or_default(),
        };
        if tool == "restore" {
            return Ok(restore(session, text));
        }
        session.vault.follow(&self.rules);
        let scan = scanner.scan(&[text])?;
        if tool == "check" {
            // On a copy, to leave no trace. The values are not told: the caller has the text.
            let redacted = session.vault.clone().redact(text, &scan.spans[0])?;
            let spans: Vec<SpanRecord<'_>> = redacted.spans.iter().map(SpanRecord::from).collect();
            let told = match spans.len() {
                0 => "Nothing found. That is no proof that nothing personal is in the text.".to_owned(),
                _ => redacted.text.clone(),
            };
            return Ok((told, json!({ "redacted": redacted.text, "spans": spans })));
        }
        let redacted = session.vault.redact(text, &scan.spans[0])?;
        session.scope.extend(&Scope::of_request(&session.vault, [redacted.text.as_str()]));
        if name.is_none() {
            // Before anything leaves: what cannot be restored later should not have been sent.
            files::save_vault(saved, &session.vault, self.key.as_ref())?;
        }
        let spans: Vec<SpanRecord<'_>> = redacted.spans.iter().map(SpanRecord::from).collect();
        Ok((redacted.text.clone(), json!({ "redacted": redacted.text, "spans": spans })))
    }
}

/// Restores a text: values of the session, those of a vault that an earlier run saved included. In the targets of links,
/// only what redacted texts held there.
fn restore(session: &Session, text: &str) -> (String, Value) {
    // Its placeholders, without its targets: these are no proof that anyone wanted values there.
    let plain: String =
        placeholder::find_all(text).iter().map(|found| format!("{} ", &text[found.range.clone()])).collect();
    let mut scope = Scope::of_request(&session.vault, [plain.as_str()]);
    scope.extend(&session.scope);
    let restored = scope.restore(text);
    let details = json!({
        "restored": restored.text, "replaced": restored.replaced, "unknown": restored.unknown,
        "withheld": restored.withheld,
    });
    (restored.text, details)
}

/// The tools as clients list them.
pub(super) fn list() -> Value {
    let text = |what: &str| json!({ "type": "string", "description": what });
    let input = |what: &str| {
        json!({
            "type": "object", "required": ["text"],
            "properties": {
                "text": text(what),
                "session": text("Name of the conversation; texts of one share placeholders. One is used for all without a name."),
            },
        })
    };
    let spans = json!({
        "type": "array", "description": "What was found, in the order of the text; places in code points.",
        "items": { "type": "object", "properties": {
            "start": { "type": "integer" }, "end": { "type": "integer" }, "label": { "type": "string" },
            "placeholder": { "type": "string" }, "score": { "type": "number" }, "source": { "type": "string" },
        } },
    });
    let found = json!({
        "type": "object", "required": ["redacted", "spans"],
        "properties": { "redacted": { "type": "string" }, "spans": spans },
    });
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let restored = json!({
        "type": "object", "required": ["restored", "replaced", "unknown", "withheld"],
        "properties": {
            "restored": { "type": "string" }, "replaced": { "type": "integer" }, "unknown": list, "withheld": list,
        },
    });
    let local = json!({ "readOnlyHint": true, "openWorldHint": false });
    json!([
        {
            "name": "redact", "title": "Redact personal data",
            "description": "Replaces personal data of a text by placeholders such as [GIVEN_NAME_1]. Use it before the text goes to \
                another tool or service. The values stay on this machine; `restore` puts them back.",
            "inputSchema": input("The text to redact."), "outputSchema": found,
            "annotations": { "readOnlyHint": false, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false },
        },
        {
            "name": "restore", "title": "Restore values",
            "description": "Puts the values back where the placeholders of `redact` stand, but not inside the targets of links. \
                Use it for what the user is shown, not for what is sent on.",
            "inputSchema": input("A text with placeholders."), "outputSchema": restored, "annotations": local,
        },
        {
            "name": "check", "title": "Check for personal data",
            "description": "Tells what `redact` would replace in a text, and keeps nothing. Finding nothing is no proof that \
                nothing personal is there.",
            "inputSchema": input("The text to check."), "outputSchema": found, "annotations": local,
        },
    ])
}
