//! Which of two detectors reads which part of a text: one knows Latin script only, the other one the rest, too.
//!
//! A text that is mostly in another script is read by the second detector as a whole. A text in Latin script that is not in
//! English is read by both, and what they think of a word is averaged. In any other text the second one reads letters of
//! other scripts with what is around them, and decides about words with such letters and about lines that consist mostly of
//! them; the first one decides about the rest.

use std::ops::Range;

use super::language::{Language, language};
use super::words::Word;

/// Code points on each side of a letter of another script that are read with it.
const CONTEXT: usize = 160;
/// Code points up to which a text that is perhaps not English is read by both.
const SHORT: usize = 400;
/// How many Latin letters a character of a script without spaces, or of syllables, counts for.
const DENSE: usize = 3;
/// Share of the letters of a text that must be of other scripts for the second detector to read all of it, in percent.
const MOSTLY: usize = 40;

/// What each of two detectors reads of a text, in code points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// What the first one reads.
    pub(super) first: Vec<Range<usize>>,
    /// What the second one reads.
    pub(super) second: Vec<Range<usize>>,
    /// Where the second one decides whatever the script of a word.
    owned: Vec<Range<usize>>,
}

/// Whether a letter is of a script that a detector for Latin script cannot read.
pub fn is_foreign(c: char) -> bool {
    c >= '\u{370}' && c.is_alphabetic() && !is_latin(c)
}

/// Latin letters outside ASCII, and letters that are signs of units, formulas and phonetics in Latin text.
fn is_latin(c: char) -> bool {
    matches!(c, '\0'..='\u{36f}' | '\u{1d00}'..='\u{1dbf}' | '\u{1e00}'..='\u{1eff}' | '\u{2070}'..='\u{2c7f}'
        | '\u{a720}'..='\u{a7ff}' | '\u{ab30}'..='\u{ab6f}' | '\u{fb00}'..='\u{fb06}' | '\u{ff21}'..='\u{ff5a}'
        | '\u{1d400}'..='\u{1d7ff}')
}

/// Letters in Latin letters: those of dense scripts count for several.
fn weight(c: char) -> usize {
    if super::words::is_unspaced(c) { DENSE } else { 1 }
}

/// The route of a text; `None` if the first detector can read all of it.
pub fn route(text: &str) -> Option<Route> {
    let chars: Vec<char> = text.chars().collect();
    let whole = 0..chars.len();
    let places = foreign_words(&chars);
    if !places.is_empty() && mostly_foreign(&chars) {
        return Some(Route { first: Vec::new(), second: vec![whole.clone()], owned: vec![whole] });
    }
    let both = match language(text) {
        Language::Other => true,
        Language::Perhaps => chars.len() <= SHORT,
        Language::English | Language::Unsure => false,
    };
    if both {
        return Some(Route { first: vec![whole.clone()], second: vec![whole], owned: Vec::new() });
    }
    if places.is_empty() {
        return None;
    }
    let mut second: Vec<Range<usize>> = Vec::new();
    for place in places {
        let around = widened(&chars, &place);
        match second.last_mut() {
            Some(last) if last.end >= around.start => last.end = last.end.max(around.end),
            _ => second.push(around),
        }
    }
    let mut owned: Vec<Range<usize>> = Vec::new();
    let mut first: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for line in chars.split_inclusive(|c| *c == '\n') {
        let range = start..start + line.len();
        start = range.end;
        let target = if mostly_foreign(line) { &mut owned } else { &mut first };
        match target.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => target.push(range),
        }
    }
    Some(Route { first, second, owned })
}

/// Words with letters of another script. A single letter of a script with spaces is a sign: "α = 0.05", "Σ".
fn foreign_words(text: &[char]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !is_foreign(text[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < text.len() && (is_foreign(text[at]) || is_mark(text[at])) {
            at += 1;
        }
        if at - start > 1 || super::words::is_unspaced(text[start]) {
            words.push(start..at);
        }
    }
    words
}

/// Signs above and below letters, and joiners, as Indic scripts and Thai have them inside words.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c) || matches!(c, '\u{200c}' | '\u{200d}')
}

fn mostly_foreign(text: &[char]) -> bool {
    let (mut foreign, mut all) = (0, 0);
    for &c in text.iter().filter(|c| c.is_alphabetic()) {
        let weight = weight(c);
        all += weight;
        foreign += if is_foreign(c) { weight } else { 0 };
    }
    foreign > 0 && foreign * 100 >= all * MOSTLY
}

/// A place with its surroundings, from and to a space.
fn widened(text: &[char], place: &Range<usize>) -> Range<usize> {
    let mut start = place.start.saturating_sub(CONTEXT);
    while start > 0 && start < place.start && !text[start].is_whitespace() {
        start += 1;
    }
    let mut end = (place.end + CONTEXT).min(text.len());
    while end < text.len() && end > place.end && !text[end].is_whitespace() {
        end -= 1;
    }
    start..end
}

/// Parts of texts, in code points: a list for each.
pub type Parts = Vec<Vec<Range<usize>>>;

/// What the first and what the second detector reads of texts.
pub fn parts(texts: &[&str], routes: &[Option<Route>]) -> (Parts, Parts) {
    let part = |(text, route): (&&str, &Option<Route>)| match route {
        Some(route) => (route.first.clone(), route.second.clone()),
        None => (vec![Range { start: 0, end: text.chars().count() }], Vec::new()),
    };
    texts.iter().zip(routes).map(part).unzip()
}

impl Route {
    /// The words of both detectors, in the order of the text, each from the detector that decides about it.
    pub(super) fn merge(&self, text: &[char], mut first: Vec<Word>, second: Vec<Word>) -> Vec<Word> {
        // Letters of another script disturb the first detector beside them.
        let mut rest = second.as_slice();
        for word in &mut first {
            // Both lists are in the order of the text.
            let past = rest.iter().take_while(|other| other.end <= word.start).count();
            rest = &rest[past..];
            let (start, end) = (word.start, word.end);
            let others = rest.iter().take_while(|other| other.start < end).filter(|other| start < other.end);
            word.blend(others);
        }
        let mut owned = vec![false; text.len()];
        for range in &self.owned {
            owned[range.clone()].fill(true);
        }
        let is_owned =
            |word: &Word| owned[word.start] || text[word.start..word.end].iter().copied().any(is_foreign);
        let mut covered = vec![false; text.len()];
        let mut kept: Vec<Word> = Vec::with_capacity(first.len() + second.len());
        let mut keep = |words: Vec<Word>| {
            for word in words {
                let place = &mut covered[word.start..word.end];
                if !place.contains(&true) {
                    place.fill(true);
                    kept.push(word);
                }
            }
        };
        let (decided, spare) = second.into_iter().partition(is_owned);
        keep(decided);
        keep(first.into_iter().filter(|word| !is_owned(word)).collect());
        // What the first detector took for part of a word of the other script.
        keep(spare);
        kept.sort_by_key(|word| word.start);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Entity;

    fn ranges(text: &str) -> Route {
        route(text).unwrap()
    }

    #[test]
    fn signs_in_latin_text_are_no_words_of_another_script() {
        for text in ["α = 0.05, ΔT of 3 µm, Σ over π", "ﬁne ＡＢＣ 𝒙 → ①", "12 345", "", "Ann Lee"]
        {
            let chars: Vec<char> = text.chars().collect();
            assert!(foreign_words(&chars).is_empty(), "{text}");
            assert!(route(text).is_none_or(|route| route.owned.is_empty()), "{text}");
        }
        assert_eq!((route("12 345"), route("")), (None, None));
    }

    #[test]
    fn text_of_another_script_is_read_by_the_second_detector_alone() {
        for text in [
            "您好，我叫王小明。",
            "Телефон: +7 912 000 00 00\nПочта: ann@example.org",
            "नमस्ते राम",
            "ご連絡先 John Smith",
        ] {
            let route = ranges(text);
            assert_eq!((route.first.len(), route.second.len()), (0, 1), "{text}");
            assert_eq!(route.second[0], 0..text.chars().count());
        }
    }

    #[test]
    fn text_in_another_language_is_read_by_both() {
        let text = "Bonjour, je vous écris parce que je n'ai pas encore reçu la facture du mois de mars.";
        let route = ranges(text);
        let whole = [Range { start: 0, end: text.chars().count() }];
        assert!(route.first == whole && route.second == whole);
        let chars: Vec<char> = text.chars().collect();
        let word = |start, end, probability| {
            let mut word = Word::for_test(start, end);
            word.suppose(Entity::City, probability);
            word
        };
        let merged = route.merge(
            &chars,
            vec![word(0, 7, 0.2), word(9, 11, 0.2)],
            vec![word(0, 4, 0.4), word(4, 7, 0.8)],
        );
        let cities: Vec<f32> = merged.iter().map(|word| word.probability(Entity::City)).collect();
        // The weighed mean with the surer of two words, and what one of them alone says.
        assert_eq!(cities.len(), 2);
        assert!((cities[0] - (0.35 * 0.2 + 0.65 * 0.8)).abs() < 1e-6 && cities[1] == 0.2, "{cities:?}");
    }

    #[test]
    fn a_foreign_name_is_read_with_what_is_around_it() {
        let filler = "word ".repeat(200);
        let text = format!("{filler}ask 王小明 about it. {filler}");
        let route = ranges(&text);
        assert_eq!(route.first, [Range { start: 0, end: text.chars().count() }]);
        let [second] = route.second.as_slice() else { panic!("{route:?}") };
        assert!(second.len() < 2 * CONTEXT + 8 && second.start > 800);
        assert!(route.owned.is_empty());
    }

    #[test]
    fn lines_of_another_script_belong_to_the_second_detector() {
        let english = "This letter is long and in English, but for the address below.\n".repeat(4);
        let text = format!("{english}北京市朝阳区 12 号 Room 3\n{english}");
        let route = ranges(&text);
        let line = english.chars().count();
        assert_eq!(route.owned, [Range { start: line, end: line + 19 }]);
        assert_eq!(route.first.len(), 2);
        assert_eq!(route.second.len(), 1);
    }

    #[test]
    fn each_word_comes_from_one_detector() {
        let text: Vec<char> = "Call Ann or 王明 now".chars().collect();
        let route = ranges(&"x".repeat(40).chars().chain(" 王明".chars()).collect::<String>());
        let word = |start, end| Word::for_test(start, end);
        let first = vec![word(0, 4), word(5, 8), word(9, 11), word(12, 14), word(15, 18)];
        let second = vec![word(5, 8), word(9, 11), word(12, 13), word(13, 14), word(15, 18)];
        let places = |words: Vec<Word>| words.iter().map(|word| (word.start, word.end)).collect::<Vec<_>>();
        let merged = places(route.merge(&text, first, second));
        assert_eq!(merged, [(0, 4), (5, 8), (9, 11), (12, 13), (13, 14), (15, 18)]);
    }
}
