//! Regions outside the United States: states, provinces, counties and lands, which the model takes for cities or leaves
//! out. Regions that share their name with a well-known city are missing on purpose.

use super::entity::Entity;
use super::words::Word;
use crate::lexicon::lexicon;

/// Probability from which a region counts without a city or postcode next to it.
const SUSPECTED: f32 = 0.3;

/// Words of the longest name.
const LONGEST: usize = 4;

/// Takes regions after a city, before a postcode, or where the model suspects a place, for states.
pub(super) fn refine(text: &[char], words: &mut [Word]) {
    let mut first = 0;
    while first < words.len() {
        let count = region_at(text, words, first).unwrap_or(0);
        if count > 0 {
            for word in &mut words[first..first + count] {
                let score = word.probability(Entity::State).max(0.6);
                word.set(Entity::State, score);
            }
        }
        first += count.max(1);
    }
}

/// How many words from `first` on are a region.
fn region_at(text: &[char], words: &[Word], first: usize) -> Option<usize> {
    let in_street = words[first].entity == Some(Entity::StreetName)
        && words.get(first + 1).is_some_and(|next| next.entity == Some(Entity::StreetName));
    if !text[words[first].start].is_uppercase() || in_street {
        return None;
    }
    (1..=LONGEST.min(words.len() - first)).rev().find(|&count| {
        let words_in = &words[first..first + count];
        let inside: String = text[words[first].start..words_in[count - 1].end].iter().collect();
        let behind_city = (0..first)
            .rev()
            .find(|&i| words[i].entity.is_some())
            .filter(|&i| is_gap(&text[words[i].end..words[first].start]))
            .is_some_and(|i| {
                words[i].entity == Some(Entity::City)
                    || (words[i].entity == Some(Entity::ZipCode)
                        && i > 0
                        && words[..i].iter().rev().find_map(|word| word.entity) == Some(Entity::City))
            });
        let end = words_in[count - 1].end;
        let before_zip = (first + count..words.len())
            .find(|&i| words[i].entity.is_some())
            .is_some_and(|i| words[i].entity == Some(Entity::ZipCode) && is_gap(&text[end..words[i].start]));
        if count == 1 && lexicon().region_codes.contains(&inside) {
            return behind_city;
        }
        let place = |word: &Word| word.probability(Entity::City) + word.probability(Entity::State);
        // Several words are no person's name.
        let suspected = || match words_in {
            [word] => place(word) >= SUSPECTED,
            _ => words_in.iter().all(|word| word.personal() >= SUSPECTED),
        };
        // "Worcestershire sauce", "Victoria Kent".
        let thing = words.get(first + count).is_some_and(|next| {
            text.get(end..next.start) == Some(&[' '])
                && lexicon().named_things.contains(
                    &text[next.start..next.end].iter().flat_map(|c| c.to_lowercase()).collect::<String>(),
                )
        });
        let name = count == 1 && words[first].entity == Some(Entity::GivenName);
        if thing {
            return false;
        }
        is_region(&inside) && (behind_city || before_zip || !name && suspected())
            || count > 1 && inside.ends_with(" State") && behind_city
    })
}

fn is_region(name: &str) -> bool {
    lexicon().regions.contains(name)
}

/// White space and commas, a line break at most.
fn is_gap(gap: &[char]) -> bool {
    gap.len() <= 3 && gap.iter().all(|c| matches!(c, ',' | ' ' | '\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        assert!(is_region("Maharashtra") && is_region("Castilla y León") && is_region("Mendoza Province"));
        assert!(!is_region("Castilla") && !is_region("Paris") && !is_region(""));
        let longest = lexicon().regions.iter().map(|name| name.split(' ').count()).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
