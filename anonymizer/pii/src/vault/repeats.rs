//! Where known values stand in a text, found in time linear in the text however many values there are.
//!
//! A value is indexed by its longest run of letters and digits. Every run of the text is looked up; where it is the key
//! of a value, the text around it is compared.

use std::collections::{BTreeSet, HashMap};

use super::Value;
use crate::detect::Label;
use crate::detect::entity::{Entity, Repeats};

/// Values shorter than this are not looked for elsewhere: they would be found by chance.
const SHORTEST: usize = 3;
/// Numbers shorter than this are not looked for elsewhere.
const SHORTEST_NUMBER: usize = 5;
/// Values longer than this are not looked for elsewhere, to keep comparisons short.
const LONGEST: usize = 256;

/// An index of values.
#[derive(Clone, Default)]
pub(super) struct RepeatIndex {
    /// Per key: where in a value it begins, and the value's length, in code points.
    shapes: HashMap<Value, BTreeSet<(usize, usize)>>,
    labels: HashMap<Value, Label>,
}

impl RepeatIndex {
    /// Adds a value, unless it is one that would be found by chance.
    pub(super) fn add(&mut self, label: &Label, value: &[char]) {
        if !is_distinctive(label, value) {
            return;
        }
        let Some((start, key)) = runs(value).max_by_key(|(_, run)| run.len()) else { return };
        let key: String = key.iter().collect();
        self.shapes.entry(Value::new(&key)).or_default().insert((start, value.len()));
        let value: String = value.iter().collect();
        self.labels.entry(Value::new(&value)).or_insert_with(|| label.clone());
    }

    /// Where values stand as whole words: first code point, the one after the last, label. In the order of the text,
    /// the longest of those that overlap.
    pub(super) fn find(&self, text: &[char]) -> Vec<(usize, usize, Label)> {
        let mut found: Vec<(usize, usize, Label)> = Vec::new();
        if self.labels.is_empty() {
            return found;
        }
        for (at, run) in runs(text) {
            let key: String = run.iter().collect();
            let Some(shapes) = self.shapes.get(key.as_str()) else { continue };
            let places = shapes.iter().filter_map(|&(offset, length)| {
                let start = at.checked_sub(offset)?;
                let value = text.get(start..start + length)?;
                let text_value: String = value.iter().collect();
                let label = self.labels.get(text_value.as_str())?;
                is_whole(text, start, start + length).then(|| (start, start + length, label.clone()))
            });
            if let Some(place) = places.max_by_key(|(start, end, _)| end - start) {
                match found.last_mut() {
                    Some(last) if last.1 > place.0 => {
                        if place.1 - place.0 > last.1 - last.0 {
                            *last = place;
                        }
                    }
                    _ => found.push(place),
                }
            }
        }
        found
    }
}

/// Whether a value is distinctive enough to be looked for elsewhere.
fn is_distinctive(label: &Label, value: &[char]) -> bool {
    let letters = value.iter().filter(|c| c.is_alphabetic()).count();
    let digits = value.iter().filter(|c| c.is_numeric()).count();
    let enough = if letters == 0 { digits >= SHORTEST_NUMBER } else { letters + digits >= SHORTEST };
    let capitalised = value.iter().find(|c| c.is_alphabetic()).is_some_and(|c| !c.is_lowercase());
    let repeats = Entity::from_label(label.as_str()).map_or(Repeats::Always, |entity| entity.spec().repeats);
    value.len() <= LONGEST
        && enough
        && match repeats {
            Repeats::Always => true,
            Repeats::Capitalised => capitalised,
            Repeats::Never => false,
        }
}

/// Runs of letters, marks and digits, with where they begin.
fn runs(text: &[char]) -> impl Iterator<Item = (usize, &[char])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() && !text[at].is_alphanumeric() {
            at += 1;
        }
        let start = at;
        while at < text.len() && text[at].is_alphanumeric() {
            at += 1;
        }
        (start < at).then(|| (start, &text[start..at]))
    })
}

/// Whether neither end of a range cuts a word or number.
fn is_whole(text: &[char], start: usize, end: usize) -> bool {
    let joined = |left: usize, right: usize| {
        text.get(left).is_some_and(|c| c.is_alphanumeric())
            && text.get(right).is_some_and(|c| c.is_alphanumeric())
    };
    let cut_front = start > 0 && joined(start - 1, start);
    !cut_front && !joined(end - 1, end)
}
