//! Keys of the proxy, and what their holders may do.
//!
//! ```toml
//! [[key]]
//! name = "support"
//! key_file = "support.key"            # its first line; relative to this file
//! routes = ["chat/completions"]       # all without it
//! allow_attachments = false
//! hint = true
//! ignore_case = true
//! operators = { EMAIL = "hash", PASSWORD = "block" }
//! ```
//!
//! What a key does not say is as for the key of the command line. Sessions of one key are unknown to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::conversations::ConversationVaults;
use super::protocol::Api;
use super::reply::Refusal;
use crate::config::Config;
use crate::detect::Span;
use crate::error::Result;
use crate::vault::VaultRules;
use crate::vault::operator::Operator;

/// Bytes of the file of keys.
const MAX_BYTES: u64 = 1 << 20;
/// Routes beside those of the APIs.
const ROUTES: [&str; 5] = ["models", "redact", "check", "restore", "metrics"];

/// A key, and what its holder may do.
#[derive(Clone)]
pub struct KeyPolicy {
    /// What the audit log calls it; empty for the key of the command line.
    pub name: String,
    /// The key.
    pub key: Zeroizing<String>,
    /// Paths without `/v1/` that it opens; all if absent.
    pub routes: Option<Vec<String>>,
    /// Whether pictures, sound and files are sent as they are.
    pub allow_attachments: bool,
    /// Whether a request with placeholders asks the model to keep them as they are.
    pub hint: bool,
    /// What vaults do with values.
    pub vault_rules: VaultRules,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key_file: PathBuf,
    routes: Option<Vec<String>>,
    allow_attachments: Option<bool>,
    hint: Option<bool>,
    ignore_case: Option<bool>,
    #[serde(default)]
    operators: BTreeMap<String, Operator>,
}

fn refused(field: String, expected: &str, got: impl Into<String>) -> crate::Error {
    sotto_pii::Error::Config { field, expected: expected.to_owned(), got: got.into() }.into()
}

impl KeyPolicy {
    /// Reads a file of keys. What it does not say is as in `default` and `config`.
    ///
    /// # Errors
    /// If it cannot be read, is not of that form, or names a key twice.
    pub fn open(path: &Path, default: &Self, config: &Config) -> Result<Vec<Self>> {
        let place = path.display().to_string();
        let read = |path: &Path| -> Result<Zeroizing<String>> {
            let failed = |error| crate::Error::io("reading", path, error);
            let size = std::fs::metadata(path).map_err(failed)?.len();
            let wrong =
                || refused(path.display().to_string(), "a text of up to 1 MB", format!("{size} bytes"));
            if size > MAX_BYTES {
                return Err(wrong());
            }
            String::from_utf8(std::fs::read(path).map_err(failed)?).map(Zeroizing::new).map_err(|_| wrong())
        };
        let file: File = toml::from_str(&read(path)?)
            .map_err(|error| refused(place.clone(), "keys as in the documentation", error.message()))?;
        let mut names = BTreeSet::new();
        let mut policies: Vec<Self> = Vec::new();
        for entry in file.key {
            let field = |name: &str| format!("{place}: key {}: {name}", entry.name);
            if entry.name.is_empty() || !names.insert(entry.name.clone()) {
                return Err(refused(
                    field("name"),
                    "a name that no other key has",
                    "none, or one that is taken",
                ));
            }
            let known = |route: &String| {
                ROUTES.contains(&route.as_str()) || Api::ALL.iter().any(|api| api.path()[1..] == **route)
            };
            if let Some(route) = entry.routes.iter().flatten().find(|route| !known(route)) {
                return Err(refused(field("routes"), "paths such as chat/completions", route.clone()));
            }
            let text = read(&path.parent().unwrap_or(Path::new("")).join(&entry.key_file))?;
            let key = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
            let taken = policies.iter().chain([default]).any(|policy| policy.key == key);
            if key.is_empty() || taken {
                return Err(refused(
                    field("key_file"),
                    "a file with a key of its own",
                    "none, or one that is taken",
                ));
            }
            let mut own = config.clone();
            own.operators.extend(entry.operators);
            own.check()?;
            // Without operators of its own, its hashes are those of the others.
            let operators = match own.operators == config.operators {
                true => Arc::clone(&default.vault_rules.operators),
                false => Arc::new(own.operators()?),
            };
            let ignore_case = entry.ignore_case.unwrap_or(default.vault_rules.ignore_case);
            policies.push(Self {
                name: entry.name,
                key,
                routes: entry.routes,
                allow_attachments: entry.allow_attachments.unwrap_or(default.allow_attachments),
                hint: entry.hint.unwrap_or(default.hint),
                vault_rules: VaultRules { ignore_case, operators },
            });
        }
        Ok(policies)
    }
}

/// A key in use, with the sessions of its holder.
pub(super) struct Access {
    pub(super) policy: KeyPolicy,
    pub(super) conversations: ConversationVaults,
}

impl Access {
    pub(super) fn new(policy: KeyPolicy) -> Self {
        Self { policy, conversations: ConversationVaults::default() }
    }

    /// Refuses a path that the key does not open.
    pub(super) fn check_route(&self, path: &str) -> Result<(), Refusal> {
        let path = path.trim_matches('/');
        let path = path.strip_prefix("v1/").unwrap_or(path);
        let fits = |route: &String| path == route || route == "models" && path.starts_with("models/");
        match &self.policy.routes {
            Some(routes) if !routes.iter().any(fits) => {
                let message = format!("this key is for {} only", routes.join(", "));
                Err(Refusal::new(StatusCode::FORBIDDEN, "route", message))
            }
            _ => Ok(()),
        }
    }

    /// Removes spans of types whose values stay.
    pub(super) fn keep(&self, spans: &mut Vec<Span>) {
        spans.retain(|span| self.policy.vault_rules.operators.of(&span.label) != Operator::Keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Vec<KeyPolicy>> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.key"), "sk-a\n").unwrap();
        std::fs::write(directory.path().join("default.key"), "sk-default\n").unwrap();
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        let default = KeyPolicy {
            name: String::new(),
            key: Zeroizing::new("sk-default".to_owned()),
            routes: None,
            allow_attachments: true,
            hint: false,
            vault_rules: VaultRules::default(),
        };
        KeyPolicy::open(&path, &default, &Config::default())
    }

    #[test]
    fn keys_are_read_and_mistakes_named() {
        let example: String = include_str!("access.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!")))
            .collect();
        let policies = open(&example.replace("support.key", "a.key")).unwrap();
        assert_eq!((policies[0].name.as_str(), policies[0].key.as_str()), ("support", "sk-a"));
        let inherits = open("[[key]]\nname = 'a'\nkey_file = 'a.key'").unwrap();
        assert!(inherits[0].allow_attachments && inherits[0].routes.is_none());
        let named = "[[key]]\nname = 'a'\nkey_file = 'a.key'\n";
        for (text, what) in [
            (named.replace("a.key", "default.key"), "key_file"),
            (format!("{named}{named}"), "name"),
            (format!("{named}routes = ['chat']"), "routes"),
            (format!("{named}operators = {{ TOWN = 'mask' }}"), "TOWN"),
            (format!("{named}secret = 1"), "secret"),
        ] {
            let error = open(&text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(what) && !error.contains("sk-"), "{text}: {error}");
        }
    }
}
