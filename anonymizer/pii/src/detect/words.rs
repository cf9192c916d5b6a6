//! Tokens to words: the unit that is labelled.
//!
//! The model labels word pieces, and most pieces of a word begin "their" entity anew. A person's name or a number is
//! never half personal, so pieces are put together first: those of one word of the tokenizer, then words that a
//! hyphen, an apostrophe or a digit separator joins without white space (`Smith-Jones`, `O'Brien`, `908-77-0561`).
//! A word's probabilities are the means of its pieces', weighted by their length.

use super::entity::Entity;

/// What the model's classes mean.
#[derive(Clone, Debug)]
pub struct Tagset {
    /// Per class: the type, and whether it begins an entity; `None` for what is outside.
    classes: Vec<Option<(Entity, bool)>>,
}

impl Tagset {
    /// The classes of a model's labels: `O`, and `B-X` or `I-X` for the names of [`Entity`].
    ///
    /// # Errors
    /// The first label that is none of these.
    pub fn new(labels: &[String]) -> Result<Self, String> {
        let class = |label: &String| {
            if label == "O" {
                return Ok(None);
            }
            let (begins, name) = match label.split_at_checked(2) {
                Some(("B-", name)) => (true, name),
                Some(("I-", name)) => (false, name),
                _ => return Err(label.clone()),
            };
            Entity::from_label(name).map(|entity| Some((entity, begins))).ok_or_else(|| label.clone())
        };
        Ok(Self { classes: labels.iter().map(class).collect::<Result<_, _>>()? })
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The type of a class.
    pub fn entity(&self, class: usize) -> Option<Entity> {
        self.classes.get(class).copied().flatten().map(|(entity, _)| entity)
    }
}

/// A token of the text with the model's answer.
#[derive(Clone, Debug)]
pub struct Token {
    /// First code point.
    pub start: usize,
    /// After the last code point.
    pub end: usize,
    /// The tokenizer's word the token belongs to.
    pub word: u32,
    /// Softmax over the classes of the tagset.
    pub probabilities: Vec<f32>,
}

/// Weight of the second model where both read. So large that what it alone is sure of counts in a text without other sure
/// finds, too (`corroborate`).
const SECOND: f32 = 0.65;

/// A word with its probability of being of each type.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) start: usize,
    pub(super) end: usize,
    /// By `Entity as usize`.
    types: [f32; Entity::ALL.len()],
    /// Whether the first piece begins an entity rather than continuing one, by its most likely type.
    pub(super) begins: bool,
    /// What the word is taken for.
    pub(super) entity: Option<Entity>,
    /// Confidence in that.
    pub(super) score: f32,
}

impl Word {
    /// A word about which the model says nothing.
    #[cfg(test)]
    pub(super) fn for_test(start: usize, end: usize) -> Self {
        Self { start, end, types: [0.0; Entity::ALL.len()], begins: true, entity: None, score: 0.0 }
    }

    /// Sets a probability.
    #[cfg(test)]
    pub(super) fn suppose(&mut self, entity: Entity, probability: f32) {
        self.types[entity as usize] = probability;
    }

    pub(super) fn probability(&self, entity: Entity) -> f32 {
        self.types[entity as usize]
    }

    /// Probability of being anything personal. Companies and dates count only for themselves: "May" is no name because it may
    /// be a month.
    pub(super) fn personal(&self) -> f32 {
        let quiet = self.probability(Entity::Organization) + self.probability(Entity::Date);
        let all: f32 = self.types.iter().sum();
        if self.best().0.is_quiet() { all } else { all - quiet }
    }

    /// The most likely type.
    pub(super) fn best(&self) -> (Entity, f32) {
        let mut best = (Entity::ALL[0], self.types[0]);
        for entity in Entity::ALL {
            if self.probability(entity) > best.1 {
                best = (entity, self.probability(entity));
            }
        }
        best
    }

    /// Averages what this model and the second one think of the word; of several of the other's words, the surest counts.
    pub(super) fn blend<'w>(&mut self, others: impl Iterator<Item = &'w Self>) {
        let Some(other) = others.max_by(|a, b| a.personal().total_cmp(&b.personal())) else { return };
        for (own, other) in self.types.iter_mut().zip(other.types) {
            *own = (1.0 - SECOND) * *own + SECOND * other;
        }
    }

    pub(super) fn set(&mut self, entity: Entity, score: f32) {
        (self.entity, self.score) = (Some(entity), score);
    }

    pub(super) fn clear(&mut self) {
        (self.entity, self.score) = (None, 0.0);
    }
}

/// Puts tokens together to words; none has a label yet.
pub(super) fn words(text: &[char], tagset: &Tagset, tokens: &[Token]) -> Vec<Word> {
    let groups: Vec<&[Token]> = tokens.chunk_by(|a, b| a.word == b.word).collect();
    let mut words = Vec::with_capacity(groups.len());
    let mut at = 0;
    let mut first = 0;
    while at < groups.len() {
        let mut following = at + 1;
        while let Some(taken) = joined(text, &groups[following - 1..]) {
            following += taken;
        }
        let count = groups[at..following].iter().map(|group| group.len()).sum::<usize>();
        words.push(word(tagset, &tokens[first..first + count]));
        first += count;
        at = following;
    }
    words
}

/// How many of the groups after the first belong to the same word.
fn joined(text: &[char], groups: &[&[Token]]) -> Option<usize> {
    let end = groups[0].last()?.end;
    let next = groups.get(1)?;
    let (start, next_end) = (next.first()?.start, next.last()?.end);
    if start != end || end == 0 || end >= text.len() {
        return None;
    }
    let before = text[end - 1];
    let joint = text[end];
    if before.is_alphanumeric() && joint.is_alphanumeric() {
        return (!is_unspaced(before) && !is_unspaced(joint)).then_some(1);
    }
    let following = groups.get(2)?.first()?.start;
    if next_end != start + 1 || following != next_end || following >= text.len() {
        return None;
    }
    let after = text[following];
    let joins = match joint {
        '-' | '\u{2010}' | '\u{2011}' => before.is_alphanumeric() && after.is_alphanumeric(),
        '\'' | '\u{2019}' => before.is_alphabetic() && after.is_alphabetic(),
        '.' | '/' => before.is_ascii_digit() && after.is_ascii_digit(),
        _ => false,
    };
    joins.then_some(2)
}

/// Whether a character is of a script in which neighbours need not belong to one word: Thai, Lao, Burmese and Khmer, kana,
/// Han, and Hangul, whose particles follow a name without a space.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}')
}

fn word(tagset: &Tagset, tokens: &[Token]) -> Word {
    let mut types = [0.0; Entity::ALL.len()];
    let mut total = 0.0;
    for token in tokens {
        let weight = (token.end - token.start).max(1) as f32;
        total += weight;
        for (class, probability) in tagset.classes.iter().zip(&token.probabilities) {
            if let Some((entity, _)) = class {
                types[*entity as usize] += weight * probability;
            }
        }
    }
    types.iter_mut().for_each(|value| *value /= total);
    let (start, end) = (tokens[0].start, tokens[tokens.len() - 1].end);
    let mut word = Word { start, end, types, begins: true, entity: None, score: 0.0 };
    let best = word.best().0;
    let first = |begins| {
        let mut classes = tagset.classes.iter().zip(&tokens[0].probabilities);
        classes
            .find(|(class, _)| **class == Some((best, begins)))
            .map_or(0.0, |(_, probability)| *probability)
    };
    word.begins = first(true) >= first(false);
    word
}
