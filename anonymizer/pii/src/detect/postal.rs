//! Parts of addresses that show by where they stand, as the postal services of the countries write them.
//!
//! The model knows these forms, but its confidence hangs on whether it knows the names in them; the form does not.

use super::address::{is_capitalised, is_gap, is_house_number, lower};
use super::entity::Entity;
use super::names::ANNOUNCED;
use super::postcodes::is_postcode;
use super::words::Word;
use crate::lexicon::lexicon;

/// Letters before such an end.
const STEM: usize = 3;

/// Probability of being a street from which one that has the form of one is one.
const SUSPECTED: f32 = 0.05;
/// Words of the longest name of a street or town.
const LONGEST: usize = 6;
/// Confidence in what only the form says.
const SCORE: f32 = ANNOUNCED;

/// Labels the parts of addresses that have such a form.
pub(super) fn forms(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        numbered(text, words, i);
        prefixed(text, words, i);
        state_and_code(text, words, i);
        compound(text, words, i);
        number_in_front(text, words, i);
        opened(text, words, i);
        dated(text, words, i);
    }
}

/// Labels postcodes and towns after streets.
pub(super) fn codes_and_towns(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        code_and_town(text, words, i);
    }
}

/// `Lyon, le 3 mai`, `Nyköping den 2 mars`: word `i` is the place of a letter, if the model half believes it.
fn dated(text: &[char], words: &mut [Word], i: usize) {
    if words[i].entity.is_some_and(|entity| entity != Entity::Surname) || !is_capitalised(text, &words[i]) {
        return;
    }
    let rest: String = text[words[i].end..].iter().take(16).collect();
    let rest = rest.strip_prefix(',').unwrap_or(&rest).trim_start_matches(' ');
    let day = lexicon().letter_dating.iter().find_map(|word| rest.strip_prefix(word)?.strip_prefix(' '));
    let Some(day) = day else { return };
    let number = day.chars().take_while(char::is_ascii_digit).count();
    let following = day[number..].trim_start_matches(['.', ' ']);
    let month = following.starts_with(char::is_alphabetic);
    if (1..=2).contains(&number) && month && words[i].probability(Entity::City) >= PLACED {
        set(&mut words[i], Entity::City);
    }
}

/// Probability of being a city from which a word before a day is where a letter was written.
const PLACED: f32 = 0.03;

fn set(word: &mut Word, entity: Entity) {
    word.set(entity, word.probability(entity).max(SCORE));
}

fn lowered(text: &[char], word: &Word) -> String {
    lower(&text[word.start..word.end])
}

fn gap<'a>(text: &'a [char], words: &[Word], i: usize) -> &'a [char] {
    text.get(words[i - 1].end..words[i].start).unwrap_or_default()
}

fn suspected(words: &[Word]) -> bool {
    words.iter().any(|word| word.probability(Entity::StreetName) >= SUSPECTED)
}

/// `4759 William Haven`, `12 Kelly mews`: word `i` is the number.
fn numbered(text: &[char], words: &mut [Word], i: usize) {
    if !is_house_number(text, &words[i]) {
        return;
    }
    let last = (i + 2..words.len().min(i + 5)).find(|&last| {
        let word = lowered(text, &words[last]);
        let suffix = lexicon().street_suffixes.contains(&word)
            || !is_capitalised(text, &words[last]) && lexicon().street_words.contains(&word);
        // The first suffix that no other follows: "Lake View".
        suffix
            && (i + 1..=last).all(|j| gap(text, words, j) == [' '])
            && (i + 1..last).all(|j| is_capitalised(text, &words[j]))
    });
    let Some(last) = last else { return };
    if suspected(&words[i + 1..=last]) {
        set(&mut words[i], Entity::BuildingNumber);
        words[i + 1..=last].iter_mut().for_each(|word| set(word, Entity::StreetName));
    }
}

/// `24, rue de la Paix`, `Calle Mayor 5`, `via Roma, 3`: word `i` is the street's first.
fn prefixed(text: &[char], words: &mut [Word], i: usize) {
    if !lexicon().street_first_words.contains(&lowered(text, &words[i])) {
        return;
    }
    let mut last = i;
    for j in i + 1..words.len().min(i + LONGEST) {
        let particle = lexicon().place_particles.contains(&lowered(text, &words[j]));
        if gap(text, words, j) != [' '] || !(particle || is_capitalised(text, &words[j])) {
            break;
        }
        if !particle {
            last = j;
        }
    }
    if last == i {
        return;
    }
    let number = |j: usize| is_house_number(text, &words[j]);
    // A comma and "nº" are words of their own.
    let in_front = (i.saturating_sub(2)..i)
        .rev()
        .find(|&j| text[words[j].start] != ',')
        .filter(|&j| number(j) && text[words[j].end..words[i].start].iter().all(|c| matches!(c, ' ' | ',')));
    let following =
        (last + 1..words.len().min(last + 4)).find(|&j| text[words[j].start].is_ascii_digit()).filter(|&j| {
            let gap = &text[words[last].end..words[j].start];
            number(j)
                && gap.len() <= 6
                && !gap.contains(&'\n')
                && gap.contains(&' ')
                && gap.iter().all(|c| matches!(c, ' ' | ',' | '.' | 'n' | 'N' | '°' | 'º' | 'o'))
        });
    let Some(number) = in_front.or(following) else { return };
    if suspected(&words[i..=last]) {
        set(&mut words[number], Entity::BuildingNumber);
        words[i..=last].iter_mut().for_each(|word| set(word, Entity::StreetName));
    }
}

/// `7 Liviasteeg`, `Heidrichplatz 152`: word `i` is the street.
fn compound(text: &[char], words: &mut [Word], i: usize) {
    let own = lowered(text, &words[i]);
    let ends = |end: &str| own.strip_suffix(end).is_some_and(|stem| stem.chars().count() >= STEM);
    if !is_capitalised(text, &words[i])
        || !lexicon().street_endings.iter().any(ends)
        || !suspected(&words[i..=i])
    {
        return;
    }
    let following = (i + 1 < words.len() && gap(text, words, i + 1) == [' ']).then_some(i + 1);
    let in_front = (i > 0 && gap(text, words, i) == [' ']).then(|| i - 1);
    let number = [following, in_front].into_iter().flatten().find(|&j| is_house_number(text, &words[j]));
    if let Some(number) = number {
        set(&mut words[number], Entity::BuildingNumber);
        set(&mut words[i], Entity::StreetName);
    }
}

/// A number that the model takes for a postcode, directly before a street (word `i`), is the building's.
fn number_in_front(text: &[char], words: &mut [Word], i: usize) {
    let street = words[i].entity == Some(Entity::StreetName);
    if i > 0 && street && gap(text, words, i) == [' '] && words[i - 1].entity == Some(Entity::ZipCode) {
        let continental = i > 1 && words[i - 2].entity.is_some_and(|entity| entity == Entity::StreetName);
        if is_house_number(text, &words[i - 1]) && !continental {
            set(&mut words[i - 1], Entity::BuildingNumber);
        }
    }
}

/// `El Paso`: word `i` is the first of a town of which the model knows only that.
fn opened(text: &[char], words: &mut [Word], i: usize) {
    let named =
        words[i].entity == Some(Entity::City) && lexicon().town_openers.contains(&lowered(text, &words[i]));
    let next = i + 1;
    if named
        && next < words.len()
        && words[next].entity.is_none()
        && gap(text, words, next) == [' ']
        && is_capitalised(text, &words[i])
        && is_capitalised(text, &words[next])
    {
        set(&mut words[next], Entity::City);
    }
}

/// `, MN 55811`: word `i` is the state's abbreviation.
fn state_and_code(text: &[char], words: &mut [Word], i: usize) {
    let Some(code) = words.get(i + 1) else { return };
    let state: String = text[words[i].start..words[i].end].iter().collect();
    let digits = &text[code.start..code.end];
    let five = digits.len() == 5 || digits.len() == 10 && digits[5] == '-';
    if !lexicon().is_state_code(&state) || !five || !is_postcode(digits) || gap(text, words, i + 1) != [' '] {
        return;
    }
    let listed = i > 0 && (text[words[i - 1].start] == ',' || words[i - 1].entity == Some(Entity::City));
    let likely = words[i].probability(Entity::State) + code.probability(Entity::ZipCode);
    if listed || likely >= SUSPECTED {
        set(&mut words[i], Entity::State);
        set(&mut words[i + 1], Entity::ZipCode);
    }
}

/// `Lindenweg 3, 83242 Reit im Winkl`: word `i` is the postcode's first.
fn code_and_town(text: &[char], words: &mut [Word], i: usize) {
    let before = (i.saturating_sub(2)..i).rev().find(|&j| text[words[j].start] != ',');
    let behind_street = before.is_some_and(|j| {
        matches!(words[j].entity, Some(Entity::BuildingNumber | Entity::StreetName))
            && is_break(&text[words[j].end..words[i].start])
    });
    if !behind_street || !text[words[i].start].is_ascii_digit() {
        return;
    }
    // "411 05", "3011 AB": a code of two words.
    let end = [i + 1, i].into_iter().find(|&end| {
        end < words.len()
            && text[words[i].start..words[end].end].len() >= 4
            && is_postcode(&text[words[i].start..words[end].end])
    });
    let Some(end) = end else { return };
    let town = end + 1;
    let named = |j: usize| {
        j < words.len()
            && gap(text, words, j) == [' ']
            && is_capitalised(text, &words[j])
            && words[j].end - words[j].start >= 2
    };
    if !named(town) {
        return;
    }
    let mut last = town;
    for j in town + 1..words.len().min(town + LONGEST) {
        let particle = lexicon().place_particles.contains(&lowered(text, &words[j]));
        let likely = words[j].entity == Some(Entity::City) || words[j].probability(Entity::City) >= 0.1;
        if particle && gap(text, words, j) == [' '] {
            continue;
        }
        let through = (last + 1..j).all(|k| gap(text, words, k) == [' ']);
        if !(through && named(j) && (likely || j > last + 1)) {
            break;
        }
        last = j;
    }
    words[i..=end].iter_mut().for_each(|word| set(word, Entity::ZipCode));
    words[town..=last].iter_mut().for_each(|word| set(word, Entity::City));
}

/// A comma, a line break, or both.
fn is_break(gap: &[char]) -> bool {
    is_gap(gap) && gap.contains(&',') || gap == ['\n'] || gap == [',', '\n']
}

#[cfg(test)]
mod tests {
    use super::super::words::{Tagset, Token, words};
    use super::*;

    /// What the forms say where the model takes every word for a street with a probability of a tenth.
    fn labelled(text: &str) -> String {
        let text: Vec<char> = text.chars().collect();
        let tagset = Tagset::new(&["O".to_owned(), "B-STREET_NAME".to_owned()]).unwrap();
        let mut tokens: Vec<Token> = Vec::new();
        for (at, c) in text.iter().enumerate().filter(|(_, c)| !c.is_whitespace()) {
            match tokens.last_mut() {
                Some(last) if last.end == at && c.is_alphanumeric() && text[at - 1].is_alphanumeric() => {
                    last.end += 1
                }
                _ => {
                    let (word, probabilities) = (tokens.len() as u32, vec![0.9, 0.1]);
                    tokens.push(Token { start: at, end: at + 1, word, probabilities });
                }
            }
        }
        let mut words = words(&text, &tagset, &tokens);
        forms(&text, &mut words);
        codes_and_towns(&text, &mut words);
        let shown = |word: &Word| {
            let value: String = text[word.start..word.end].iter().collect();
            word.entity.map(|entity| format!("{}={value}", entity.as_str()))
        };
        words.iter().filter_map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn forms_of_addresses_show_without_the_model() {
        assert_eq!(
            labelled("4759 William Haven here"),
            "BUILDING_NUMBER=4759 STREET_NAME=William STREET_NAME=Haven"
        );
        assert_eq!(labelled("7 Kelly mews"), "BUILDING_NUMBER=7 STREET_NAME=Kelly STREET_NAME=mews");
        assert_eq!(
            labelled("57, rue de Lefort"),
            "BUILDING_NUMBER=57 STREET_NAME=rue STREET_NAME=de STREET_NAME=Lefort"
        );
        assert_eq!(
            labelled("Via Roma, 3, 10121 Torino"),
            "STREET_NAME=Via STREET_NAME=Roma BUILDING_NUMBER=3 ZIP_CODE=10121 CITY=Torino"
        );
        assert_eq!(labelled("x, MN 55811"), "STATE=MN ZIP_CODE=55811");
        assert_eq!(
            labelled("Calle Sol 5, 4711 AB Bergen aan"),
            "STREET_NAME=Calle STREET_NAME=Sol BUILDING_NUMBER=5 ZIP_CODE=4711 ZIP_CODE=AB CITY=Bergen"
        );
        assert_eq!(labelled("24 Blue pens, 12345 Items"), "");
        assert_eq!(labelled("ask IN 55811"), "");
    }
}
