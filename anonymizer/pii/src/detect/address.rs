//! Addresses: their parts stand together, and some of them have a fixed form.

use super::decode::Found;
use super::entity::Entity;
use super::names::ANNOUNCED;
use super::postcodes::is_postcode;
use super::span::{Source, Span};
use super::words::Word;
use crate::lexicon::lexicon;

/// How far a part may stand from the next part of the same address, in code points.
const NEAR: usize = 24;

pub(super) fn lower(chars: &[char]) -> String {
    chars.iter().flat_map(|c| c.to_lowercase()).collect()
}

pub(super) fn is_capitalised(text: &[char], word: &Word) -> bool {
    text[word.start].is_uppercase()
}

/// `<number> <Capitalised>{1,3} <street word>`, and the street word after a name the model half knows.
pub(super) fn streets(text: &[char], words: &mut [Word]) {
    for last in 1..words.len() {
        let ending = lower(&text[words[last].start..words[last].end]);
        let unmistakable = lexicon().street_words_only.contains(&ending);
        if !lexicon().street_words.contains(&ending) || !(unmistakable || is_capitalised(text, &words[last]))
        {
            continue;
        }
        let mut first = last;
        while first > 0
            && last - first < 4
            && text.get(words[first - 1].end..words[first].start) == Some(&[' '])
            && (is_capitalised(text, &words[first - 1]) || is_ordinal(text, &words[first - 1]))
        {
            first -= 1;
        }
        let number = first.checked_sub(1).filter(|&i| {
            text.get(words[i].end..words[first].start) == Some(&[' ']) && is_house_number(text, &words[i])
        });
        let street = |word: &Word| word.probability(Entity::StreetName);
        let likely = words[first..=last].iter().map(street).fold(0.0f32, f32::max);
        if first == last || (number.is_none() && likely < 0.15 && !unmistakable) {
            continue;
        }
        // Without a number before, the sentence's first words may be capitalised for other reasons.
        let first = if number.is_some() { first } else { first.max(last.saturating_sub(2)) };
        let named =
            |word: &Word| matches!(word.entity, Some(Entity::GivenName | Entity::Surname | Entity::City));
        if number.is_none()
            && !unmistakable
            && words[first..last].iter().any(|word| named(word) && word.score > 0.9)
        {
            continue;
        }
        if let Some(next) = words.get_mut(last + 1)
            && next.entity == Some(Entity::StreetName)
            && text[next.start].is_lowercase()
        {
            next.clear();
        }
        for word in &mut words[first..=last] {
            let score = street(word).max(0.6);
            word.set(Entity::StreetName, score);
        }
        if let Some(number) = number {
            let score = words[number].probability(Entity::BuildingNumber).max(0.6);
            words[number].set(Entity::BuildingNumber, score);
        }
    }
}

/// `5th`, `42nd`.
fn is_ordinal(text: &[char], word: &Word) -> bool {
    let inside = lower(&text[word.start..word.end]);
    let digits = inside.trim_start_matches(|c: char| c.is_ascii_digit());
    digits.len() < inside.len() && matches!(digits, "st" | "nd" | "rd" | "th")
}

/// `12`, `12B`, `1204`, `12-14`.
pub(super) fn is_house_number(text: &[char], word: &Word) -> bool {
    let inside = &text[word.start..word.end];
    inside.len() <= 6
        && inside[0].is_ascii_digit()
        && !inside.contains(&'.')
        && inside.iter().filter(|c| c.is_alphabetic()).count() <= 1
        && !is_ordinal(text, word)
}

/// Probability of being a place from which a word after one of them is a city.
const HOME: f32 = 0.1;

/// The town after "lives in" and the like, also in lower case.
pub(super) fn homes(text: &[char], words: &mut [Word]) {
    for word in words.iter_mut().filter(|word| word.entity.is_none()) {
        let place = word.probability(Entity::City) + word.probability(Entity::State);
        if place >= HOME && lexicon().home_phrases.iter().any(|phrase| announced(text, word.start, phrase)) {
            word.set(Entity::City, place);
        }
    }
}

/// A word taken for a street, alone on the line below one, is a city.
pub(super) fn cities_below_streets(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let below = text.get(words[i - 1].end..words[i].start) == Some(&['\n']);
        let part = matches!(words[i - 1].entity, Some(Entity::StreetName | Entity::BuildingNumber));
        let alone = text.get(words[i].end).is_none_or(|c| matches!(c, '\n' | ','));
        if below && part && alone && words[i].entity == Some(Entity::StreetName) {
            words[i].entity = Some(Entity::City);
        }
    }
}

/// "Flight LX 1578" is no street.
pub(super) fn flights(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        if lower(&text[words[i].start..words[i].end]) != "flight" {
            continue;
        }
        let end = (i + 3).min(words.len());
        for word in &mut words[i..end] {
            if matches!(word.entity, Some(Entity::StreetName | Entity::BuildingNumber | Entity::City)) {
                word.clear();
            }
        }
    }
}

/// A number at the end of a street's name is the building's, unless one precedes.
pub(super) fn house_numbers(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let is_street = |word: &Word| word.entity == Some(Entity::StreetName);
        let ends = words.get(i + 1).is_none_or(|next| !is_street(next));
        let joined = text.get(words[i - 1].end..words[i].start) == Some(&[' ']);
        let digits = text[words[i].start].is_ascii_digit() && is_house_number(text, &words[i]);
        if !(ends && joined && digits && is_street(&words[i]) && is_street(&words[i - 1])) {
            continue;
        }
        let first = (0..i).rev().take_while(|&j| is_street(&words[j])).last().unwrap_or(i);
        let numbered = first > 0 && words[first - 1].entity == Some(Entity::BuildingNumber);
        let named =
            lexicon().streets_with_numbers.contains(&lower(&text[words[i - 1].start..words[i - 1].end]));
        if !numbered && !named {
            words[i].entity = Some(Entity::BuildingNumber);
        }
    }
}

/// Abbreviations and names of US states after a city or before a postcode.
pub(super) fn states(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        let inside: String = text[words[i].start..words[i].end].iter().collect();
        let behind_city = (0..i).rev().find(|&j| words[j].entity.is_some()).is_some_and(|j| {
            words[j].entity == Some(Entity::City) && is_gap(&text[words[j].end..words[i].start])
        });
        // "Austin, TX": the abbreviation confirms a city that the model half believes in.
        let confirms = i > 0
            && text.get(words[i - 1].end..words[i].start) == Some(&[',', ' '])
            && words[i - 1].entity.is_none()
            && words[i - 1].probability(Entity::City) >= 0.1
            && lexicon().is_state_code(&inside);
        if confirms {
            words[i - 1].set(Entity::City, ANNOUNCED);
        }
        let behind_city = behind_city || confirms;
        let before_zip = (i + 1..words.len()).find(|&j| words[j].entity.is_some()).is_some_and(|j| {
            words[j].entity == Some(Entity::ZipCode) && is_gap(&text[words[i].end..words[j].start])
        });
        let behind_word =
            announced(text, words[i].start, "state") || announced(text, words[i].start, "state of");
        let personal = words[i].personal();
        // In texts without capitals ("boston ma 02108") the model has to agree.
        let any_case = words[i].probability(Entity::State) >= 0.1;
        let is_state = lexicon().states.iter().any(|(short, long)| {
            ((inside == *short || any_case && inside.eq_ignore_ascii_case(short))
                && (behind_city || before_zip || behind_word))
                || (inside == *long && (behind_city || before_zip || behind_word || personal >= 0.2))
        });
        // "Bengaluru, Karnataka 560001", "69002 Lyon, Auvergne": what the model takes for a second city.
        let second = words[i].entity == Some(Entity::City) && behind_city && {
            let mut labelled = (0..i).rev().filter(|&j| words[j].entity.is_some());
            let city_start = labelled.next().map_or(0, |j| words[j].start);
            let zip = labelled.next().is_some_and(|j| {
                words[j].entity == Some(Entity::ZipCode) && is_gap(&text[words[j].end..city_start])
            });
            let comma = text[..words[i].start].iter().rev().take(2).any(|c| *c == ',');
            comma && (zip || before_zip)
        };
        let abbreviated = behind_city && lexicon().is_state_code(&inside);
        let other = match words[i].entity {
            Some(Entity::StreetName) => true,
            Some(Entity::City) => !abbreviated,
            _ => false,
        };
        if second || is_state && !other {
            let score = words[i].probability(Entity::State).max(0.6);
            words[i].set(Entity::State, score);
        }
    }
}

/// A comma, a space, or both.
pub(super) fn is_gap(gap: &[char]) -> bool {
    gap.len() <= 3 && gap.iter().all(|c| matches!(c, ',' | ' '))
}

/// Whether a phrase (lower case) precedes `at`, with nothing but punctuation and spaces between.
fn announced(text: &[char], at: usize, phrase: &str) -> bool {
    let before = lower(&text[at.saturating_sub(16)..at]);
    let before = before.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '\n');
    before.strip_suffix(phrase).is_some_and(|rest| !rest.ends_with(char::is_alphanumeric))
}

fn preceded_by(text: &[char], at: usize, phrases: &[&str]) -> bool {
    let before = lower(&text[at.saturating_sub(12)..at]);
    phrases.iter().any(|phrase| before.trim_end().ends_with(phrase))
}

/// Takes capitalised words between a building number and a street name into the latter.
#[allow(clippy::ptr_arg, reason = "rules of a stage have one type")]
pub(super) fn extend_streets(text: &[char], found: &mut Vec<Found>) {
    found.sort_by_key(|found| (found.start, found.end));
    for i in 1..found.len() {
        let (before, rest) = found.split_at_mut(i);
        let (number, street) = (&before[i - 1], &mut rest[0]);
        if number.entity != Entity::BuildingNumber || street.entity != Entity::StreetName {
            continue;
        }
        let gap = &text[number.end..street.start];
        let name: String = gap.iter().collect();
        let capitalised = |word: &str| word.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit());
        if gap.len() <= NEAR
            && !gap.contains(&'\n')
            && !gap.contains(&',')
            && !name.trim().is_empty()
            && name.split_whitespace().all(capitalised)
        {
            street.start = number.end + 1;
        }
    }
}

/// Takes "ul." and the like before a street into its name, and the number after "No:" for the building's.
pub(super) fn prefixed_streets(text: &[char], found: &mut Vec<Found>) {
    let streets: Vec<usize> = (0..found.len()).filter(|&i| found[i].entity == Entity::StreetName).collect();
    for i in streets {
        let (start, end) = (found[i].start, found[i].end);
        let before = &text[start.saturating_sub(10)..start];
        let word: Vec<char> =
            before.iter().rev().skip(1).take_while(|c| !c.is_whitespace()).copied().collect();
        let length = word.len();
        let word: String = word.into_iter().rev().flat_map(char::to_lowercase).collect();
        let free = !found.iter().any(|found| found.overlaps(start.saturating_sub(length + 1), start));
        if before.last() == Some(&' ') && lexicon().street_prefixes.contains(&word) && free {
            found[i].start = start - length - 1;
        }
        let following = lower(&text[end..text.len().min(end + 6)]);
        let Some(marker) =
            [" no: ", " no. ", ", no. ", " nr. ", " no "].iter().find(|m| following.starts_with(**m))
        else {
            continue;
        };
        let from = end + marker.len();
        let to = (from..text.len()).find(|&at| !text[at].is_ascii_alphanumeric()).unwrap_or(text.len());
        let taken = found.iter().any(|found| found.overlaps(from, to));
        if !taken && to > from && to - from <= 5 && text[from].is_ascii_digit() {
            let (entity, source) = (Entity::BuildingNumber, Source::Context);
            found.push(Found { start: from, end: to, entity, score: 0.7, source });
        }
    }
}

/// Confidence below which a street counts only next to another part of an address.
const SURE_STREET: f32 = 0.5;

/// Drops streets that the model is unsure of and that stand alone.
pub(super) fn lone_streets(_text: &[char], found: &mut Vec<Found>) {
    let parts: Vec<(usize, usize)> = found
        .iter()
        .filter(|part| {
            matches!(
                part.entity,
                Entity::BuildingNumber | Entity::City | Entity::ZipCode | Entity::SecondaryAddress
            )
        })
        .map(|part| (part.start, part.end))
        .collect();
    found.retain(|street| {
        street.entity != Entity::StreetName
            || street.score >= SURE_STREET
            || parts.iter().any(|&(start, end)| distance(street, start, end) <= NEAR)
    });
}

/// Drops numbers that the model alone takes for postcodes and that stand alone.
pub(super) fn lone_codes(text: &[char], found: &mut Vec<Found>) {
    let parts: Vec<(usize, usize)> = found
        .iter()
        .filter(|part| {
            matches!(
                part.entity,
                Entity::StreetName | Entity::City | Entity::State | Entity::SecondaryAddress
            )
        })
        .map(|part| (part.start, part.end))
        .collect();
    found.retain(|code| {
        let number = text[code.start..code.end].iter().all(|c| c.is_ascii_digit() || *c == '-');
        let before = lower(&text[code.start.saturating_sub(NEAR)..code.start]);
        let said = lexicon().postcode_words.iter().any(|word| {
            before.match_indices(word).any(|(at, _)| {
                let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
                !letter(before[..at].chars().next_back()) && !letter(before[at + word.len()..].chars().next())
            })
        });
        code.entity != Entity::ZipCode
            || code.source != Source::Model
            || !number
            || said
            || parts.iter().any(|&(start, end)| distance(code, start, end) <= NEAR)
    });
}

/// The number after a street whose name ends as German or Dutch ones do.
pub(super) fn numbers_behind_streets(text: &[char], words: &[Word], found: &mut Vec<Found>, fixed: &[Span]) {
    let mut added = Vec::new();
    for pair in words.windows(2) {
        let ending = lower(&text[pair[0].start..pair[0].end]);
        let is_street = lexicon()
            .street_endings_sure
            .iter()
            .any(|end| ending.ends_with(end) && ending.len() > end.len() + 2);
        let next = &pair[1];
        let taken = found.iter().any(|found| found.overlaps(next.start, next.end))
            || fixed.iter().any(|span| span.start < next.end && next.start < span.end);
        if is_street && !taken && text[pair[0].end..next.start] == [' '] && is_house_number(text, next) {
            added.push(Found {
                start: next.start,
                end: next.end,
                entity: Entity::BuildingNumber,
                score: 0.6,
                source: Source::Context,
            });
        }
    }
    found.extend(added);
}

/// `Apt 4B`, `Suite 200`, `#12` near another part of an address.
pub(super) fn units(text: &[char], found: &mut Vec<Found>, fixed: &[Span]) {
    let mut at = 0;
    while at < text.len() {
        let Some((start, end)) = unit_at(text, at) else {
            at += 1;
            continue;
        };
        at = end;
        let is_part = |found: &Found| {
            matches!(
                found.entity,
                Entity::StreetName | Entity::City | Entity::ZipCode | Entity::BuildingNumber
            ) && !found.overlaps(start, end)
                && distance(found, start, end) <= if text[start] == '#' { 2 } else { NEAR }
        };
        let taken = fixed.iter().any(|span| span.start < end && start < span.end);
        let streets = |found: &Found| {
            found.entity == Entity::SecondaryAddress && found.overlaps(start, end) || is_part(found)
        };
        if taken || !found.iter().any(streets) {
            continue;
        }
        let score = found.iter().filter(|found| found.overlaps(start, end)).map(|found| found.score);
        let score = score.fold(0.7f32, f32::max);
        found.retain(|found| !found.overlaps(start, end) || found.start < start || found.end > end);
        // A street that runs into the unit ends before it.
        for street in found.iter_mut().filter(|found| found.start < start && found.end > start) {
            street.end = start;
        }
        if found.iter().any(|found| found.overlaps(start, end)) {
            continue;
        }
        let (entity, source) = (Entity::SecondaryAddress, Source::Context);
        found.push(Found { start, end, entity, score, source });
    }
}

/// Postcodes of letters and digits after a city, which the model takes for parts of buildings.
#[allow(clippy::ptr_arg, reason = "rules of a stage have one type")]
pub(super) fn postcodes(text: &[char], found: &mut Vec<Found>) {
    found.sort_by_key(|found| (found.start, found.end));
    for i in 1..found.len() {
        let inside = &text[found[i].start..found[i].end];
        let mixed =
            inside[0].is_ascii_uppercase() && inside.iter().any(char::is_ascii_digit) && inside.len() >= 6;
        let before = &found[i - 1];
        let behind_city = matches!(before.entity, Entity::City | Entity::State)
            && before.end <= found[i].start
            && is_gap(&text[before.end..found[i].start]);
        if found[i].entity == Entity::SecondaryAddress && mixed && behind_city && is_postcode(inside) {
            found[i].entity = Entity::ZipCode;
        }
    }
}

/// `3rd floor`, `Ground floor` that begin at `at`.
fn floor_at(text: &[char], at: usize) -> Option<(usize, usize)> {
    let window = lower(&text[at..text.len().min(at + 14)]);
    let (storey, rest) = window.split_once(' ')?;
    let digits = storey.trim_end_matches(|c: char| c.is_alphabetic());
    let ordinal = !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit())
        && matches!(&storey[digits.len()..], "st" | "nd" | "rd" | "th");
    let known = matches!(storey, "ground" | "first" | "second" | "third" | "fourth" | "fifth" | "top");
    let whole = !rest.strip_prefix("floor")?.starts_with(char::is_alphanumeric);
    ((ordinal || known) && whole).then(|| (at, at + storey.chars().count() + " floor".len()))
}

fn distance(found: &Found, start: usize, end: usize) -> usize {
    if found.end <= start { start - found.end } else { found.start.saturating_sub(end) }
}

/// A unit's name and number that begin at `at`.
fn unit_at(text: &[char], at: usize) -> Option<(usize, usize)> {
    if at > 0 && text[at - 1].is_alphanumeric() {
        return None;
    }
    if let Some(floor) = floor_at(text, at) {
        return Some(floor);
    }
    let window = lower(&text[at..text.len().min(at + 10)]);
    let unit =
        lexicon().units.iter().filter(|unit| window.starts_with(unit)).max_by_key(|unit| unit.len())?;
    let mut number = at + unit.chars().count();
    if unit != "#" && text.get(number).is_some_and(|c| c.is_alphanumeric()) {
        return None;
    }
    while matches!(text.get(number), Some('.' | ' ' | '#')) && number - at < 14 {
        number += 1;
    }
    let mut end = number;
    while end < text.len() && (text[end].is_ascii_alphanumeric() || (text[end] == '-' && end > number)) {
        end += 1;
    }
    let value = &text[number..end];
    let has_digit = value.iter().any(|c| c.is_ascii_digit());
    let is_letter = value.len() == 1 && value[0].is_ascii_uppercase();
    ((has_digit || is_letter) && value.len() <= 6).then_some((at, end))
}

/// Drops building numbers without a street or another part of an address close by.
pub(super) fn lone_numbers(text: &[char], found: &mut Vec<Found>) {
    let parts: Vec<(usize, usize, Entity)> = found.iter().map(|f| (f.start, f.end, f.entity)).collect();
    found.retain(|candidate| {
        if candidate.entity != Entity::BuildingNumber || candidate.source == Source::Context {
            return true;
        }
        let near = parts.iter().any(|&(start, end, entity)| {
            let gap = if end <= candidate.start {
                candidate.start - end
            } else {
                start.saturating_sub(candidate.end)
            };
            matches!(entity, Entity::StreetName | Entity::SecondaryAddress | Entity::City | Entity::ZipCode)
                && gap <= 3
        });
        near || preceded_by(text, candidate.start, &["number:", "no:", "house"])
    });
}
