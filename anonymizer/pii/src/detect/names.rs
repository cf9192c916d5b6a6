//! Names: what the words around a word and the rest of the text say about it.

use super::entity::Entity;
use super::span::Span;
use super::words::Word;
use crate::lexicon::lexicon;
use std::collections::HashMap;

/// Probability of being personal from which a capitalised neighbour of a name is one too.
const NEIGHBOUR: f32 = 0.08;
/// Probability of being a surname from which a word after a given name is one, both in lower case.
const LOWER_NEIGHBOUR: f32 = 0.1;
/// Probability of being a name from which a word after a cue is one.
const CUED: f32 = 0.1;
/// The same for the line below "Kind regards".
const SIGNED: f32 = 0.01;
/// Confidence from which a name counts wherever else it stands in the text.
const REPEATED: f32 = 0.9;

/// Probability of being a name from which the first word of a line is who speaks in a transcript.
const SPEAKER: f32 = 0.01;
/// Confidence in a given name from which the word after it is rather a surname than a place.
const SURE_GIVEN: f32 = 0.3;
/// Confidence from which a place after a given name stays one.
const SURE_PLACE: f32 = 0.75;

/// Confidence in a name or place that the form of the text announces: enough to count alone.
pub(super) const ANNOUNCED: f32 = 0.65;

/// Whether a word (lower case) is no name on its own.
pub(super) fn is_no_name(word: &str) -> bool {
    let lexicon = lexicon();
    [&lexicon.no_names, &lexicon.brands, &lexicon.vehicle_makers].iter().any(|list| list.contains(word))
}

pub(super) fn is_name(word: &Word) -> bool {
    matches!(word.entity, Some(Entity::GivenName | Entity::Surname))
}

fn is_place(word: &Word) -> bool {
    matches!(word.entity, Some(Entity::City | Entity::State | Entity::StreetName))
}

pub(super) fn lower(text: &[char], word: &Word) -> String {
    text[word.start..word.end].iter().flat_map(|c| c.to_lowercase()).collect()
}

pub(super) fn is_capitalised(text: &[char], word: &Word) -> bool {
    text[word.start].is_uppercase() && text[word.start..word.end].iter().all(|c| !c.is_numeric())
}

/// Words the model is unsure of are names after a word that announces one, or as a pair of given name and surname.
pub(super) fn cued(text: &[char], words: &mut [Word]) {
    let named = |word: &Word| word.probability(Entity::GivenName) + word.probability(Entity::Surname);
    for i in 0..words.len() {
        let (given, surname) =
            (words[i].probability(Entity::GivenName), words[i].probability(Entity::Surname));
        let likelier = if given >= surname { Entity::GivenName } else { Entity::Surname };
        if words[i].entity.is_some() || given + surname < SIGNED {
            continue;
        }
        let cue = (0..i).rev().find(|&j| text[words[j].start].is_alphanumeric());
        let announced = cue.is_some_and(|cue| {
            let gap = text.get(words[cue].end..words[i].start).unwrap_or_default();
            let word = lower(text, &words[cue]);
            let likely = given + surname >= CUED;
            let signed =
                lexicon().closings.contains(&word) && gap.contains(&'\n') && is_capitalised(text, &words[i]);
            let listed = words[cue].entity == Some(Entity::Surname) && gap == [',', ' '];
            (gap.len() <= 3 && (signed || likely && lexicon().cues.contains(&word))) || (likely && listed)
        });
        if announced {
            words[i].set(likelier, given + surname);
        }
        if given + surname < CUED && !announced {
            continue;
        }
        let Some(next) = words.get(i + 1) else { continue };
        let pair = adjoin(text, &words[i], next)
            && is_capitalised(text, &words[i])
            && is_capitalised(text, next)
            && given > surname
            && next.probability(Entity::Surname) >= if announced { SIGNED } else { CUED }
            && !is_no_name(&lower(text, &words[i]));
        if pair {
            let score = named(next);
            words[i].set(Entity::GivenName, given + surname);
            if words[i + 1].entity.is_none() {
                words[i + 1].set(Entity::Surname, score);
            }
        }
    }
}

/// What stands before a name in a program's notes.
const NOTES: [&[char]; 2] = [&['T', 'O', 'D', 'O', '('], &['F', 'I', 'X', 'M', 'E', '(']];

/// `TODO(ann)`: who is to do something in a program.
pub(super) fn marked(text: &[char], words: &mut [Word]) {
    for word in words {
        let owned = NOTES.iter().any(|note| text[..word.start].ends_with(note));
        let name = text[word.start..word.end].iter().all(|c| c.is_alphabetic()) && word.end - word.start >= 3;
        if owned && name && text.get(word.end) == Some(&')') && word.personal() >= SIGNED {
            word.set(Entity::GivenName, ANNOUNCED);
        }
    }
}

/// A word after a sure given name, at the end of its phrase, that is taken for a place, is a surname.
pub(super) fn behind_given_names(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (a, b) = (&before[i - 1], &rest[0]);
        let place = matches!(b.entity, Some(Entity::City | Entity::StreetName | Entity::State));
        let goes_on = rest.get(1).is_some_and(|next| next.entity == b.entity && adjoin(text, b, next));
        if a.entity == Some(Entity::GivenName)
            && a.score >= SURE_GIVEN
            && place
            && b.score < SURE_PLACE
            && !goes_on
            && adjoin(text, a, b)
            && is_capitalised(text, a)
            && is_capitalised(text, b)
        {
            let score = b.score;
            rest[0].set(Entity::Surname, score);
        }
    }
}

/// Passenger lists: `OKAFOR/NGOZI MRS`, with a form of address after or "passenger", "name", "guest" before.
pub(super) fn manifests(text: &[char], words: &mut [Word]) {
    let upper = |word: &Word| {
        word.end - word.start >= 2
            && text[word.start..word.end].iter().all(|c| c.is_uppercase() || matches!(c, '-' | '\''))
    };
    for i in 1..words.len().saturating_sub(1) {
        let [a, slash, b] = [i - 1, i, i + 1].map(|j| (words[j].start, words[j].end));
        let joined = text[slash.0..slash.1] == ['/'] && a.1 == slash.0 && slash.1 == b.0;
        if !joined || !upper(&words[i - 1]) || !upper(&words[i + 1]) {
            continue;
        }
        let addressed =
            words.get(i + 2).filter(|next| adjoin(text, &words[i + 1], next)).is_some_and(|next| {
                let own = lower(text, next);
                lexicon().passenger_titles.contains(&own) || lexicon().passenger_kinds.contains(&own)
            });
        let line: String =
            text[..a.0].iter().rev().take_while(|c| **c != '\n').flat_map(|c| c.to_lowercase()).collect();
        let announced = ["passenger", "name", "guest", "pax", "traveller"]
            .iter()
            .any(|word| line.contains(&word.chars().rev().collect::<String>()));
        if addressed || announced {
            let score = |word: &Word| word.personal().max(ANNOUNCED);
            let (first, second) = (score(&words[i - 1]), score(&words[i + 1]));
            words[i - 1].set(Entity::Surname, first);
            words[i + 1].set(Entity::GivenName, second);
        }
    }
    for word in words.iter_mut() {
        if lexicon().passenger_titles.contains(&lower(text, word)) {
            word.clear();
        }
    }
}

/// Transcripts: a word that begins two lines or more, with a colon after it, is who speaks, wherever else it stands.
pub(super) fn speakers(text: &[char], words: &mut [Word]) {
    let mut lines: HashMap<String, (usize, f32)> = HashMap::new();
    for word in words.iter() {
        let line = text[..word.start].iter().rev().take_while(|c| **c != '\n');
        // A time in brackets may precede.
        let begins =
            line.clone().all(|c| c.is_ascii_digit() || matches!(c, '[' | ']' | ':' | ' ' | '<' | '@' | '.'));
        let letters = text[word.start..word.end].iter().all(|c| c.is_alphabetic());
        if begins && letters && word.end - word.start >= 3 && matches!(text.get(word.end), Some(':' | '>')) {
            let named = word.probability(Entity::GivenName) + word.probability(Entity::Surname);
            let (count, likely) = lines.entry(lower(text, word)).or_insert((0, 0.0));
            *count += 1;
            *likely = likely.max(named);
        }
    }
    for word in words.iter_mut() {
        let own = lower(text, word);
        let speaks = lines
            .get(own.trim_end_matches("'s").trim_end_matches("’s"))
            .is_some_and(|&(count, likely)| count >= 2 && likely >= SPEAKER);
        if speaks
            && !matches!(word.entity, Some(Entity::GivenName | Entity::Surname) if word.score >= REPEATED)
        {
            word.set(Entity::GivenName, word.probability(Entity::GivenName).max(ANNOUNCED));
        }
    }
}

/// Brands, companies, theorems, hashtags and the like are no names.
pub(super) fn common(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        if !is_name(&words[i]) && !is_place(&words[i]) {
            continue;
        }
        let own = lower(text, &words[i]);
        let own = own.trim_end_matches("'s").trim_end_matches("’s");
        let hashtag = words[i].start > 0 && text[words[i].start - 1] == '#';
        let beside = |j: usize| {
            words.get(j).is_some_and(|word| {
                is_name(word) && is_capitalised(text, word) && !is_no_name(&lower(text, word))
            })
        };
        // What follows a maker of vehicles is the vehicle.
        let in_name = (i > 0 && beside(i - 1) && adjoin(text, &words[i - 1], &words[i]))
            || (!lexicon().vehicle_makers.contains(own)
                && beside(i + 1)
                && adjoin(text, &words[i], &words[i + 1]));
        let vehicle = i > 0
            && adjoin(text, &words[i - 1], &words[i])
            && lexicon().vehicle_makers.contains(&lower(text, &words[i - 1]));
        if hashtag
            || vehicle
            || is_coined(text, &words[i])
            || is_numbers_name(text, &words[i])
            || lexicon().named_things.contains(own) && is_name(&words[i])
            || (is_no_name(own) && !(in_name && is_capitalised(text, &words[i])))
        {
            words[i].clear();
            continue;
        }
        // The next words, if they stand in the same phrase: "Butterworth filter", "Blue Heron Logistics".
        let mut last = i;
        for next in i + 1..words.len().min(i + 3) {
            if !adjoin(text, &words[next - 1], &words[next]) {
                break;
            }
            let word = lower(text, &words[next]);
            let capitalised = is_capitalised(text, &words[next]);
            let thing = lexicon().named_things.contains(&word)
                || capitalised && lexicon().company_words.contains(&word);
            if thing && words[next].entity != Some(Entity::StreetName) {
                last = next;
                break;
            }
            let partners = words.get(next + 1).is_some_and(|following| {
                adjoin(text, &words[next], following)
                    && lexicon().company_partners.contains(&lower(text, following))
            });
            if matches!(word.as_str(), "and" | "&" | "und" | "et" | "y") && partners {
                last = next + 1;
                break;
            }
            if !capitalised {
                break;
            }
        }
        if last > i && words[i].entity != Some(Entity::StreetName) {
            words[i..=last].iter_mut().for_each(Word::clear);
        }
    }
}

/// Whether an unsure word of capitals is what a number is called: `NHS`, `IBAN`.
fn is_numbers_name(text: &[char], word: &Word) -> bool {
    let shouted = text[word.start..word.end].iter().all(|c| c.is_uppercase());
    shouted && word.score < SURE_PLACE && lexicon().is_keyword(&lower(text, word))
}

/// Whether an unsure word has a capital in the middle, as names of products do: `LatteGo`.
fn is_coined(text: &[char], word: &Word) -> bool {
    let inside = &text[word.start..word.end];
    let inner = inside.windows(2).position(|two| two[0].is_lowercase() && two[1].is_uppercase());
    inner.is_some_and(|at| {
        let front: String = inside[..=at].iter().collect();
        !lexicon().surname_prefixes.contains(&front) && word.score < SURE_PLACE
    })
}

/// A word in lower case after a capitalised name is no part of it, unless it is a particle.
pub(super) fn uncapitalised(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (a, b) = (&before[i - 1], &mut rest[0]);
        let follows = is_name(a) && is_name(b) && adjoin(text, a, b) && is_capitalised(text, a);
        if follows
            && !is_capitalised(text, b)
            && b.score < 0.97
            && !lexicon().name_particles.contains(&lower(text, b))
        {
            b.clear();
        }
    }
}

/// Whether exactly one space stands between two words.
pub(super) fn adjoin(text: &[char], a: &Word, b: &Word) -> bool {
    text.get(a.end..b.start) == Some(&[' '])
}

pub(super) fn titles(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (before, word) = (&*before, &rest[0]);
        let title = match before {
            [.., title, stop] if stop.end == stop.start + 1 && stop.start == title.end => {
                match text[stop.start] {
                    '.' => title,
                    // "Doctor: Okafor", but not "Miss: Ann".
                    ':' if lexicon().titles_as_labels.contains(&lower(text, title)) => title,
                    _ => continue,
                }
            }
            [.., title] => title,
            [] => continue,
        };
        let gap = &text[before[i - 1].end..word.start];
        let titled = gap == [' '] && lexicon().titles.contains(&lower(text, title));
        if !titled || !is_capitalised(text, word) || word.personal() < 0.02 {
            continue;
        }
        // "Dr. Ada" is a given name only if a surname follows.
        let full = rest.get(1).is_some_and(|next| is_name(next) && adjoin(text, &rest[0], next));
        let word = &mut rest[0];
        if !full && matches!(word.entity, None | Some(Entity::GivenName | Entity::City)) {
            let score = word.personal().max(ANNOUNCED);
            word.set(Entity::Surname, score);
        }
    }
}

/// A capitalised word next to a sure name that may be personal is one.
pub(super) fn neighbours(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let (before, rest) = words.split_at_mut(i);
        let (a, b) = (&mut before[i - 1], &mut rest[0]);
        if !adjoin(text, a, b) || is_capitalised(text, a) != is_capitalised(text, b) {
            continue;
        }
        if !is_capitalised(text, a) {
            let likely = b.entity.is_none() && b.probability(Entity::Surname) >= LOWER_NEIGHBOUR;
            if a.entity == Some(Entity::GivenName) && likely && !is_no_name(&lower(text, b)) {
                b.set(Entity::Surname, b.personal());
            }
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
pub(super) fn full_names(text: &[char], words: &mut [Word]) {
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
        let alike = || is_capitalised(text, &words[start]) == is_capitalised(text, &words[end - 1]);
        if is_name(&words[start]) && end - start == 2 && alike() {
            let behind_surname = listed_behind(text, words, start)
                .is_some_and(|before| words[before].entity == Some(Entity::Surname));
            match (words[start].entity, words[end - 1].entity) {
                (Some(Entity::GivenName), Some(Entity::GivenName)) if !behind_surname => {
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

/// The word before word `i` and a comma ("Haddad, Pierre").
fn listed_behind(text: &[char], words: &[Word], i: usize) -> Option<usize> {
    let before = (0..i).rev().find(|&j| text[words[j].start].is_alphanumeric())?;
    (text.get(words[before].end..words[i].start) == Some(&[',', ' '])).then_some(before)
}

/// "Name: Haddad, Pierre" alone on its line, and "paid by Haddad, Pierre with": the first is the surname, if it can be
/// one. A list of given names ("for Ann, Pierre and me") goes on with a comma or "and".
pub(super) fn surname_first(text: &[char], words: &mut [Word]) {
    for i in 1..words.len() {
        let Some(first) = listed_behind(text, words, i) else { continue };
        let both_given = [first, i].iter().all(|&j| words[j].entity == Some(Entity::GivenName));
        let opened = text[..words[first].start].iter().rev().find(|c| **c != ' ');
        let closed = text[words[i].end..].first().is_none_or(|c| *c == '\n');
        let cue = (0..first).rev().find(|&j| text[words[j].start].is_alphanumeric());
        let presented = cue.is_some_and(|cue| {
            adjoin(text, &words[cue], &words[first])
                && lexicon().name_holders.contains(&lower(text, &words[cue]))
        });
        let next = words.get(i + 1).map(|next| lower(text, next)).unwrap_or_default();
        let listed = matches!(next.as_str(), "," | "and" | "or" | "&" | "und" | "y" | "et");
        let alone = closed && opened == Some(&':') || presented && !listed;
        if both_given && alone && words[first].probability(Entity::Surname) >= 0.02 {
            words[first].entity = Some(Entity::Surname);
        }
    }
}

/// Of a pair of names of which one is in capitals, that is the surname ("KIM Minjun", "Anna SCHMIDT").
pub(super) fn shouted(text: &[char], words: &mut [Word]) {
    let upper = |word: &Word| {
        let inside = &text[word.start..word.end];
        inside.len() >= 3 && inside.iter().all(|c| c.is_uppercase() || matches!(c, '-' | '\'' | '\u{2019}'))
    };
    for i in 1..words.len() {
        let (a, b) = (&words[i - 1], &words[i]);
        let pair = is_name(a)
            && is_name(b)
            && adjoin(text, a, b)
            && is_capitalised(text, a)
            && is_capitalised(text, b);
        if !pair || upper(a) == upper(b) {
            continue;
        }
        let (surname, given) = if upper(a) { (i - 1, i) } else { (i, i - 1) };
        words[surname].entity = Some(Entity::Surname);
        words[given].entity = Some(Entity::GivenName);
    }
}

/// A particle without a surname after it or a name before it is an ordinary word.
pub(super) fn particles(text: &[char], words: &mut [Word]) {
    for i in 0..words.len() {
        if !is_name(&words[i]) || !lexicon().name_particles.contains(&lower(text, &words[i])) {
            continue;
        }
        let following = i > 0 && is_name(&words[i - 1]) && adjoin(text, &words[i - 1], &words[i]);
        let before = words
            .get(i + 1)
            .is_some_and(|next| next.entity == Some(Entity::Surname) && adjoin(text, &words[i], next));
        if !following && !before {
            words[i].clear();
        }
    }
}

/// Sure names, and the parts of e-mail addresses, are names wherever else they stand capitalised.
pub(super) fn repeated(text: &[char], words: &mut [Word], fixed: &[Span]) {
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
        let parts: Vec<&str> =
            local.split(|c: char| !c.is_alphabetic()).filter(|part| part.chars().count() >= 3).collect();
        for (i, part) in parts.iter().enumerate() {
            let first = i == 0 && parts.len() > 1;
            let entity = if first { Entity::GivenName } else { Entity::Surname };
            known.entry((*part).to_owned()).or_insert((entity, if parts.len() > 1 { 0.002 } else { 0.05 }));
        }
    }
    for word in words.iter_mut().filter(|word| word.entity.is_none()) {
        if !text[word.start].is_uppercase() {
            continue;
        }
        let Some(&(entity, least)) = known.get(&lower(text, word)) else { continue };
        let (given, surname) = (word.probability(Entity::GivenName), word.probability(Entity::Surname));
        if given + surname >= least {
            let sure = given.max(surname) >= 0.02;
            let entity = match (sure, given > surname) {
                (true, true) => Entity::GivenName,
                (true, false) => Entity::Surname,
                (false, _) => entity,
            };
            word.set(entity, 0.5);
        }
    }
}
