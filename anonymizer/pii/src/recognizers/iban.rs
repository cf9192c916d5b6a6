//! International bank account numbers: ISO 13616 with the check digits of ISO/IEC 7064 (mod 97-10) and each country's
//! length and structure (crate `iban_validate`, from the SWIFT registry). Reported as BANK_ACCOUNT.

use iban::Iban;
use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context, continues_word, stands_alone};
use crate::detect::Entity;

/// Country, check digits, and up to 30 letters and digits in groups.
const PATTERN: &str = r"(?i)[A-Z]{2} ?\d{2}(?:[ \u{a0}-]?[A-Z0-9]){11,30}";

/// The same in groups of four, or in one piece.
const GROUPED: &str = r"[A-Z]{2}\d{2}(?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?|[A-Z0-9]{11,30})";

/// How far before a number its name may begin, in bytes.
const CONTEXT_REACH: usize = 16;

/// Lengths of the registry's shortest (Norway) and longest (Malta, with room) numbers.
const LENGTHS: std::ops::RangeInclusive<usize> = 15..=34;

/// The recognizer of international bank account numbers.
pub struct IbanNumber {
    pattern: Regex,
    grouped: Regex,
}

impl IbanNumber {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pattern: built_in(PATTERN), grouped: built_in(GROUPED) }
    }
}

impl Default for IbanNumber {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for IbanNumber {
    fn name(&self) -> &str {
        "iban"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let first = found.len();
        let mut from = 0;
        while let Some(place) = self.pattern.find_at(text, from) {
            let start = place.start();
            let joined = before(text, start).is_some_and(|c| continues_word(c) || c == '_');
            match (!joined).then(|| valid_prefix(text, start, place.as_str())).flatten() {
                Some(end) => {
                    found.push(Candidate {
                        range: start..end,
                        label: Entity::BankAccount.into(),
                        score: 1.0,
                        reason: "IBAN: country, length and check digits",
                    });
                    from = end;
                }
                // One number may begin inside what looked like another.
                None => from = start + 1,
            }
        }
        // A typing error does not make a number public that is said to be an IBAN.
        let valid = found.len();
        for place in self.grouped.find_iter(text) {
            let range = place.range();
            let length = place.as_str().bytes().filter(u8::is_ascii_alphanumeric).count();
            let next = first + found[first..valid].partition_point(|other| other.range.end <= range.start);
            let known = next < valid && found[next].range.start < range.end;
            if !known
                && LENGTHS.contains(&length)
                && stands_alone(text, &range)
                && context::in_front(text, &range, &["iban"], CONTEXT_REACH)
            {
                found.push(Candidate {
                    range,
                    label: Entity::BankAccount.into(),
                    score: 0.8,
                    reason: "form of an IBAN and its name before it",
                });
            }
        }
    }
}

/// Where the number ends that begins at `start`, the run of characters after it being possibly longer.
fn valid_prefix(text: &str, start: usize, run: &str) -> Option<usize> {
    let mut compact = String::with_capacity(run.len());
    for (at, c) in run.char_indices() {
        if !c.is_ascii_alphanumeric() {
            continue;
        }
        compact.push(c.to_ascii_uppercase());
        let end = start + at + c.len_utf8();
        let ends = !after(text, end).is_some_and(continues_word);
        if ends && LENGTHS.contains(&compact.len()) && compact.parse::<Iban>().is_ok() {
            return Some(end);
        }
    }
    None
}
