//! How people are mentioned, and what only looks like it: greetings, a name that stands in full elsewhere, parts of
//! programs, things named after a person.

use super::entity::Entity;
use super::names::{ANNOUNCED, adjoin, is_capitalised, is_name, is_no_name, lower};
use super::words::Word;
use crate::lexicon::lexicon;
use std::collections::HashMap;

/// Confidence below which a name yields to what stands around it.
const UNSURE: f32 = 0.6;
/// Confidence from which a name in full says how the person is called elsewhere.
const SURE: f32 = 0.5;
/// Letters of the longest abbreviation.
const ABBREVIATION: usize = 4;

/// Names that what is around them speaks against are none.
pub(super) fn doubted(text: &[char], words: &mut [Word]) {
    let small = text.iter().filter(|c| c.is_lowercase()).count();
    let capital = text.iter().filter(|c| c.is_uppercase()).count();
    for i in 0..words.len() {
        let doubted = is_name(&words[i])
            && (is_identifier(text, &words[i])
                || is_announced_thing(text, words, i)
                || is_title_of(text, words, i)
                || small > capital && is_abbreviation(text, words, i));
        if doubted {
            words[i].clear();
        }
    }
}

/// A word that is part of a program: `np.arange(`, `do_not_honor`, `MAX_LEN`, `Cargo.toml`, `mem::swap`, `MerkleHash`. A sure name
/// stays one before `_`, as in `maria_lopez.pdf`.
fn is_identifier(text: &[char], word: &Word) -> bool {
    let before = word.start.checked_sub(1).map(|at| text[at]);
    let joined = matches!(before, Some('_' | '>'))
        && word.start >= 2
        && (text[word.start - 2].is_alphanumeric() || matches!(text[word.start - 2], '_' | ')' | '-'));
    let after = text.get(word.end);
    let extension = before == Some('.') && word.start >= 2 && text[word.start - 2].is_alphabetic();
    let part = joined || extension || after == Some(&'_');
    let own = &text[word.start..word.end];
    let pathed = text[..word.start].ends_with(&[':', ':']) || text[word.end..].starts_with(&[':', ':']);
    let small = own[0].is_lowercase() && (after == Some(&'(') || part && word.score < UNSURE);
    let shouted = part && word.score < UNSURE && own.iter().all(|c| c.is_uppercase());
    small || shouted || pathed || is_camel_case(own)
}

/// `MaybeUninit`, and not `McCarney`, `DeShawn` or `MacDonald`.
fn is_camel_case(word: &[char]) -> bool {
    let hump = word.windows(2).position(|pair| pair[0].is_lowercase() && pair[1].is_uppercase());
    hump.is_some_and(|at| at >= 3 && word.iter().all(|c| c.is_alphanumeric()))
}

/// `make Kawasaki`, `the Wheatstone bridge`: a brand, or a thing after an article.
fn is_announced_thing(text: &[char], words: &[Word], i: usize) -> bool {
    let Some(before) = i.checked_sub(1).filter(|&j| adjoin(text, &words[j], &words[i])) else { return false };
    if lexicon().brand_words.contains(&lower(text, &words[i])) {
        return true;
    }
    let own = lower(text, &words[before]);
    let thing = words.get(i + 1).is_some_and(|next| {
        adjoin(text, &words[i], next) && text[next.start].is_lowercase() && next.entity.is_none()
    });
    lexicon().brand_words.contains(&own)
        || lexicon().articles.contains(&own) && thing && words[i].score < UNSURE && !is_name(&words[before])
}

/// A title before a name, or an abbreviated one.
fn is_title_of(text: &[char], words: &[Word], i: usize) -> bool {
    let named = words.get(i + 1).is_some_and(|next| is_name(next) && adjoin(text, &words[i], next));
    lexicon().titles.contains(&lower(text, &words[i]))
        && words[i].score < UNSURE
        && (named || text.get(words[i].end) == Some(&'.'))
}

/// A few capitals, or one letter, on their own.
fn is_abbreviation(text: &[char], words: &[Word], i: usize) -> bool {
    let inside = &text[words[i].start..words[i].end];
    let beside = |j: Option<&Word>| j.is_some_and(is_name);
    let alone = !beside(i.checked_sub(1).and_then(|j| words.get(j))) && !beside(words.get(i + 1));
    let capitals = inside.len() <= ABBREVIATION && inside.iter().all(|c| c.is_uppercase());
    alone && capitals && words[i].score < UNSURE
}

/// "Hiya Stacey," is the given name, and the greeting none.
pub(super) fn greeted(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        if !lexicon().greetings.contains(&lower(text, &words[i])) {
            continue;
        }
        let begins =
            text[..words[i].start].iter().rev().find(|c| **c != ' ').is_none_or(|c| !c.is_alphanumeric());
        if begins && is_name(&words[i]) {
            words[i].clear();
        }
        let Some(next) = words.get(i + 1) else { continue };
        let alone = text.get(next.end).is_none_or(|c| matches!(c, ',' | '!' | '\n' | '.' | '?'));
        if begins && alone && adjoin(text, &words[i], next) && is_name(next) {
            let score = next.score.max(ANNOUNCED);
            words[i + 1].set(Entity::GivenName, score);
        }
    }
}

/// Words of the longest line that closes a letter.
const CLOSING_WORDS: usize = 5;

/// Whether the line that ends at `end` closes a letter: "Grüße von der Küste".
fn is_closing_line(text: &[char], end: usize) -> bool {
    let start = text[..end].iter().rposition(|c| *c == '\n').map_or(0, |at| at + 1);
    let line: String = text[start..end].iter().flat_map(|c| c.to_lowercase()).collect();
    let mut words = line.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    words.clone().count() <= CLOSING_WORDS && words.any(|word| lexicon().closings.contains(word))
}

/// Probability of being a name from which what stands below a closing line is one.
const SIGNED: f32 = 0.01;

/// "Grüße von der Küste", and below it who signs: by the given name where nothing follows, and surely.
pub(super) fn signed(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        let line = text[..words[i].start].iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
        let below = text[line..words[i].start].contains(&'\n') && is_closing_line(text, line);
        let likely = is_name(&words[i])
            || words[i].probability(Entity::GivenName) + words[i].probability(Entity::Surname) >= SIGNED;
        if !below || !likely || !is_capitalised(text, &words[i]) {
            continue;
        }
        let full = words.get(i + 1).is_some_and(|next| is_name(next) && adjoin(text, &words[i], next));
        let last = text.get(words[i].end).is_none_or(|c| matches!(c, '\n' | '\r'))
            || words.get(i + 1).is_some_and(|next| lexicon().and.contains(&lower(text, next)));
        if full || last {
            let score = words[i].score.max(ANNOUNCED);
            words[i].set(Entity::GivenName, score);
        }
    }
}

/// `Hale v. Osei`: the parties of a case are called by their surnames.
pub(super) fn opposed(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        let follows = |form: &&str| form.chars().eq(text[words[i].end..].iter().copied().take(form.len()));
        let Some(versus) = lexicon().versus.iter().find(follows) else { continue };
        let following = words[i].end + versus.len();
        let Some(j) = (i + 1..words.len().min(i + 5)).find(|&j| words[j].start == following) else {
            continue;
        };
        let alone = |k: usize, beside: Option<usize>| {
            is_name(&words[k]) && !beside.and_then(|k| words.get(k)).is_some_and(is_name)
        };
        if alone(i, i.checked_sub(1)) && alone(j, Some(j + 1)) {
            words[i].entity = Some(Entity::Surname);
            words[j].entity = Some(Entity::Surname);
        }
    }
}

/// Probability of being personal from which one of two words before an e-mail address makes both a name, unless the
/// address holds one.
const ADDRESSED: f32 = 0.02;

/// `Ada Obi <a.obi@example.org>`: two or three capitalised words before an e-mail address are a name.
pub(super) fn addressed(text: &[char], words: &mut [Word]) {
    for i in 2..words.len() {
        let opens = text[words[i].start] == '<' && adjoin(text, &words[i - 1], &words[i]);
        let mailbox = || text[words[i].start + 1..].iter().take_while(|c| !c.is_whitespace() && **c != '>');
        if !opens || !mailbox().any(|c| *c == '@') {
            continue;
        }
        let part = |word: &Word| {
            let own = lower(text, word);
            let letters =
                text[word.start..word.end].iter().all(|c| c.is_alphabetic() || matches!(c, '-' | '\''));
            let nobody = is_no_name(&own)
                || lexicon().company_words.contains(&own)
                || lexicon().named_things.contains(&own);
            letters && text[word.start].is_uppercase() && !nobody && !lexicon().mailboxes.contains(&own)
        };
        let mut first = i - 1;
        while first > 0
            && i - first < 3
            && part(&words[first - 1])
            && adjoin(text, &words[first - 1], &words[first])
        {
            first -= 1;
        }
        let local: String = mailbox().take_while(|c| **c != '@').flat_map(|c| c.to_lowercase()).collect();
        let likely = words[first..i].iter().any(|word| {
            let own = lower(text, word);
            word.personal() >= ADDRESSED || own.len() >= 3 && local.contains(&own)
        });
        if first == i - 1 || !part(&words[i - 1]) || !likely {
            continue;
        }
        for (at, word) in words[first..i].iter_mut().enumerate() {
            if !is_name(word) || word.score < UNSURE {
                let entity = if first + at + 1 == i { Entity::Surname } else { Entity::GivenName };
                word.set(entity, word.probability(entity).max(ANNOUNCED));
            }
        }
    }
}

/// A name that stands alone is what it is where it stands in full: "Ann Shelton ... Shelton prefers".
pub(super) fn as_in_full(text: &[char], words: &mut [Word]) {
    let joined = |a: Option<&Word>, b: &Word| a.is_some_and(|a| is_name(a) && adjoin(text, a, b));
    let joins = |a: &Word, b: Option<&Word>| b.is_some_and(|b| is_name(b) && adjoin(text, a, b));
    let mut full: HashMap<String, (bool, bool)> = HashMap::new();
    for pair in words.windows(2) {
        let named = pair[0].entity == Some(Entity::GivenName) && pair[1].entity == Some(Entity::Surname);
        if named && adjoin(text, &pair[0], &pair[1]) && pair.iter().all(|word| word.score >= SURE) {
            full.entry(lower(text, &pair[0])).or_default().0 = true;
            full.entry(lower(text, &pair[1])).or_default().1 = true;
        }
    }
    let lone: Vec<(usize, Entity)> = (0..words.len())
        .filter(|&i| {
            let place = words[i].entity == Some(Entity::City) && words[i].score < 0.8;
            (is_name(&words[i]) || place)
                && !joined(i.checked_sub(1).and_then(|j| words.get(j)), &words[i])
                && !joins(&words[i], words.get(i + 1))
        })
        .filter_map(|i| {
            let entity = match full.get(&without_possessive(text, &words[i]))? {
                (true, false) => Entity::GivenName,
                (false, true) => Entity::Surname,
                _ => return None,
            };
            Some((i, entity))
        })
        .collect();
    for (i, entity) in lone {
        words[i].entity = Some(entity);
    }
}

/// A word in lower case without a possessive.
fn without_possessive(text: &[char], word: &Word) -> String {
    let own = lower(text, word);
    own.trim_end_matches("'s").trim_end_matches("\u{2019}s").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::words::{Tagset, Token, words};
    use super::*;

    /// Names and towns of a text in which `marked` words have these types, with this confidence.
    fn refined(text: &str, marked: &[(&str, Entity)], score: f32) -> String {
        let chars: Vec<char> = text.chars().collect();
        let tagset = Tagset::new(&["O".to_owned()]).unwrap();
        let mut tokens: Vec<Token> = Vec::new();
        for (at, c) in chars.iter().enumerate().filter(|(_, c)| !c.is_whitespace()) {
            match tokens.last_mut() {
                Some(last) if last.end == at && c.is_alphanumeric() && chars[at - 1].is_alphanumeric() => {
                    last.end += 1
                }
                _ => tokens.push(Token { start: at, end: at + 1, word: at as u32, probabilities: vec![1.0] }),
            }
        }
        let mut words = words(&chars, &tagset, &tokens);
        let value = |word: &Word| chars[word.start..word.end].iter().collect::<String>();
        for word in &mut words {
            if let Some((_, entity)) = marked.iter().find(|(own, _)| *own == value(word)) {
                word.set(*entity, score);
            }
        }
        for rule in [doubted, greeted, signed, addressed, as_in_full, opposed] {
            rule(&chars, &mut words);
        }
        let shown = |word: &Word| word.entity.map(|entity| format!("{}={}", entity.as_str(), value(word)));
        words.iter().filter_map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_greeting_is_followed_by_a_given_name() {
        let marked = [("Hiya", Entity::GivenName), ("Stacey", Entity::Surname)];
        assert_eq!(refined("Hiya Stacey, thanks", &marked, 0.9), "GIVEN_NAME=Stacey");
    }

    #[test]
    fn who_signs_is_called_by_the_given_name() {
        let of = |text| refined(text, &[("Tjark", Entity::Surname), ("Onno", Entity::City)], 0.3);
        assert_eq!(of("Viele Grüße von uns\nTjark"), "GIVEN_NAME=Tjark");
        assert_eq!(of("Viele Grüße von uns\n\nTjark und Onno"), "GIVEN_NAME=Tjark CITY=Onno");
        assert_eq!(of("Wir sehen uns dort wieder\nTjark"), "SURNAME=Tjark");
        assert_eq!(of("Viele Grüße von uns\nTjark, Kiel"), "SURNAME=Tjark");
    }

    #[test]
    fn parties_are_surnames() {
        let marked = [("Hale", Entity::GivenName), ("Osei", Entity::GivenName)];
        for versus in ["v.", "v", "./.", "vs"] {
            assert_eq!(
                refined(&format!("in Hale {versus} Osei today"), &marked, 0.9),
                "SURNAME=Hale SURNAME=Osei"
            );
        }
        assert_eq!(refined("in Hale and Osei today", &marked, 0.9), "GIVEN_NAME=Hale GIVEN_NAME=Osei");
    }

    #[test]
    fn what_stands_in_front_of_an_address_is_a_name() {
        let of = |text| refined(text, &[], 0.9);
        assert_eq!(of("by Bogumi Starzyk <bstarzyk@a.example> now"), "GIVEN_NAME=Bogumi SURNAME=Starzyk");
        assert_eq!(of("by Bogumi Starzyk <other@a.example> now"), "");
        assert_eq!(of("from Acme Support <acme@a.example> now"), "");
        assert_eq!(of("see Starzyk <bstarzyk@a.example> now"), "");
        let marked = [("Ewa", Entity::Surname), ("Lis", Entity::Surname)];
        assert_eq!(refined("to Ewa Lis <lis@a.example>", &marked, 0.3), "GIVEN_NAME=Ewa SURNAME=Lis");
    }

    #[test]
    fn a_name_is_what_it_is_in_full() {
        let marked = [("Ann", Entity::GivenName), ("Shelton", Entity::Surname)];
        let found = refined("for Ann Shelton. But Ann left", &marked, 0.9);
        assert_eq!(found, "GIVEN_NAME=Ann SURNAME=Shelton GIVEN_NAME=Ann");
        let marked =
            [("Ann", Entity::GivenName), ("Shelton", Entity::Surname), ("Sheltons", Entity::GivenName)];
        assert_eq!(
            refined("Ann Shelton and Sheltons", &marked, 0.9),
            "GIVEN_NAME=Ann SURNAME=Shelton GIVEN_NAME=Sheltons"
        );
    }

    #[test]
    fn parts_of_programs_and_things_are_no_names() {
        let given = |word| [(word, Entity::GivenName)];
        assert_eq!(refined("def hilbert(n: int) in code", &given("hilbert"), 0.9), "");
        assert_eq!(refined("code do_not_honor", &given("honor"), 0.5), "");
        assert_eq!(refined("see Cargo.toml", &given("toml"), 0.5), "");
        assert_eq!(refined("const MAX_LEN: u32", &given("LEN"), 0.5), "");
        assert_eq!(refined("use mem::Swap now", &given("Swap"), 0.9), "");
        assert_eq!(refined("a MerkleHash of it", &given("MerkleHash"), 0.9), "");
        assert_eq!(refined("ask McCarney for it", &given("McCarney"), 0.9), "GIVEN_NAME=McCarney");
        assert_eq!(refined("see maria_lopez.pdf", &given("maria"), 0.9), "GIVEN_NAME=maria");
        assert_eq!(refined("near the Wheatstone bridge", &given("Wheatstone"), 0.5), "");
        assert_eq!(refined("near the Wheatstone bridge", &given("Wheatstone"), 0.9), "GIVEN_NAME=Wheatstone");
        assert_eq!(refined("one car, make Kawasaki, blue", &given("Kawasaki"), 0.9), "");
        assert_eq!(refined("ask VIN for it", &given("VIN"), 0.4), "");
        assert_eq!(refined("ask ann for it", &given("ann"), 0.4), "GIVEN_NAME=ann");
    }
}
