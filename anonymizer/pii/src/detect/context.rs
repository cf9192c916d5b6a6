//! Numbers and codes: what the keyword before says they are.
//!
//! The model sees that something is a number that identifies a person; which kind it is, people say in words:
//! "passport no. ...", "routing number: ...". Where such a keyword stands close before a value, it decides the
//! type, also where the model saw nothing; where the closest keyword speaks of orders, versions or tracking codes,
//! the value is not personal.

use super::decode::Found;
use super::entity::{self, Entity};
use super::span::{Source, Span};
use super::words::Word;
use crate::lexicon::{Meaning, lexicon};
use Meaning::{Is, NotPersonal};

/// How far back a keyword is looked for, in code points, line breaks excluded.
const REACH: usize = 48;
/// How far before a value a keyword may end for the value to count without the model.
const CLOSE: usize = 26;

/// A value that may be a number or code: `[start, end)`.
#[derive(Clone, Copy, Debug)]
struct Value {
    start: usize,
    end: usize,
}

/// Dates, amounts, hashes and the like identify nobody.
pub(super) fn things(text: &[char], found: &mut Vec<Found>) {
    found.retain(|found| {
        let none = is_no_identifier(text, found.start, found.end) || is_ratio(text, found);
        !is_numeric_kind(found.entity) || !none
    });
}

/// Numbers and codes are what the keyword before them says.
pub(super) fn keywords(text: &[char], found: &mut Vec<Found>, fixed: &[Span]) {
    for value in values(text) {
        let mut recognized = fixed.iter().filter(|span| span.start < value.end && value.start < span.end);
        let spoken = keyword(text, value.start);
        // A phone number has no check digits: a keyword that says otherwise is worth more.
        let mistaken = |span: &Span| {
            span.label.as_str() == Entity::PhoneNumber.as_str()
                && matches!(spoken, Some((Is(entity), _)) if entity != Entity::PhoneNumber)
        };
        if recognized.any(|span| !mistaken(span)) {
            continue;
        }
        let overlapping = |found: &Found| found.overlaps(value.start, value.end);
        // Two capitals before a number may have been taken for a state.
        let correctable = |found: &Found| {
            is_numeric_kind(found.entity) || (spoken.is_some() && found.entity == Entity::State)
        };
        if found.iter().any(|found| overlapping(found) && !correctable(found)) {
            continue;
        }
        let scored = found.iter().filter(|found| overlapping(found)).map(|found| found.score);
        let score = scored.fold(0.0f32, f32::max);
        match spoken {
            Some((Is(entity), distance))
                if fits(text, value, entity) && (score > 0.0 || distance <= CLOSE) =>
            {
                let entity = match (entity, digits(text, value)) {
                    (Entity::Ssn, count) if count != 9 => Entity::TaxId,
                    // A Japanese My Number has twelve digits.
                    (Entity::GovernmentId, count) if count != 12 && says_my_number(text, value.start) => {
                        Entity::PhoneNumber
                    }
                    _ => entity,
                };
                // A keyword says which kind of number it is, but phones the model knows better.
                if entity == Entity::PhoneNumber && score > 0.0 && !is_phone_like(text, value) {
                    continue;
                }
                found.retain(|found| !overlapping(found));
                let source = Source::Context;
                found.push(Found {
                    start: value.start,
                    end: value.end,
                    entity,
                    score: score.max(0.75),
                    source,
                });
            }
            Some((NotPersonal, distance)) if distance <= CLOSE => found.retain(|found| !overlapping(found)),
            _ if has_order_prefix(text, value) => found.retain(|found| !overlapping(found)),
            None if score == 0.0 && is_dialled(text, value) => {
                let (entity, source) = (Entity::PhoneNumber, Source::Context);
                found.push(Found { start: value.start, end: value.end, entity, score: 0.6, source });
            }
            _ => {}
        }
    }
}

/// Probability of another type from which the model is believed over a recognizer that knows the form only.
const CONTRADICTED: f32 = 0.7;

/// Whether a recognizer's span is more likely something else.
///
/// Recognizers of e-mail addresses, IBANs and the like are never doubted. Phone numbers, addresses of machines
/// and tax numbers are bare digits: a date, a version, an order number or the number that a keyword names looks the
/// same.
pub(super) fn is_doubtful(text: &[char], words: &[Word], span: &Span) -> bool {
    let Some(label) = Entity::from_label(span.label.as_str()) else { return false };
    if !matches!(span.source, Source::Recognizer(_)) {
        return false;
    }
    let inside = &text[span.start..span.end];
    let spoken = keyword(text, span.start).filter(|(_, distance)| *distance <= CLOSE);
    match label {
        Entity::IpAddress => {
            let window: Vec<char> = text[span.start.saturating_sub(REACH)..span.start]
                .iter()
                .flat_map(|c| c.to_lowercase())
                .collect();
            let line = window.iter().rposition(|c| *c == '\n').map_or(0, |at| at + 1);
            let versioned =
                lexicon().version_words.iter().any(|word| last_end(&window[line..], word).is_some());
            let prefixed = window.last() == Some(&'v');
            !inside.contains(&':') && (versioned || prefixed)
        }
        Entity::PhoneNumber => {
            let ordered =
                span.start >= 2 && text[span.start - 1] == '-' && text[span.start - 2].is_alphabetic();
            let postcode = inside.len() == 10 && inside[5] == '-';
            let other =
                words.iter().filter(|word| span.start < word.end && word.start < span.end).any(|word| {
                    let (best, probability) = word.best();
                    let numeric =
                        best == Entity::ZipCode || (best.is_number() && best != Entity::PhoneNumber);
                    numeric && probability >= CONTRADICTED
                });
            let not_personal = matches!(spoken, Some((NotPersonal, _)));
            is_date(inside) || ordered || postcode || not_personal || (other && inside.first() != Some(&'+'))
        }
        // Numbers of orders and parcels have check digits too.
        Entity::CreditCardNumber => {
            let grouped = inside.iter().any(|c| matches!(c, ' ' | '-'));
            !grouped && matches!(spoken, Some((NotPersonal, _)))
        }
        // The check digit of an identity number fits one in ten other numbers.
        Entity::Ssn | Entity::TaxId | Entity::GovernmentId => {
            let same = [Entity::Ssn, Entity::TaxId, Entity::GovernmentId, Entity::MedicalRecord];
            matches!(spoken, Some((Is(entity), _)) if !same.contains(&entity))
        }
        _ => false,
    }
}

/// Types that a keyword can correct: numbers, and what the model takes parts of numbers for.
fn is_numeric_kind(entity: Entity) -> bool {
    entity.is_number() || matches!(entity, Entity::ZipCode | Entity::BuildingNumber)
}

/// Groups of digits and capitals with at least four digits, joined by single spaces, hyphens, dots or slashes.
fn values(text: &[char]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let is_start = text[at].is_alphanumeric() || matches!(text[at], '+' | '(');
        if !is_start || (at > 0 && text[at - 1].is_alphanumeric()) {
            at += 1;
            continue;
        }
        let end = value_end(text, at);
        let value = Value { start: at, end };
        if end > at && digits(text, value) >= 4 && !is_amount(text, value) {
            values.push(value);
        }
        at = end.max(at + 1);
    }
    values
}

/// End of the value that begins at `start`, or `start` if none does.
fn value_end(text: &[char], start: usize) -> usize {
    let mut at = start;
    let mut end = start;
    loop {
        while at < text.len() && (matches!(text[at], '(' | ')') || (text[at] == '+' && at == start)) {
            at += 1;
        }
        let group = at;
        while at < text.len() && text[at].is_alphanumeric() {
            at += 1;
        }
        let chars = &text[group..at];
        let has_digit = chars.iter().any(|c| c.is_ascii_digit());
        let is_code = chars.iter().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
        // A group without digits is part of a code only if it is a few capitals at an end ("AB 12 34 56 C").
        let announces = matches!(chars, ['I', 'D'] | ['N', 'O']) && text.get(at) == Some(&' ');
        if chars.is_empty() || !is_code || (!has_digit && (chars.len() > 2 || announces)) {
            return end;
        }
        if has_digit || end > start || joins_digits(text, at) {
            end = at;
        } else {
            return end;
        }
        if at < text.len() && text[at] == ')' {
            at += 1;
        }
        match text.get(at) {
            Some(' ' | '-' | '/' | '.' | '\u{a0}') => at += 1,
            _ => return end,
        }
    }
}

/// Whether a separator and a digit stand at `at`.
fn joins_digits(text: &[char], at: usize) -> bool {
    matches!(text.get(at), Some(' ' | '-')) && text.get(at + 1).is_some_and(char::is_ascii_digit)
}

fn digits(text: &[char], value: Value) -> usize {
    text[value.start..value.end].iter().filter(|c| c.is_ascii_digit()).count()
}

fn is_phone_like(text: &[char], value: Value) -> bool {
    let inside = &text[value.start..value.end];
    (7..=15).contains(&digits(text, value)) && !inside.iter().any(|c| c.is_alphabetic())
}

/// A number as it is dialled: from `0` or `+`, 9 to 13 digits in groups, the first with an area code.
fn is_dialled(text: &[char], value: Value) -> bool {
    let inside = &text[value.start..value.end];
    let opened = usize::from(inside[0] == '(');
    let first = inside[opened..].iter().take_while(|c| c.is_ascii_digit()).count();
    let area = inside.contains(&' ') || (3..=5).contains(&first);
    let grouped = inside.iter().any(|c| matches!(c, ' ' | '-' | '/' | ')'));
    is_phone_like(text, value)
        && (9..=13).contains(&digits(text, value))
        && matches!(inside.get(opened), Some('0' | '+'))
        && area
        && grouped
        && !inside.contains(&'.')
}

/// Whether a value can be of a type.
fn fits(text: &[char], value: Value, entity: Entity) -> bool {
    let inside = &text[value.start..value.end];
    if is_date(inside) || is_no_identifier(text, value.start, value.end) {
        return false;
    }
    (entity.spec().fits_keyword)(&entity::Value::new(inside))
}

/// Two numbers with a slash between them, as `10240/65536`, that the model alone takes for an identifier.
fn is_ratio(text: &[char], found: &Found) -> bool {
    let digit = |c: &char| c.is_ascii_digit();
    let start = text[..found.start].iter().rposition(|c| !digit(c) && *c != '/').map_or(0, |at| at + 1);
    let end =
        text[found.end..].iter().position(|c| !digit(c) && *c != '/').map_or(text.len(), |n| found.end + n);
    let parts: Vec<&[char]> = text[start..end].split(|c| *c == '/').collect();
    let numbers = parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && part.iter().all(digit));
    let inside = found.start >= start && text[found.start..found.end].iter().all(|c| digit(c) || *c == '/');
    numbers
        && inside
        && matches!(
            found.entity,
            Entity::TaxId | Entity::BankAccount | Entity::GovernmentId | Entity::Passport
        )
}

/// Money, percentages and measures.
fn is_amount(text: &[char], value: Value) -> bool {
    let before = text[..value.start].iter().rev().find(|c| **c != ' ');
    if before.is_some_and(|c| matches!(c, '$' | '€' | '£' | '¥')) {
        return true;
    }
    let following = &text[value.end..];
    let decimals = matches!(following, [',' | '.', c, ..] if c.is_ascii_digit());
    let unit = following.iter().find(|c| **c != ' ').is_some_and(|c| matches!(c, '%' | '€' | '°'));
    let from_decimals = value.start >= 2
        && matches!(text[value.start - 1], ',' | '.')
        && text[value.start - 2].is_ascii_digit();
    decimals || unit || from_decimals
}

/// `2025-03-14`, `14.3.2025`, `3/14/25`, `03/2025`.
fn is_date(inside: &[char]) -> bool {
    let text: String = inside.iter().collect();
    let parts: Vec<&str> = text.split(['-', '/', '.']).collect();
    if let [month, year] = parts[..] {
        let month = month.len() <= 2 && month.parse::<u32>().is_ok_and(|n| (1..=12).contains(&n));
        return month && year.len() == 4 && (year.starts_with("19") || year.starts_with("20"));
    }
    let [a, b, c] = parts[..] else { return false };
    let number = |part: &str, longest: usize| part.len() <= longest && part.parse::<u32>().is_ok();
    let year = |part: &str| part.len() == 4 && (part.starts_with("19") || part.starts_with("20"));
    let short = |part: &str| number(part, 2) && part.parse::<u32>().is_ok_and(|n| n <= 31);
    // "77/03/2025": the number of an invoice in a month.
    let monthly = number(a, 4) && short(b) && year(c) && text.contains('/');
    monthly || (year(a) && short(b) && short(c)) || (short(a) && short(b) && (year(c) || number(c, 2)))
}

/// A UUID (RFC 9562).
fn is_uuid(inside: &[char]) -> bool {
    inside.len() == 36
        && inside.iter().enumerate().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => *c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// An ISBN of 13 digits in groups (ISO 2108).
fn is_book(inside: &[char]) -> bool {
    let digits: String = inside.iter().filter(|c| c.is_ascii_digit()).collect();
    let grouped = inside.iter().filter(|c| matches!(c, '-' | ' ')).count() == 4;
    digits.len() == 13 && grouped && (digits.starts_with("978") || digits.starts_with("979"))
}

/// A vehicle identification number (ISO 3779): 17 digits and capitals without I, O and Q.
fn is_vehicle(inside: &[char]) -> bool {
    inside.len() == 17
        && inside
            .iter()
            .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase() && !matches!(c, 'I' | 'O' | 'Q'))
        && inside.iter().filter(|c| c.is_ascii_uppercase()).count() >= 3
}

/// Dates, amounts, hashes, identifiers of things, and numbers with `#` before.
fn is_no_identifier(text: &[char], start: usize, end: usize) -> bool {
    let inside = &text[start..end];
    let hash = inside.len() >= 32
        && inside.iter().all(|c| c.is_ascii_hexdigit() || *c == '-')
        && inside.iter().any(|c| c.is_ascii_lowercase());
    // `3f9c2ab`, a commit.
    let commit = (7..=40).contains(&inside.len())
        && inside.iter().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
        && inside.iter().any(|c| c.is_ascii_lowercase());
    // "129.90" and other decimal numbers.
    let text_digits = inside.iter().filter(|c| c.is_ascii_digit()).count();
    let decimal =
        inside.len() == text_digits + 1 && inside.iter().rev().take(3).any(|c| matches!(c, '.' | ','));
    let quad = inside.iter().collect::<String>().parse::<std::net::Ipv4Addr>().is_ok();
    quad || is_book(inside)
        || hash
        || commit
        || decimal
        || is_uuid(inside)
        || is_vehicle(inside)
        || is_date(inside)
        || is_amount(text, Value { start, end })
}

fn is_order_prefix(word: &str) -> bool {
    lexicon().order_prefixes.iter().any(|prefix| prefix.eq_ignore_ascii_case(word))
}

fn has_order_prefix(text: &[char], value: Value) -> bool {
    // The prefix is part of the value ("SO48213") or precedes it ("ORD-801639").
    let mut start = value.start;
    if start > 0 && text[start - 1] == '-' {
        start -= 1;
    }
    while start > 0 && text[start - 1].is_ascii_uppercase() {
        start -= 1;
    }
    let prefix: String = text[start..value.end].iter().take_while(|c| c.is_ascii_uppercase()).collect();
    lexicon().order_prefixes.contains(&prefix)
}

/// The keyword closest before `at`, and how far before it ends. A value that begins its line is announced on the
/// line before.
fn keyword(text: &[char], at: usize) -> Option<(Meaning, usize)> {
    let mut from = at;
    let mut breaks = 0;
    while from > 0 && at - from < REACH {
        let c = text[from - 1];
        if c == '\n' {
            breaks += 1;
            let blank = text[from..at].iter().all(|c| !c.is_alphanumeric());
            if breaks > 1 || !blank {
                break;
            }
        }
        // What precedes another value speaks of that one.
        if c == ';' {
            break;
        }
        from -= 1;
    }
    let window: Vec<char> = text[from..at].iter().map(|c| c.to_lowercase().next().unwrap_or(*c)).collect();
    let mut best: Option<(Meaning, usize, usize)> = None;
    for (word, meaning) in &lexicon().keywords {
        let Some(end) = last_end(&window, word) else { continue };
        let distance = window.len() - end;
        let length = word.chars().count();
        // "license plate" beats "license": of keywords that overlap, the longer one counts.
        if best.is_none_or(|(_, other, other_length)| {
            distance < other || (distance == other && length > other_length)
        }) {
            best = Some((*meaning, distance, length));
        }
    }
    let (meaning, distance, _) = best?;
    let between = &window[window.len() - distance..];
    // "Order no. 4711", but not "Reference: Ann Lee, 555-0199".
    let between_words: String = between.iter().collect();
    let direct = between_words
        .split(|c: char| !c.is_alphabetic())
        .all(|word| word.is_empty() || lexicon().keyword_fillers.contains(word) || is_order_prefix(word));
    if meaning == NotPersonal && !direct {
        return None;
    }
    let other_value = between.iter().filter(|c| c.is_ascii_digit()).count() >= 3;
    (!other_value).then_some((meaning, distance))
}

/// Whether "my number" precedes a value.
fn says_my_number(text: &[char], at: usize) -> bool {
    let window: Vec<char> =
        text[at.saturating_sub(REACH)..at].iter().map(|c| c.to_ascii_lowercase()).collect();
    last_end(&window, "my number").is_some()
}

/// Where the last occurrence of a keyword as a whole word ends; a plural or `#` may follow.
fn last_end(window: &[char], word: &str) -> Option<usize> {
    let word: Vec<char> = word.chars().collect();
    (0..=window.len().checked_sub(word.len())?).rev().find_map(|start| {
        let end = start + word.len();
        // Scripts that put no spaces between words have no whole words to be seen.
        let unspaced = |c: &char| is_unspaced(*c);
        let open = word.first().is_some_and(unspaced);
        let close = word.last().is_some_and(unspaced);
        let whole = window[start..end] == word[..]
            && (start == 0 || open || !window[start - 1].is_alphanumeric())
            && (close || !window.get(end).is_some_and(|c| c.is_alphanumeric() && *c != 's'))
            && !window.get(end + 1).is_some_and(|c| c.is_alphanumeric() && window[end] == 's');
        whole.then_some(end)
    })
}

/// Whether a letter belongs to a script without spaces between words: Han, kana, Hangul (particles follow without a
/// space) and Thai.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}')
}

/// Extends spans of numbers over the rest of their value, and drops what is left of others inside it.
pub(super) fn snap(text: &[char], found: &mut Vec<Found>, fixed: &[Span]) {
    for value in values(text) {
        if fixed.iter().any(|span| span.start < value.end && value.start < span.end) {
            continue;
        }
        let inside: Vec<usize> =
            (0..found.len()).filter(|&i| found[i].overlaps(value.start, value.end)).collect();
        let strongest = inside
            .iter()
            .copied()
            .filter(|&i| found[i].entity.is_number())
            .max_by(|&a, &b| found[a].score.total_cmp(&found[b].score));
        let Some(strongest) = strongest else { continue };
        if inside.iter().any(|&i| !is_numeric_kind(found[i].entity)) {
            continue;
        }
        // Words of capitals around a number are part of it only where a keyword said so.
        let all = &text[value.start..value.end];
        let spaced_letters = all.contains(&' ') && all.iter().any(|c| c.is_alphabetic());
        if spaced_letters && found[strongest].source == Source::Model {
            continue;
        }
        let mut kept = found[strongest].clone();
        (kept.start, kept.end) = (kept.start.min(value.start), kept.end.max(value.end));
        let (start, end) = (kept.start, kept.end);
        found.retain(|found| !found.overlaps(start, end));
        found.push(kept);
    }
}
