//! Forms, JSON and the like: the name of a field says what its value is.

use super::span::Entity;
use super::words::Word;

/// Names of fields in lower case, spaces for any separator.
const FIELDS: &[(&str, Entity)] = &[
    ("first name", Entity::GivenName),
    ("firstname", Entity::GivenName),
    ("given name", Entity::GivenName),
    ("given names", Entity::GivenName),
    ("forename", Entity::GivenName),
    ("prénom", Entity::GivenName),
    ("vorname", Entity::GivenName),
    ("surname", Entity::Surname),
    ("last name", Entity::Surname),
    ("lastname", Entity::Surname),
    ("family name", Entity::Surname),
    ("nachname", Entity::Surname),
    ("apellido", Entity::Surname),
    ("cognome", Entity::Surname),
    ("city", Entity::City),
    ("town", Entity::City),
    ("home town", Entity::City),
    ("hometown", Entity::City),
    ("place of birth", Entity::City),
    ("birthplace", Entity::City),
    ("geburtsort", Entity::City),
    ("wohnort", Entity::City),
    ("ville", Entity::City),
    ("ciudad", Entity::City),
    ("province", Entity::State),
    ("bundesland", Entity::State),
    ("county", Entity::State),
];

/// Probability of being personal from which a word is a field's value.
const LEAST: f32 = 0.05;
/// Code points of the longest field name and what separates it from its value.
const REACH: usize = 28;

/// Gives words directly behind a field's name, and those that go on with them, the field's type.
pub(super) fn refine(text: &[char], words: &mut [Word]) {
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

/// The type of the field whose value begins at `at`: its name, quotation marks perhaps, a colon or a wide gap.
fn field(text: &[char], at: usize) -> Option<Entity> {
    let before: Vec<char> =
        text[at.saturating_sub(REACH)..at].iter().flat_map(|c| c.to_lowercase()).collect();
    let line = before.iter().rposition(|c| *c == '\n').map_or(0, |end| end + 1);
    let before = &before[line..];
    let name_end = before.iter().rposition(|c| c.is_alphanumeric())? + 1;
    let gap: String = before[name_end..].iter().collect();
    let separated = gap.contains(':') || gap.contains('=') || gap.contains("   ");
    let clean = gap.chars().all(|c| matches!(c, ':' | '=' | ' ' | '"' | '\'' | '\t'));
    if !separated || !clean {
        return None;
    }
    let name: String =
        before[..name_end].iter().map(|c| if matches!(c, '_' | '-') { ' ' } else { *c }).collect();
    FIELDS
        .iter()
        .filter(|(field, _)| {
            name.strip_suffix(field).is_some_and(|rest| !rest.ends_with(char::is_alphanumeric))
        })
        .max_by_key(|(field, _)| field.len())
        .map(|(_, entity)| *entity)
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
        assert_eq!(at("2. Town        Leeds", "Leeds"), Some(Entity::City));
        assert_eq!(at("the city Leeds", "Leeds"), None);
        assert_eq!(at("City\nLeeds", "Leeds"), None);
        assert_eq!(at("capacity: Leeds", "Leeds"), None);
    }
}
