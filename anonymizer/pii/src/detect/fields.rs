//! Forms, JSON, XML and the like: the name of a field says what its value is.

use super::entity::Entity;
use super::words::Word;
use crate::lexicon::{Column, lexicon};

/// Probability of being personal from which a word is a field's value.
const LEAST: f32 = 0.05;
/// Code points of the longest field name and what separates it from its value.
const REACH: usize = 40;

/// The name of a field is no value.
pub(super) fn names(text: &[char], words: &mut [Word]) {
    for word in words.iter_mut().filter(|word| word.entity.is_some()) {
        let name: String = text[word.start..word.end].iter().collect();
        let following: String = text[word.end..].iter().take(4).collect();
        let named = following.starts_with(':') || following == " ..." || following.starts_with("...");
        if named && lexicon().column(&name).is_some() {
            word.clear();
        }
    }
}

/// Gives words directly after a field's name, and those that go on with them, the field's type.
pub(super) fn values(text: &[char], words: &mut [Word]) {
    for first in 0..words.len() {
        let Some(entity) = field(text, words[first].start) else { continue };
        let mut last = first;
        while last < words.len() && words[last].personal() >= LEAST && is_value(text, &words[last]) {
            let goes_on = last == first
                || text.get(words[last - 1].end..words[last].start) == Some(&[' '])
                    && words[last].entity.is_some();
            if !goes_on {
                break;
            }
            let score = words[last].probability(entity).max(0.6);
            words[last].set(entity, score);
            last += 1;
        }
    }
}

fn is_value(text: &[char], word: &Word) -> bool {
    let inside = &text[word.start..word.end];
    inside[0].is_alphabetic() && !inside.iter().any(char::is_ascii_digit)
}

/// The type of the field whose value begins at `at`: its name, then a colon, an equals sign, a wide gap, dots that lead
/// to the value, or the end of a tag.
fn field(text: &[char], at: usize) -> Option<Entity> {
    let before = &text[at.saturating_sub(REACH)..at];
    let line = before.iter().rposition(|c| *c == '\n').map_or(0, |end| end + 1);
    let before = &before[line..];
    let name_end = before.iter().rposition(|c| c.is_alphanumeric())? + 1;
    let gap: String = before[name_end..].iter().collect();
    let tag = gap == ">";
    let separated = tag || [":", "=", "   ", "\t", "..."].iter().any(|mark| gap.contains(mark));
    let clean = gap.chars().all(|c| matches!(c, ':' | '=' | ' ' | '"' | '\'' | '\t' | '[' | '.')) || tag;
    if !separated || !clean {
        return None;
    }
    let foreign = |c: char| !(c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '\'' | '\u{2019}'));
    let name: String = before[..name_end].iter().collect();
    let name = name.rsplit(foreign).next().unwrap_or_default();
    let opened = before[..name_end].iter().rev().nth(name.chars().count());
    match lexicon().column(name) {
        Some(Column::Is(entity)) if is_worded(entity) => Some(entity),
        _ if tag || opened == Some(&'"') => match name {
            "first" => Some(Entity::GivenName),
            "last" => Some(Entity::Surname),
            _ => None,
        },
        _ => None,
    }
}

/// Types whose values are words; of numbers, the keywords of [`super::context`] take care.
fn is_worded(entity: Entity) -> bool {
    matches!(entity, Entity::GivenName | Entity::Surname | Entity::City | Entity::State)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_separator_make_a_field() {
        let at = |text: &str, value: &str| {
            let start = text[..text.find(value).unwrap()].chars().count();
            field(&text.chars().collect::<Vec<_>>(), start)
        };
        assert_eq!(at("First name: Ann", "Ann"), Some(Entity::GivenName));
        assert_eq!(at("{\"family_name\":\"Lee\"}", "Lee"), Some(Entity::Surname));
        assert_eq!(at("{\"given\":[\"Ann\"]}", "Ann"), Some(Entity::GivenName));
        assert_eq!(at("<last>Lee</last>", "Lee"), Some(Entity::Surname));
        assert_eq!(at("Last name ...... Lee", "Lee"), Some(Entity::Surname));
        assert_eq!(at("2. Town        Leeds", "Leeds"), Some(Entity::City));
        assert_eq!(at("the city Leeds", "Leeds"), None);
        assert_eq!(at("City\nLeeds", "Leeds"), None);
        assert_eq!(at("capacity: Leeds", "Leeds"), None);
        assert_eq!(at("first: Leeds", "Leeds"), None);
    }
}
