//! Finds that count only in a text where something else is surely personal.
//!
//! A bare number and a rare word look personal in a letter. In a recipe, a changelog or a parts list the same number is an
//! article's and the same word a brand: what the model finds there, it finds alone.

use super::entity::{Entity, Kind};
use super::span::{Source, Span};
use crate::recognizers::url::{Told, told};

/// Confidence in a name or place from which a text speaks of a person.
const SURE: f32 = 0.8;
/// What the threshold is multiplied by for a name or place that nothing else speaks for.
const ALONE: f32 = 1.5;
/// The same for one in small letters: `toml`, `toy`, `daemon` in texts about programs.
const SMALL: f32 = 2.0;

/// Drops the doubtful spans of a text that has no sure one.
///
/// Sure are: what a keyword or a column names, recognizers' spans but for addresses of machines, links and secrets, and names
/// and places from a confidence of 0.8. Doubtful are numbers that only the model takes for identifiers, and names,
/// places but for states, and phone numbers below 1.5 times `threshold`.
///
/// A name or place in small letters, of a script that has capitals, counts from 2 times `threshold` only, unless its place
/// says that it is a person: who speaks, more than once (`lena: are you coming?`), or has something to do (`TODO(pedro)`).
pub(super) fn retain(text: &[char], spans: &mut Vec<Span>, threshold: f32) {
    if spans.iter().any(is_sure) {
        return;
    }
    let word = |span: &Span| text[span.start..span.end].to_vec();
    let lines: Vec<Vec<char>> = spans.iter().filter(|span| begins_line(text, span)).map(word).collect();
    let speaks = |span: &Span| lines.iter().filter(|name| **name == text[span.start..span.end]).count() > 1;
    spans.retain(|span| {
        let small = text[span.start].is_lowercase() && !speaks(span) && !has_to_do(text, span);
        !is_doubtful(span, threshold * if small { SMALL } else { ALONE })
    });
}

/// Whether a line begins with the span and a colon.
fn begins_line(text: &[char], span: &Span) -> bool {
    let first = span.start == 0 || text[span.start - 1] == '\n';
    first && text.get(span.end) == Some(&':')
}

/// Whether the span is whom a comment of a program names: `TODO(pedro)`, `FIXME(ann)`.
fn has_to_do(text: &[char], span: &Span) -> bool {
    let marks = ["TODO(", "FIXME(", "XXX(", "HACK("];
    let before: String = text[span.start.saturating_sub(6)..span.start].iter().collect();
    marks.iter().any(|mark| before.ends_with(mark))
}

/// Drops web addresses that say nothing of a person: those of public hosts, and in a text that has no other personal data
/// all that do not name an account, lead to a profile or hold a person's data in their query.
pub(crate) fn retain_links(text: &[char], spans: &mut Vec<Span>) {
    let is_link = |span: &Span| span.label.as_str() == Entity::Url.as_str();
    if !spans.iter().any(is_link) {
        return;
    }
    let of_person = |span: &Span| {
        let entity = Entity::from_label(span.label.as_str());
        entity.is_some_and(|entity| matches!(entity.spec().kind, Kind::Name | Kind::Place))
    };
    let personal = spans.iter().any(|span| !is_link(span) && (is_sure(span) || of_person(span)));
    spans.retain(|span| {
        if !is_link(span) {
            return true;
        }
        let address: String = text[span.start..span.end].iter().collect();
        match told(&address) {
            Told::Person => true,
            Told::Nothing => false,
            Told::Unknown => personal,
        }
    });
}

fn is_sure(span: &Span) -> bool {
    let entity = Entity::from_label(span.label.as_str());
    if entity.is_some_and(Entity::is_quiet) {
        return false;
    }
    match span.source {
        Source::Model => span.score >= SURE && !entity.is_some_and(Entity::is_number),
        Source::Context => true,
        Source::Recognizer(_) => !matches!(entity, Some(Entity::IpAddress | Entity::Url | Entity::Secret)),
    }
}

fn is_doubtful(span: &Span, limit: f32) -> bool {
    let entity = Entity::from_label(span.label.as_str());
    let number = entity.is_some_and(|entity| entity.is_number() && entity != Entity::PhoneNumber);
    // There are few states, and their names are hardly anything else.
    let certain = entity == Some(Entity::State);
    span.source == Source::Model && !certain && (number || span.score < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spans: &[(Entity, Source, f32)]) -> Vec<Entity> {
        let span = |(at, (entity, source, score)): (usize, &(Entity, Source, f32))| Span {
            start: at,
            end: at + 1,
            label: (*entity).into(),
            score: *score,
            source: source.clone(),
        };
        let mut spans: Vec<Span> = spans.iter().enumerate().map(span).collect();
        retain(&['X'; 16], &mut spans, 0.4);
        spans.iter().filter_map(|span| Entity::from_label(span.label.as_str())).collect()
    }

    #[test]
    fn links_count_where_they_tell_of_a_person() {
        let kept = |text: &str, other: Option<Entity>| {
            let chars: Vec<char> = text.chars().collect();
            let recognized = |start, end, entity: Entity| Span {
                start,
                end,
                label: entity.into(),
                score: 1.0,
                source: Source::Recognizer("r".into()),
            };
            let mut spans = vec![recognized(0, chars.len(), Entity::Url)];
            spans.extend(other.map(|entity| recognized(0, 1, entity)));
            retain_links(&chars, &mut spans);
            spans.iter().any(|span| span.label == Entity::Url.into())
        };
        assert!(kept("https://social.example/@ann", None));
        assert!(!kept("https://docs.rs/serde", Some(Entity::Email)));
        assert!(!kept("https://annlee.example/about", None));
        assert!(kept("https://annlee.example/about", Some(Entity::Email)));
        assert!(!kept("https://annlee.example/about", Some(Entity::IpAddress)));
    }

    #[test]
    fn a_name_in_small_letters_alone_has_to_be_surer() {
        let kept = |text: &str, starts: &[usize]| {
            let span = |&start: &usize| Span {
                start,
                end: start + 4,
                label: Entity::GivenName.into(),
                score: 0.7,
                source: Source::Model,
            };
            let text: Vec<char> = text.chars().chain("   ".chars()).collect();
            let mut spans: Vec<Span> = starts.iter().map(span).collect();
            retain(&text, &mut spans, 0.4);
            spans.len()
        };
        assert_eq!((kept("Toml", &[0]), kept("李明", &[0]), kept("toml", &[0])), (1, 1, 0));
        assert_eq!(kept("lena: hi\nlena: lena's bag", &[0, 9, 15]), 3);
        assert_eq!(kept("toml: hi\nthe toml", &[0, 13]), 0);
        assert_eq!(kept("# TODO(anna): delete", &[7]), 1);
    }

    #[test]
    fn bare_numbers_and_rare_words_need_company() {
        let number = (Entity::TaxId, Source::Model, 0.9);
        let word = (Entity::City, Source::Model, 0.3);
        let name = |score| (Entity::GivenName, Source::Model, score);
        assert_eq!(kept(&[number.clone(), word.clone()]), []);
        assert_eq!(kept(&[number.clone(), name(0.7)]), [Entity::GivenName]);
        assert_eq!(kept(&[number.clone(), word.clone(), name(0.85)]).len(), 3);
        let recognized = |entity| (entity, Source::Recognizer("r".into()), 1.0);
        assert_eq!(kept(&[word.clone(), recognized(Entity::Email)]).len(), 2);
        assert_eq!(kept(&[word.clone(), recognized(Entity::IpAddress)]), [Entity::IpAddress]);
        assert_eq!(kept(&[number.clone(), (Entity::Passport, Source::Context, 0.75)]).len(), 2);
        assert_eq!(kept(&[name(0.65)]), [Entity::GivenName]);
        let company = (Entity::Organization, Source::Model, 0.9);
        assert_eq!(kept(&[number.clone(), company]), [Entity::Organization], "a company is no person");
        let phone = |score| (Entity::PhoneNumber, Source::Model, score);
        assert_eq!(kept(&[phone(0.9), number.clone()]), [Entity::PhoneNumber]);
        assert_eq!(kept(&[phone(0.4), (Entity::State, Source::Model, 0.3)]), [Entity::State]);
    }
}
