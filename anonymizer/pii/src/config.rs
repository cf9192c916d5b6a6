//! Configuration: what counts as personal, and how sure detection has to be.
//!
//! ```toml
//! threshold = 0.4                  # of the model; lower finds more and flags more
//! countries = ["US", "GB", "DE"]   # national forms of phone numbers
//! secrets = true
//! hash_key_file = "hash.key"       # for the operator hash; without it, hashes are those of one run
//! allow = ["Berlin"]               # never redacted
//!
//! [types]                          # switches; all but ORGANIZATION and DATE are on by default
//! URL = false
//!
//! [thresholds]                     # per type, for what the model finds
//! CITY = 0.8
//!
//! [operators]                      # placeholder (the default), mask, hash, drop, block or keep
//! CREDIT_CARD_NUMBER = "mask"
//! PASSWORD = "block"
//!
//! [[deny]]                         # always redacted
//! value = "Project Nightjar"
//! label = "PROJECT"
//!
//! [[recognizer]]
//! name = "staff"
//! label = "STAFF_ID"
//! pattern = '\bE-\d{6}\b'
//! validator = "luhn"               # none, luhn, iban or mod97
//! context = ["staff", "employee"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::detect::{DetectOptions, Entity, Label, Source, Span};
use crate::error::{Error, Result};
use crate::recognizers::custom::CustomRecognizer;
use crate::recognizers::denied::DeniedValue;
use crate::vault::operator::{Operator, Operators};
use crate::vault::placeholder;

/// Bytes of a configuration file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What counts as personal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Probability from which a word counts, 0 to 1.
    pub threshold: f32,
    /// Countries whose national phone numbers are known, ISO 3166.
    pub countries: Vec<String>,
    /// Whether keys and passwords are looked for.
    pub secrets: bool,
    /// Switches by label.
    pub types: BTreeMap<String, bool>,
    /// Thresholds by label, for what the model finds.
    pub thresholds: BTreeMap<String, f32>,
    /// What stands for values, by label.
    pub operators: BTreeMap<String, Operator>,
    /// File with the key of hashes.
    pub hash_key_file: Option<PathBuf>,
    /// Values that are never redacted; case is ignored.
    pub allow: Vec<String>,
    /// Values that always are.
    pub deny: Vec<DeniedValue>,
    /// Recognizers beside the built-in ones.
    #[serde(rename = "recognizer")]
    pub recognizers: Vec<CustomRecognizer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threshold: DetectOptions::default().threshold,
            countries: ["US", "GB", "DE", "FR", "ES", "IT", "NL"].map(str::to_owned).to_vec(),
            secrets: true,
            types: BTreeMap::new(),
            thresholds: BTreeMap::new(),
            operators: BTreeMap::new(),
            hash_key_file: None,
            allow: Vec::new(),
            deny: Vec::new(),
            recognizers: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If it is no TOML of this form, or a value is out of its range; the message names the field.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| Error::Config {
            field: "file".to_owned(),
            expected: "TOML as in the documentation".to_owned(),
            got: error.message().to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read or is larger than 1 MB.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|error| Error::io("reading", path, error))?;
        if meta.len() > MAX_BYTES {
            return Err(Error::Config {
                field: path.display().to_string(),
                expected: format!("at most {MAX_BYTES} bytes"),
                got: meta.len().to_string(),
            });
        }
        let bytes = std::fs::read(path).map_err(|error| Error::io("reading", path, error))?;
        let text = String::from_utf8(bytes).map_err(|error| Error::Config {
            field: path.display().to_string(),
            expected: "TOML, which is UTF-8 text".to_owned(),
            got: format!("another byte at {}", error.utf8_error().valid_up_to()),
        })?;
        Self::parse(&text)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// If a value is out of its range; the message names the field.
    pub fn check(&self) -> Result<()> {
        let refused = |field: String, expected: &str, got: String| {
            Err(Error::Config { field, expected: expected.to_owned(), got })
        };
        let scores = self.thresholds.iter().map(|(label, score)| (format!("thresholds.{label}"), *score));
        let scores = scores.chain([("threshold".to_owned(), self.threshold)]);
        let scores =
            scores.chain(self.recognizers.iter().map(|r| (format!("recognizer {}: score", r.name), r.score)));
        for (field, score) in scores {
            if !(0.0..=1.0).contains(&score) {
                return refused(field, "0 to 1", score.to_string());
            }
        }
        let own = self.recognizers.iter().map(|recognizer| &recognizer.label);
        let own: BTreeSet<&String> = own.chain(self.deny.iter().map(|denied| &denied.label)).collect();
        if let Some(label) = own.iter().find(|label| !placeholder::is_label(label)) {
            return refused(
                "label".to_owned(),
                "capital letters, digits and single underscores",
                (*label).clone(),
            );
        }
        for label in self.types.keys().chain(self.thresholds.keys()).chain(self.operators.keys()) {
            if Entity::from_label(label).is_none() && !own.contains(label) {
                return refused("types".to_owned(), "a type, such as CITY", label.clone());
            }
        }
        if self.deny.iter().any(|denied| denied.value.trim().is_empty()) {
            return refused("deny".to_owned(), "values that are not empty", "an empty value".to_owned());
        }
        Ok(())
    }

    /// The options of the model's part of detection.
    pub fn detect_options(&self) -> DetectOptions {
        DetectOptions { threshold: self.threshold, ..DetectOptions::default() }
    }

    /// What stands for values, with the key of hashes read from its file.
    ///
    /// # Errors
    /// If that file cannot be read or is empty.
    pub fn operators(&self) -> Result<Operators> {
        let key = match &self.hash_key_file {
            None => None,
            Some(path) => {
                let key = std::fs::read(path).map_err(|error| Error::io("reading", path, error))?;
                if key.is_empty() {
                    return Err(Error::Config {
                        field: "hash_key_file".to_owned(),
                        expected: "a file with a key".to_owned(),
                        got: "an empty file".to_owned(),
                    });
                }
                Some(zeroize::Zeroizing::new(key))
            }
        };
        Ok(Operators::new(&self.operators, key))
    }

    /// Labels that are not redacted: those switched off, and those off by default that are not switched on.
    fn disabled(&self) -> BTreeSet<String> {
        let mut disabled: BTreeSet<String> = Entity::ALL
            .into_iter()
            .filter(|entity| !entity.spec().on_by_default)
            .map(|entity| entity.as_str().to_owned())
            .collect();
        let kept = self.operators.iter().filter(|(_, operator)| **operator == Operator::Keep);
        let switches = self.types.iter().map(|(label, on)| (label, *on));
        for (label, on) in switches.chain(kept.map(|(label, _)| (label, false))) {
            let label =
                Entity::from_label(label).map_or_else(|| label.clone(), |entity| entity.as_str().to_owned());
            if on {
                disabled.remove(&label);
            } else {
                disabled.insert(label);
            }
        }
        disabled
    }

    /// The rules that decide which spans count.
    pub fn policy(&self) -> Policy {
        let canonical = |label: &String| {
            Entity::from_label(label).map_or_else(|| label.clone(), |e| e.as_str().to_owned())
        };
        Policy {
            disabled: self.disabled(),
            thresholds: self.thresholds.iter().map(|(label, score)| (canonical(label), *score)).collect(),
            allow: self.allow.iter().map(|value| value.to_lowercase()).collect(),
        }
    }
}

/// Which spans count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    disabled: BTreeSet<String>,
    thresholds: BTreeMap<String, f32>,
    allow: BTreeSet<String>,
}

impl Policy {
    /// Whether spans of a type count at all.
    pub fn is_on(&self, label: &Label) -> bool {
        !self.disabled.contains(label.as_str())
    }

    /// Removes spans that do not count; `text` is what they are in.
    pub fn apply(&self, text: &[char], spans: &mut Vec<Span>) {
        spans.retain(|span| {
            let sure = match self.thresholds.get(span.label.as_str()) {
                Some(threshold) => span.source != Source::Model || span.score >= *threshold,
                None => true,
            };
            self.is_on(&span.label) && sure && !self.allows(&text[span.start..span.end])
        });
    }

    fn allows(&self, value: &[char]) -> bool {
        !self.allow.is_empty()
            && self.allow.contains(&value.iter().flat_map(|c| c.to_lowercase()).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_read() {
        let text = include_str!("config.rs");
        let example: String = text
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
            .collect();
        let config = Config::parse(&example).unwrap();
        assert_eq!(config.recognizers.len(), 1);
        assert_eq!(config.deny[0].label, "PROJECT");
        let policy = config.policy();
        assert!(!policy.is_on(&Entity::Url.into()));
        assert!(policy.is_on(&Entity::City.into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("threshold = 2", "threshold"),
            ("nonsense = 1", "nonsense"),
            ("[types]\nTOWN = true", "TOWN"),
            ("[[deny]]\nvalue = ' '", "deny"),
            ("[[deny]]\nvalue = 'x'\nlabel = 'lower'", "lower"),
        ] {
            let message = Config::parse(text).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn allowed_and_unsure_spans_do_not_count() {
        let config = Config::parse("allow = ['rome']\n[thresholds]\nCITY = 0.8").unwrap();
        let span =
            |start, end, score| Span { start, end, label: Entity::City.into(), score, source: Source::Model };
        let text: Vec<char> = "Rome Oslo Bonn".chars().collect();
        let mut spans = vec![span(0, 4, 0.9), span(5, 9, 0.9), span(10, 14, 0.7)];
        config.policy().apply(&text, &mut spans);
        assert_eq!(spans, [span(5, 9, 0.9)]);
    }
}
