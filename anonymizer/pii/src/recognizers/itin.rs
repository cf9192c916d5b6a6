//! US Individual Taxpayer Identification numbers: IRS, "About ITIN": nine digits that begin with 9, the fourth and fifth
//! in 50-65, 70-88, 90-92 or 94-99. Reported as TAX_ID.

use regex::Regex;

use super::{Candidate, Recognizer, built_in, ssn};
use crate::detect::Entity;

const PATTERN: &str = r"9\d{2}-(\d{2})-\d{4}";

/// The recognizer of Individual Taxpayer Identification numbers.
pub struct Itin {
    pattern: Regex,
}

impl Itin {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pattern: built_in(PATTERN) }
    }
}

impl Default for Itin {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Itin {
    fn name(&self) -> &str {
        "itin"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for groups in self.pattern.captures_iter(text) {
            let Some(place) = groups.get(0) else { continue };
            let (_, [group]) = groups.extract();
            let group: u8 = group.parse().unwrap_or_default();
            let valid = matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
            if valid && ssn::is_free(text, &place.range()) {
                found.push(Candidate {
                    range: place.range(),
                    label: Entity::TaxId.into(),
                    score: 0.95,
                    reason: "Individual Taxpayer Identification number: form and group",
                });
            }
        }
    }
}
