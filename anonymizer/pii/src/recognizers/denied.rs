//! The deny list: values that never leave, wherever they stand.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;

use super::{Candidate, Recognizer, stands_alone};
use crate::detect::Label;
use crate::error::{Error, Result};

/// A value of the deny list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedValue {
    /// The value; case is ignored for ASCII letters.
    pub value: String,
    /// The label it gets.
    #[serde(default = "default_label")]
    pub label: String,
}

/// The label of denied values without one of their own.
pub fn default_label() -> String {
    "PRIVATE".to_owned()
}

/// The recognizer of the deny list.
pub struct Denied {
    automaton: AhoCorasick,
    labels: Vec<Label>,
}

impl Denied {
    /// A recognizer of these values.
    ///
    /// # Errors
    /// If the list is too large.
    pub fn new(values: &[DeniedValue]) -> Result<Self> {
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(values.iter().map(|denied| &denied.value))
            .map_err(|error| Error::Config {
                field: "deny".to_owned(),
                expected: "a list that fits into memory".to_owned(),
                got: error.to_string(),
            })?;
        Ok(Self { automaton, labels: values.iter().map(|denied| Label::new(denied.label.clone())).collect() })
    }
}

impl Recognizer for Denied {
    fn name(&self) -> &str {
        "deny"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.automaton.find_iter(text).filter(|place| stands_alone(text, &place.range())) {
            found.push(Candidate {
                range: place.range(),
                label: self.labels[place.pattern().as_usize()].clone(),
                score: 1.0,
                reason: "on the deny list",
            });
        }
    }
}
