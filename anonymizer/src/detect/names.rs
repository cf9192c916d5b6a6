//! Names: what the words around a word and the rest of the text say about it.

use super::span::{Entity, Span};
use super::words::Word;
use std::collections::HashMap;

/// Probability of being personal from which a capitalised neighbour of a name is one too.
const NEIGHBOUR: f32 = 0.08;
/// Confidence from which a name counts wherever else it stands in the text.
const REPEATED: f32 = 0.9;

/// Abbreviations of written speech that the model takes for names.
const NO_NAMES: [&str; 20] = [
    "ttyl", "lol", "pls", "plz", "thx", "omg", "btw", "idk", "tbh", "imo", "hey", "hi", "hello", "dm",
    "iban", "ssn", "kyc", "vat", "dob", "aba",
];
/// Words in the middle of a name that are not capitalised.
const PARTICLES: [&str; 18] = [
    "de", "del", "della", "der", "den", "di", "da", "dos", "du", "la", "le", "van", "von", "ten", "al",
    "bin", "ibn", "y",
];
/// Titles that stand in front of a surname, or of a full name.

const TITLES: [&str; 25] = [
    "mr",
    "mrs",
    "ms",
    "mx",
    "miss",
    "dr",
    "prof",
    "professor",
    "sir",
    "madam",
    "judge",
    "frau",
    "herr",
    "herrn",
    "madame",
    "monsieur",
    "mme",
    "señor",
    "señora",
    "sr",
    "sra",
    "signor",
    "signora",
    "sgt",
    "capt",
];

/// Corrects the labels of words as far as names go.
pub(super) fn refine(text: &[char], words: &mut [Word], fixed: &[Span]) {
    for word in words.iter_mut() {
        let lower = lower(text, word);
        let is_place = matches!(word.entity, Some(Entity::City | Entity::State | Entity::StreetName));
        let is_hashtag = word.start > 0 && text[word.start - 1] == '#';
        if (is_name(word) || is_place) && (NO_NAMES.contains(&lower.as_str()) || is_hashtag) {
            word.clear();
        }
    }
    uncapitalised(text, words);
    titles(text, words);
    neighbours(text, words);
    full_names(text, words);
    repeated(text, words, fixed);
}

fn is_name(word: &Word) -> bool {
    matches!(word.entity, Some(Entity::GivenName | Entity::Surname))
}

fn lower(text: &[char], word: &Word) -> String {
    text[word.start..word.end].iter().flat_map(|c| c.to_lowercase()).collect()
}

fn is_capitalised(text: &[char], word: &Word) -> bool {
    text[word.start].is_uppercase() && text[word.start..word.end].iter().all(|c| !c.is_numeric())
}

/// A word in lower case behind a capitalised name is no part of it, unless it is a particle.
fn uncapitalised(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (a, b) = (&before[i - 1], &mut rest[0]);
        let follows = is_name(a) && is_name(b) && adjoin(text, a, b) && is_capitalised(text, a);
        if follows
            && !is_capitalised(text, b)
            && b.score < 0.97
            && !PARTICLES.contains(&lower(text, b).as_str())
        {
            b.clear();
        }
    }
}

/// Whether exactly one space stands between two words.
fn adjoin(text: &[char], a: &Word, b: &Word) -> bool {
    text.get(a.end..b.start) == Some(&[' '])
}

fn titles(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (before, word) = (&*before, &rest[0]);
        let title = match before {
            [.., title, stop]
                if stop.end == stop.start + 1 && text[stop.start] == '.' && stop.start == title.end =>
            {
                title
            }
            [.., title] => title,
            [] => continue,
        };
        let gap = &text[before[i - 1].end..word.start];
        let titled = gap == [' '] && TITLES.contains(&lower(text, title).as_str());
        if !titled || !is_capitalised(text, word) || word.personal() < 0.02 {
            continue;
        }
        // "Dr. Ada" is a given name only if a surname follows.
        let full = rest.get(1).is_some_and(|next| is_name(next) && adjoin(text, &rest[0], next));
        let word = &mut rest[0];
        if !full && matches!(word.entity, None | Some(Entity::GivenName)) {
            let score = word.personal().max(0.5);
            word.set(Entity::Surname, score);
        }
    }
}

/// A capitalised word next to a sure name that may be personal is one.
fn neighbours(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (a, b) = (&mut before[i - 1], &mut rest[0]);
        if !adjoin(text, a, b) || !is_capitalised(text, a) || !is_capitalised(text, b) {
            continue;
        }
        if a.entity == Some(Entity::GivenName) && b.entity.is_none() && b.personal() >= NEIGHBOUR {
            b.set(Entity::Surname, b.personal());
        } else if b.entity == Some(Entity::Surname) && a.entity.is_none() && a.personal() >= NEIGHBOUR {
            a.set(Entity::GivenName, a.personal());
        }
    }
}

/// Two words alone that are both taken for given names are a given name and a surname ("Thandiwe, Beatriz Anna" is
/// not alone), and likewise the other way round.
fn full_names(text: &[char], words: &mut [Word]) {
    let mut start = 0;
    while start < words.len() {
        let mut end = start + 1;
        while is_name(&words[start])
            && end < words.len()
            && is_name(&words[end])
            && adjoin(text, &words[end - 1], &words[end])
        {
            end += 1;
        }
        if is_name(&words[start]) && end - start == 2 && is_capitalised(text, &words[start]) {
            let behind_surname = start > 0
                && words[start - 1].entity == Some(Entity::Surname)
                && text[words[start - 1].end..words[start].start] == [',', ' '];
            match (words[start].entity, words[end - 1].entity) {
                (Some(Entity::GivenName), Some(Entity::GivenName))
                    if !behind_surname && is_capitalised(text, &words[end - 1]) =>
                {
                    words[end - 1].entity = Some(Entity::Surname);
                }
                (Some(Entity::Surname), Some(Entity::Surname))
                    if words[start].probability(Entity::GivenName) > 0.02 =>
                {
                    words[start].entity = Some(Entity::GivenName);
                }
                _ => {}
            }
        }
        start = end;
    }
}

/// Sure names, and the parts of e-mail addresses, are names wherever else they stand capitalised.
fn repeated(text: &[char], words: &mut [Word], fixed: &[Span]) {
    let mut known: HashMap<String, (Entity, f32)> = HashMap::new();
    for word in words.iter() {
        if let Some(entity @ (Entity::GivenName | Entity::Surname)) = word.entity
            && word.score >= REPEATED
            && word.end - word.start >= 3
            && is_capitalised(text, word)
        {
            known.entry(lower(text, word)).or_insert((entity, 0.01));
        }
    }
    for span in fixed.iter().filter(|span| span.label.as_str() == "EMAIL") {
        let address: String = text[span.start..span.end].iter().collect();
        let local = address.split('@').next().unwrap_or_default().to_lowercase();
        for part in local.split(|c: char| !c.is_alphabetic()).filter(|part| part.chars().count() >= 3) {
            known.entry(part.to_owned()).or_insert((Entity::Surname, 0.05));
        }
    }
    for word in words.iter_mut().filter(|word| word.entity.is_none()) {
        if !text[word.start].is_uppercase() {
            continue;
        }
        let Some(&(entity, least)) = known.get(&lower(text, word)) else { continue };
        let (given, surname) = (word.probability(Entity::GivenName), word.probability(Entity::Surname));
        if given + surname >= least {
            let entity = if least > 0.01 && given > surname { Entity::GivenName } else { entity };
            word.set(entity, 0.5);
        }
    }
}
