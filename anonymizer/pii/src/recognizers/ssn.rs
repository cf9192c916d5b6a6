//! US Social Security numbers: SSA, "Social Security Number Randomization" (2011): area not 000, 666 or 900-999, group
//! not 00, serial not 0000. With words around it a number counts also if these rules do not hold: a typing error does not
//! make it public.

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context, continues_word};
use crate::detect::Entity;

const PATTERN: &str = r"(\d{3})([- .]?)(\d{2})([- .]?)(\d{4})";

const CONTEXT: &[&str] = &["ssn", "ssns", "social security", "soc sec", "social"];

/// The recognizer of Social Security numbers.
pub struct Ssn {
    pattern: Regex,
}

impl Ssn {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pattern: built_in(PATTERN) }
    }
}

impl Default for Ssn {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Ssn {
    fn name(&self) -> &str {
        "ssn"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for groups in self.pattern.captures_iter(text) {
            let Some(place) = groups.get(0) else { continue };
            let (_, [area, first, group, second, serial]) = groups.extract();
            if first != second || !is_free(text, &place.range()) {
                continue;
            }
            let valid = is_valid(area, group, serial);
            let spoken_of = context::near(text, &place.range(), CONTEXT);
            let (score, reason) = match (valid, first, spoken_of) {
                (true, _, true) => (1.0, "Social Security number: form, rules and words around it"),
                (true, "-", false) => (0.95, "Social Security number: form and rules"),
                (false, "-" | " ", true) => (0.8, "form of a Social Security number and words around it"),
                _ => continue,
            };
            found.push(Candidate { range: place.range(), label: Entity::Ssn.into(), score, reason });
        }
    }
}

/// Whether a range of digits is not part of a longer number.
pub(super) fn is_free(text: &str, range: &std::ops::Range<usize>) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| continues_word(c) || matches!(c, '_' | '+'));
    let tail = &text[range.end..];
    let goes_on = tail.starts_with(['-', '.']) && after(tail, 1).is_some_and(|c| c.is_ascii_digit());
    let head = &text[..range.start];
    let came_from =
        head.ends_with(['-', '.', '/']) && before(head, head.len() - 1).is_some_and(|c| c.is_ascii_digit());
    !joins(before(text, range.start)) && !joins(after(text, range.end)) && !goes_on && !came_from
}

fn is_valid(area: &str, group: &str, serial: &str) -> bool {
    area != "000" && area != "666" && !area.starts_with('9') && group != "00" && serial != "0000"
}
