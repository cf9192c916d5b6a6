//! From words to spans.

use std::collections::BTreeSet;

use super::context;
use super::entity::{Entity, Value};
use super::rules::{Because, Document};
use super::span::{Source, Span};
use super::words::{Tagset, Token, Word, words};

/// For capitalised words that are most likely names.
const NAME_LENIENCY: f32 = 0.7;
/// For capitalised words that are most likely cities or streets.
const PLACE_LENIENCY: f32 = 0.6;

/// A span in the making.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) entity: Entity,
    pub(super) score: f32,
    pub(super) source: Source,
}

impl Found {
    pub(super) fn overlaps(&self, start: usize, end: usize) -> bool {
        self.start < end && start < self.end
    }
}

/// What the model's answer for one text comes to.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) spans: Vec<Span>,
    /// The rules that decided about spans, for those that are not the model's alone.
    pub(super) because: Vec<Because>,
}

/// Decodes the model's answer for one text.
///
/// `tokens`: those of the text in order, with offsets in code points of `text`. `recognized`: spans of recognizers.
/// `threshold`: probability of being personal from which a word counts.
///
/// The answer holds the recognized spans, but those of bare numbers (phones, addresses of machines, tax numbers) that
/// the words around them or the model contradict, and the model's own. It is to be resolved
/// ([`super::overlap::resolve`]): a number that a keyword names may overlap a recognized phone number.
pub fn decode(
    text: &[char],
    tagset: &Tagset,
    tokens: &[Token],
    recognized: &[Span],
    threshold: f32,
) -> Vec<Span> {
    decode_words(text, words(text, tagset, tokens), recognized, threshold, &BTreeSet::new()).spans
}

/// As [`decode`], of words, without some of the rules, and with the rules that decided.
pub(super) fn decode_words(
    text: &[char],
    mut words: Vec<Word>,
    recognized: &[Span],
    threshold: f32,
    disabled: &BTreeSet<String>,
) -> Decoded {
    let believed = |span: &&Span| !context::is_doubtful(text, &words, span);
    let fixed: Vec<Span> = recognized.iter().filter(believed).cloned().collect();
    let fixed = fixed.as_slice();
    words.retain(|word| !fixed.iter().any(|span| span.start < word.end && word.start < span.end));
    for word in &mut words {
        let (entity, score) = word.best();
        let letters = text[word.start..word.end].iter().any(|c| c.is_alphabetic());
        if matches!(entity, Entity::Email | Entity::Url) && !letters {
            continue;
        }
        if word.personal() >= threshold * leniency(text, word, entity) {
            word.set(entity, score);
        }
    }
    let mut document = Document::new(text, fixed, words);
    document.apply(disabled);
    let mut decoded = Decoded::default();
    for found in &document.found {
        let because = document.because(found);
        let Some(found) = trimmed(text, found.clone()).filter(|found| is_plausible(text, found)) else {
            continue;
        };
        let (start, end) = (found.start, found.end);
        decoded.because.extend(because.map(|because| Because { start, end, ..because }));
        decoded.spans.push(Span {
            start,
            end,
            label: found.entity.into(),
            score: found.score.clamp(0.0, 1.0),
            source: found.source,
        });
    }
    decoded.spans.extend_from_slice(fixed);
    decoded.spans.sort_by_key(|span| (span.start, span.end));
    decoded
}

/// What the threshold is multiplied by. The model is unsure of rare names, and a name that leaks cannot be taken back.
fn leniency(text: &[char], word: &Word, entity: Entity) -> f32 {
    let capitalised = text[word.start].is_uppercase();
    match entity {
        Entity::GivenName | Entity::Surname if capitalised => NAME_LENIENCY,
        Entity::City | Entity::StreetName if capitalised => PLACE_LENIENCY,
        _ => 1.0,
    }
}

/// Puts neighbouring words of one type together.
pub(super) fn merge(text: &[char], words: &[Word]) -> Vec<Found> {
    let mut found: Vec<(Found, usize)> = Vec::new();
    for word in words {
        let Some(entity) = word.entity else { continue };
        // Whether a word is personal matters more than of which type it is.
        let score = word.score.max(word.personal());
        if let Some((last, count)) = found.last_mut()
            && last.entity == entity
            && continues(text, entity, &text[last.end..word.start], word)
        {
            last.score = (last.score * *count as f32 + score) / (*count + 1) as f32;
            last.end = word.end;
            *count += 1;
            continue;
        }
        let (start, end) = (word.start, word.end);
        found.push((Found { start, end, entity, score, source: Source::Model }, 1));
    }
    found.into_iter().map(|(found, _)| found).collect()
}

/// Whether a word goes on with the span before it, `gap` being what stands between.
fn continues(text: &[char], entity: Entity, gap: &[char], word: &Word) -> bool {
    if gap.is_empty() {
        // Touching, but not joined: only punctuation that belongs to numbers.
        return entity.is_number() || text[word.start].is_alphanumeric();
    }
    if gap.len() > 3 || gap.contains(&'\n') {
        return false;
    }
    match entity {
        Entity::GivenName | Entity::Surname => gap == [' '] && !word.begins,
        Entity::PhoneNumber => gap.iter().all(|c| matches!(c, ' ' | '\u{a0}' | '(' | ')' | '-' | '.' | '/')),
        _ => gap.iter().all(|c| c.is_whitespace()),
    }
}

/// A span without white space, punctuation and a possessive `'s` at its ends; `None` if nothing is left.
fn trimmed(text: &[char], mut found: Found) -> Option<Found> {
    let opens = |c: char| c.is_alphanumeric() || matches!(c, '+' | '(' | '#');
    while found.start < found.end && !opens(text[found.start]) {
        found.start += 1;
    }
    while found.start < found.end && !text[found.end - 1].is_alphanumeric() {
        found.end -= 1;
    }
    if let [.., '\'' | '\u{2019}', 's' | 'S'] = text[found.start..found.end] {
        found.end -= 2;
    }
    let inside = &text[found.start..found.end];
    if inside.first() == Some(&'(') && !inside.contains(&')') {
        found.start += 1;
    }
    (found.start < found.end).then_some(found)
}

/// Whether a span can be what it is said to be, from its characters alone.
fn is_plausible(text: &[char], found: &Found) -> bool {
    (found.entity.spec().plausible)(&Value::new(&text[found.start..found.end]))
}
