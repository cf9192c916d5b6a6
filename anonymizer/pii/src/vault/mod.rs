//! The vault: which placeholder stands for which value.
//!
//! A value gets the same placeholder whenever it comes back in a session, and a placeholder stands for one value only.
//! Text that looks like a placeholder but is none stays as it is if its number is free, which is then never given to a
//! value; if it is taken, the look-alike itself is replaced by a `[LITERAL_n]`. So with one vault
//! `restore(redact(text)) == text` for every text, whatever the vault held before.
//!
//! Values are wiped from memory when the vault is dropped. [`store`] saves a vault encrypted.

pub mod operator;
pub mod placeholder;
mod repeats;
pub mod restore;
mod scope;
pub mod store;
pub mod stream;
mod targets;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::detect::{Entity, Label, Source, Span};
use crate::error::{Error, Result};
use operator::{Operator, Operators};
use placeholder::LITERAL;
use repeats::RepeatIndex;

pub use restore::{Escaping, Restored};
pub use scope::Scope;
pub use stream::StreamRestorer;

/// Values of one vault.
pub const MAX_VALUES: usize = 1_000_000;

/// Digits of a look-alike's number up to which nothing is looked for inside it: more could be a person's number.
const PROTECTED_DIGITS: usize = 4;

/// A private value. It is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Value(Box<str>);

impl Value {
    fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Value {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A span and its placeholder.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The span, in code points of the original text.
    pub span: Span,
    /// What stands for it, e.g. `[GIVEN_NAME_1]`.
    pub placeholder: String,
}

/// A text that may leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Redacted {
    /// The text with placeholders.
    pub text: String,
    /// What was replaced, in the order of the text. Look-alikes are not among it.
    pub spans: Vec<Placed>,
    /// Every change, look-alikes included: code points of the original text, and what stands for them.
    pub edits: Vec<(Range<usize>, String)>,
}

/// What a vault does beside giving each value a placeholder.
#[derive(Clone, Default)]
pub struct VaultRules {
    /// Whether values that differ in case alone get one placeholder (`Ana`, `ANA`). Restoring then writes the first of them
    /// everywhere, so a text does not come back byte for byte.
    pub ignore_case: bool,
    /// What stands for values of certain types in place of placeholders.
    pub operators: Arc<Operators>,
}

/// Placeholders and the values they stand for.
#[derive(Clone, Default)]
pub struct Vault {
    entries: Vec<(Label, u32, Value)>,
    by_value: HashMap<Label, HashMap<Value, u32>>,
    /// The first value of those that differ in case alone.
    by_folded: HashMap<Label, HashMap<Value, u32>>,
    ignores_case: bool,
    operators: Arc<Operators>,
    by_name: HashMap<String, HashMap<u32, usize>>,
    last: HashMap<Label, u32>,
    reserved: HashMap<String, HashSet<u32>>,
    /// Indices of entries whose values were JSON numbers.
    numbers: HashSet<usize>,
    repeats: RepeatIndex,
}

impl Vault {
    /// An empty vault.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows these rules from now on.
    pub fn follow(&mut self, rules: &VaultRules) {
        self.ignores_case = rules.ignore_case;
        self.operators = Arc::clone(&rules.operators);
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Values by label, look-alikes left out.
    pub fn counts(&self) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for (label, _, _) in self.entries.iter().filter(|(label, _, _)| label.as_str() != LITERAL) {
            *counts.entry(label.to_string()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn lookup(&self, label: &str, number: u32) -> Option<&str> {
        let index = *self.by_name.get(label)?.get(&number)?;
        Some(self.entries[index].2.as_str())
    }

    /// Notes that the value of this placeholder was a number, so that it can become one again.
    pub fn mark_number(&mut self, placeholder: &str) {
        if let Some(index) = self.index_of(placeholder) {
            self.numbers.insert(index);
        }
    }

    /// The number that this placeholder stands for, if it does for one.
    pub fn number(&self, placeholder: &str) -> Option<serde_json::Number> {
        let index = self.index_of(placeholder).filter(|index| self.numbers.contains(index))?;
        serde_json::from_str(self.entries[index].2.as_str()).ok()
    }

    /// The entry of a text that is one placeholder and nothing else.
    fn index_of(&self, placeholder: &str) -> Option<usize> {
        let [found] = &placeholder::find_all(placeholder)[..] else { return None };
        let whole = found.range == (0..placeholder.len()) && found.suffix.is_empty();
        let index = *self.by_name.get(&found.label)?.get(&found.number)?;
        whole.then_some(index)
    }

    /// Takes over a value of another vault under its placeholder, to restore it only.
    fn adopt(&mut self, from: &Self, label: &str, number: u32) {
        let Some(&index) = from.by_name.get(label).and_then(|numbers| numbers.get(&number)) else { return };
        if self.lookup(label, number).is_none() {
            if from.numbers.contains(&index) {
                self.numbers.insert(self.entries.len());
            }
            self.by_name.entry(label.to_owned()).or_default().insert(number, self.entries.len());
            self.entries.push(from.entries[index].clone());
        }
    }

    pub(crate) fn is_reserved(&self, label: &str, number: u32) -> bool {
        self.reserved.get(label).is_some_and(|numbers| numbers.contains(&number))
    }

    /// Replaces `spans` of `text` by placeholders, and every other place where one of the session's values stands as a
    /// whole word. Spans that overlap an earlier one are left out.
    ///
    /// # Errors
    /// If the vault is full, or a span does not lie in the text.
    pub fn redact(&mut self, text: &str, spans: &[Span]) -> Result<Redacted> {
        self.redact_sparing(text, spans, &[])
    }

    /// As [`redact`](Self::redact), leaving `spared` values where they were not found anew.
    ///
    /// # Errors
    /// As [`redact`](Self::redact).
    pub fn redact_sparing(&mut self, text: &str, spans: &[Span], spared: &[String]) -> Result<Redacted> {
        let chars: Vec<char> = text.chars().collect();
        if spans.iter().any(|span| span.start >= span.end || span.end > chars.len()) {
            return Err(Error::Input {
                place: "span".to_owned(),
                reason: format!("it is empty or ends after the {} code points of the text", chars.len()),
            });
        }
        let look_alikes = self.look_alikes(text);
        let mut spans = self.free_of(&look_alikes, spans);
        let mut fresh = RepeatIndex::default();
        for span in &spans {
            fresh.add(&span.label, &chars[span.start..span.end]);
        }
        for index in [&fresh, &self.repeats] {
            let mut repeated = repeated(index, &chars, 0);
            spare(&chars, &mut repeated, spared);
            let repeated = self.free_of(&look_alikes, &repeated);
            spans = with_repeated(spans, repeated);
        }
        // A span that cuts a word leaves a rest that may be a value by itself.
        for index in [&fresh, &self.repeats] {
            let mut rests = Vec::new();
            let mut at = 0;
            for end in spans.iter().map(|span| span.start).chain([chars.len()]) {
                rests.extend(repeated(index, &chars[at..end], at));
                at = spans.get(spans.partition_point(|span| span.start < end)).map_or(end, |span| span.end);
            }
            spare(&chars, &mut rests, spared);
            spans = with_repeated(spans, self.free_of(&look_alikes, &rests));
        }
        self.reserve(&look_alikes, &spans);
        self.replace(&chars, &spans)
    }

    /// Look-alikes in code points: where, which, and whether they are forms of known labels.
    fn look_alikes(&self, text: &str) -> Vec<LookAlike> {
        let (mut byte, mut count) = (0, 0);
        let mut code_point = |at: usize| {
            count += text[byte..at].chars().count();
            byte = at;
            count
        };
        placeholder::find_all(text)
            .into_iter()
            .map(|found| {
                let (start, end) = (code_point(found.range.start), code_point(found.range.end));
                let taken = self.lookup(&found.label, found.number).is_some();
                let known = Entity::from_label(&found.label).is_some()
                    || found.label == LITERAL
                    || self.by_name.contains_key(&found.label);
                let protected = taken || (known && found.digits <= PROTECTED_DIGITS);
                LookAlike { start, end, label: found.label, number: found.number, taken, protected }
            })
            .collect()
    }

    /// Spans in the order of the text that do not overlap each other nor lie in a look-alike.
    fn free_of(&self, look_alikes: &[LookAlike], spans: &[Span]) -> Vec<Span> {
        let mut sorted = spans.to_vec();
        sorted.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
        let mut kept: Vec<Span> = Vec::with_capacity(sorted.len());
        let mut next = 0;
        for span in sorted {
            while look_alikes.get(next).is_some_and(|look| look.end <= span.start) {
                next += 1;
            }
            let mut overlapping = look_alikes[next..].iter().take_while(|look| look.start < span.end);
            let inside =
                overlapping.any(|look| look.protected && (span.start > look.start || span.end < look.end));
            let free = kept.last().is_none_or(|last| last.end <= span.start);
            if free && !inside {
                kept.push(span);
            }
        }
        kept
    }

    /// Keeps the numbers of look-alikes that stay in the text from being given to values.
    fn reserve(&mut self, look_alikes: &[LookAlike], spans: &[Span]) {
        for look in look_alikes.iter().filter(|look| !look.taken) {
            let at = spans.partition_point(|span| span.end <= look.start);
            if spans.get(at).is_none_or(|span| span.start >= look.end) {
                self.reserved.entry(look.label.clone()).or_default().insert(look.number);
            }
        }
    }

    fn replace(&mut self, chars: &[char], spans: &[Span]) -> Result<Redacted> {
        let mut redacted =
            Redacted { text: String::new(), spans: Vec::with_capacity(spans.len()), edits: Vec::new() };
        let mut at = 0;
        for span in spans {
            self.copy(chars, at..span.start, &mut redacted)?;
            let value: String = chars[span.start..span.end].iter().collect();
            let placeholder = self.stand_in(&span.label, &value)?;
            redacted.text.push_str(&placeholder);
            redacted.edits.push((span.start..span.end, placeholder.clone()));
            redacted.spans.push(Placed { span: span.clone(), placeholder });
            at = span.end;
        }
        self.copy(chars, at..chars.len(), &mut redacted)?;
        Ok(redacted)
    }

    /// Copies text between spans; look-alikes of placeholders in use are replaced.
    fn copy(&mut self, chars: &[char], range: Range<usize>, into: &mut Redacted) -> Result<()> {
        let text: String = chars[range.clone()].iter().collect();
        let (mut at, mut count) = (0, range.start);
        for found in placeholder::find_all(&text) {
            if self.lookup(&found.label, found.number).is_some() {
                into.text.push_str(&text[at..found.range.start]);
                count += text[at..found.range.start].chars().count();
                let look_alike = &text[found.range.clone()];
                let length = look_alike.chars().count();
                let literal = self.placeholder(&Label::new(LITERAL), look_alike)?;
                into.text.push_str(&literal);
                into.edits.push((count..count + length, literal));
                (at, count) = (found.range.end, count + length);
            }
        }
        into.text.push_str(&text[at..]);
        Ok(())
    }

    /// What stands for a value: its placeholder, if no operator says otherwise.
    fn stand_in(&mut self, label: &Label, value: &str) -> Result<String> {
        match self.operators.of(label) {
            Operator::Placeholder | Operator::Keep => self.placeholder(label, value),
            Operator::Block => Err(Error::Blocked { label: label.to_string() }),
            other => {
                // It is looked for in later texts like every other value.
                self.repeats.add(label, &value.chars().collect::<Vec<_>>());
                Ok(self.operators.apply(other, label, value))
            }
        }
    }

    /// The placeholder of a value, a new one if it has none.
    fn placeholder(&mut self, label: &Label, value: &str) -> Result<String> {
        if let Some(number) = self.by_value.get(label).and_then(|values| values.get(value)) {
            return Ok(placeholder::canonical(label.as_str(), *number));
        }
        if self.ignores_case
            && let Some(number) =
                self.by_folded.get(label).and_then(|values| values.get(folded(value).as_str()))
        {
            return Ok(placeholder::canonical(label.as_str(), *number));
        }
        let mut number = self.last.get(label).copied().unwrap_or(0) + 1;
        while self.is_reserved(label.as_str(), number) {
            number += 1;
        }
        self.insert(label.clone(), number, value)?;
        Ok(placeholder::canonical(label.as_str(), number))
    }

    fn insert(&mut self, label: Label, number: u32, value: &str) -> Result<()> {
        if self.entries.len() >= MAX_VALUES {
            return Err(Error::Vault {
                path: "in memory".to_owned(),
                reason: format!("it holds {MAX_VALUES} values already"),
            });
        }
        if label.as_str() != LITERAL {
            self.repeats.add(&label, &value.chars().collect::<Vec<_>>());
        }
        self.by_value.entry(label.clone()).or_default().insert(Value::new(value), number);
        if label.as_str() != LITERAL {
            self.by_folded
                .entry(label.clone())
                .or_default()
                .entry(Value::new(&folded(value)))
                .or_insert(number);
        }
        self.by_name.entry(label.as_str().to_owned()).or_default().insert(number, self.entries.len());
        let last = self.last.entry(label.clone()).or_default();
        *last = number.max(*last);
        self.entries.push((label, number, Value::new(value)));
        Ok(())
    }
}

/// A value in small letters. Wiped when dropped.
fn folded(value: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(value.to_lowercase())
}

/// Removes spans of spared values.
fn spare(chars: &[char], spans: &mut Vec<Span>, spared: &[String]) {
    if !spared.is_empty() {
        spans.retain(|span| !spared.contains(&chars[span.start..span.end].iter().collect::<String>()));
    }
}

/// Where values of an index stand in `chars`, which begin at code point `offset` of their text.
fn repeated(index: &RepeatIndex, chars: &[char], offset: usize) -> Vec<Span> {
    let found = index.find(chars).into_iter();
    let span = |(start, end, label)| Span {
        start: offset + start,
        end: offset + end,
        label,
        score: 1.0,
        source: Source::Recognizer("repeated".into()),
    };
    found.map(span).collect()
}

/// Text that looks like a placeholder, in code points.
struct LookAlike {
    start: usize,
    end: usize,
    label: String,
    number: u32,
    /// Whether it is one of the vault's placeholders.
    taken: bool,
    /// Whether nothing is replaced inside it.
    protected: bool,
}

/// Adds spans where no other is, and lets a longer repeated one take the place of those it covers.
fn with_repeated(spans: Vec<Span>, repeated: Vec<Span>) -> Vec<Span> {
    let mut kept = spans;
    let mut added = Vec::new();
    for span in repeated {
        let first = kept.partition_point(|other| other.end <= span.start);
        let behind = kept.partition_point(|other| other.start < span.end);
        let overlapping = &kept[first..behind];
        let covers = |other: &Span| {
            span.start <= other.start
                && other.end <= span.end
                && other.end - other.start < span.end - span.start
        };
        if overlapping.is_empty() {
            added.push(span);
        } else if overlapping.iter().all(covers) {
            kept.drain(first..behind);
            added.push(span);
        }
    }
    kept.extend(added);
    kept.sort_by_key(|span| span.start);
    kept
}

#[cfg(test)]
mod tests;
