//! Phone numbers: ITU-T E.164 with `+` or `00`, the North American form, and national forms of the configured countries
//! with the numbering plans of crate `phonenumber` (libphonenumber's).
//!
//! The digits of a phone number look like those of accounts and identity numbers, so numbers without the marks of a
//! phone number count only with words around them that speak of phones.

use phonenumber::country::Id;
use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context, continues_word};
use crate::detect::Entity;
use crate::error::{Error, Result};
use crate::lexicon::{Meaning, lexicon};

const INTERNATIONAL: &str = r"(?:\+|\b00) ?[1-9](?:[ \u{a0}().\u{2011}\u{2013}/-]{0,3}\d){6,14}";
const NORTH_AMERICAN: &str =
    r"(?:(?:\+|00)?1[-. ]?)?(?:\([2-9]\d{2}\)[ -]?|[2-9]\d{2}[-.])[2-9]\d{2}[-. ]\d{4}";
/// A trunk prefix, or digits in groups.
const NATIONAL: &str = r"\(?\d{1,5}\)?(?:[ \u{a0}().\u{2011}\u{2013}/-]{0,2}\d){5,11}";
/// After a number.
const EXTENSION: &str = r"(?i)^,? ?(?:ext\.?|extension|x|#) ?\d{1,6}\b";

const CONTEXT: &[&str] = &[
    "phone",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "cellphone",
    "call",
    "call me",
    "fax",
    "whatsapp",
    "text me",
    "sms",
    "callback",
    "dial",
    "reach",
    "ring",
    "number is",
    "telefon",
    "tel.",
    "handy",
    "mobil",
    "rufnummer",
    "téléphone",
    "portable",
    "teléfono",
    "móvil",
    "telefono",
    "cellulare",
    "telefoon",
];

/// How far before a number it is said that it is one, in bytes.
const CONTEXT_REACH: usize = 40;

/// Dates and US postal codes of nine digits.
const OTHER: &str = r"^(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{5}-\d{4})$";

/// A date inside.
const DATED: &str = r"(?:19|20)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b";

/// Digits of a national number.
const NATIONAL_DIGITS: std::ops::RangeInclusive<usize> = 7..=12;
/// Digits of an E.164 number, country code included.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// The recognizer of phone numbers.
pub struct Phone {
    international: Regex,
    north_american: Regex,
    national: Regex,
    extension: Regex,
    other: Regex,
    dated: Regex,
    countries: Vec<Id>,
    /// Words before a number that speak of phones, in the languages of the lexicon.
    words: Vec<&'static str>,
}

impl Phone {
    /// A recognizer that knows the national forms of these countries (ISO 3166 codes).
    ///
    /// # Errors
    /// If a code is unknown.
    pub fn new(countries: &[String]) -> Result<Self> {
        let parse = |code: &String| {
            code.parse().map_err(|_| Error::Config {
                field: "countries".to_owned(),
                expected: "ISO 3166 codes of two letters".to_owned(),
                got: code.clone(),
            })
        };
        Ok(Self {
            international: built_in(INTERNATIONAL),
            north_american: built_in(NORTH_AMERICAN),
            national: built_in(NATIONAL),
            extension: built_in(EXTENSION),
            other: built_in(OTHER),
            dated: built_in(DATED),
            countries: countries.iter().map(parse).collect::<Result<_>>()?,
            words: words(),
        })
    }

    fn push(
        &self,
        text: &str,
        range: std::ops::Range<usize>,
        score: f32,
        reason: &'static str,
        found: &mut Vec<Candidate>,
    ) {
        // "(090-1234-5678)": the parenthesis is the sentence's.
        let unclosed = text[range.clone()].starts_with('(') && !text[range.clone()].contains(')');
        let range = range.start + usize::from(unclosed)..range.end;
        let extension = self.extension.find(&text[range.end..]).map_or(0, |place| place.end());
        let range = range.start..range.end + extension;
        found.push(Candidate { range, label: Entity::PhoneNumber.into(), score, reason });
    }

    /// A version ("70.0.3538.54-2"), one with its date ("0.10.2 (2022-02-10)"), or a link to a commit ("[0483042](https:").
    fn is_version(&self, text: &str, range: &std::ops::Range<usize>) -> bool {
        let number = &text[range.clone()];
        let opened = number.rfind('(').is_some_and(|at| at > 0 && !number[at..].contains(')'));
        let link = text[range.end..].starts_with("](") || text[..range.start].ends_with("[#");
        let groups: Vec<&str> = number.split(['.', '-']).collect();
        let dotted = number.matches('.').count() >= 3 && groups.iter().any(|group| group.len() == 1);
        opened || link || dotted || self.dated.is_match(number)
    }

    fn is_national(&self, number: &str) -> bool {
        self.countries.iter().any(|&country| is_valid(Some(country), number))
    }
}

impl Recognizer for Phone {
    fn name(&self) -> &str {
        "phone"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.international.find_iter(text).filter(|place| is_free(text, &place.range())) {
            let digits: String = place.as_str().chars().filter(char::is_ascii_digit).collect();
            let digits = if place.as_str().starts_with('+') { &digits[..] } else { &digits[2..] };
            if !DIGITS.contains(&digits.len()) {
                continue;
            }
            // "+44 (0)20": the trunk zero is not part of the number.
            let number = format!("+{digits}");
            let without_trunk = place.as_str().replace("(0)", "");
            if is_valid(None, &number) || is_valid(None, &without_trunk) {
                self.push(text, place.range(), 1.0, "international phone number", found);
            } else if place.as_str().starts_with('+') {
                self.push(text, place.range(), 0.8, "form of an international phone number", found);
            }
        }
        for place in self.north_american.find_iter(text).filter(|place| is_free(text, &place.range())) {
            self.push(text, place.range(), 0.95, "North American phone number", found);
        }
        for place in self.national.find_iter(text).filter(|place| is_free(text, &place.range())) {
            let number = place.as_str();
            let digits = number.bytes().filter(u8::is_ascii_digit).count();
            if !NATIONAL_DIGITS.contains(&digits)
                || self.other.is_match(number)
                || self.is_version(text, &place.range())
            {
                continue;
            }
            let spoken_of = context::in_front(text, &place.range(), &self.words, CONTEXT_REACH);
            let is_marked =
                number.starts_with(['0', '(']) && number.contains([' ', '-', '/', ')']) && digits >= 10;
            if (spoken_of || is_marked) && self.is_national(number) || spoken_of && is_of_some_country(number)
            {
                let reason = if spoken_of {
                    "national phone number and words before it"
                } else {
                    "national phone number with a trunk prefix and groups"
                };
                self.push(text, place.range(), if spoken_of { 0.9 } else { 0.8 }, reason, found);
            }
        }
    }
}

/// Keywords for phone numbers, and further words that speak of phones.
fn words() -> Vec<&'static str> {
    let is_phone = |meaning: &Meaning| *meaning == Meaning::Is(Entity::PhoneNumber);
    let keywords = lexicon().keywords.iter().filter(|(_, meaning)| is_phone(meaning));
    keywords.map(|(word, _)| word.as_str()).chain(CONTEXT.iter().copied()).collect()
}

/// Countries whose national forms count where words speak of a phone: those of most people, of every region.
const WORLD: &[&str] = &[
    "US", "GB", "DE", "FR", "ES", "IT", "NL", "CN", "IN", "ID", "PK", "NG", "BR", "BD", "RU", "MX", "JP",
    "ET", "PH", "EG", "VN", "CD", "IR", "TR", "TH", "TZ", "ZA", "KE", "MM", "KR", "CO", "UG", "SD", "AR",
    "DZ", "IQ", "PL", "CA", "MA", "SA", "UA", "AO", "UZ", "YE", "PE", "MY", "GH", "MZ", "NP", "MG", "CI",
    "VE", "CM", "AU", "TW", "LK", "KZ", "CL", "RO", "EC", "GT", "SN", "KH", "PT", "BE", "SE", "CH", "AT",
    "CZ", "GR", "HU", "IL", "AE", "DK", "FI", "NO", "SK", "IE", "NZ", "BG", "RS", "HR", "SG", "HK", "LT",
    "SI", "LV", "EE", "TN", "JO", "LB", "BO", "DO", "CU", "UY", "PY", "BY", "GE", "AM", "AZ",
];

fn is_of_some_country(number: &str) -> bool {
    // Of fewer digits some country has nearly every number.
    number.bytes().filter(u8::is_ascii_digit).count() >= 8
        && WORLD.iter().filter_map(|code| code.parse().ok()).any(|country| is_valid(Some(country), number))
}

/// Whether the numbering plan has such a number.
fn is_valid(country: Option<Id>, number: &str) -> bool {
    phonenumber::parse(country, number).is_ok_and(|number| phonenumber::is_valid(&number))
}

/// Whether a range is no part of a longer number, word, date or price.
fn is_free(text: &str, range: &std::ops::Range<usize>) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let joined = before(text, range.start)
        .is_some_and(|c| continues_word(c) || matches!(c, '_' | '$' | '\u{20ac}' | '\u{a3}' | '#' | '@'))
        || after(text, range.end).is_some_and(|c| (continues_word(c) && !matches!(c, 'x' | 'e')) || c == '_');
    let head = &text[..range.start];
    let goes_back = head.ends_with(['-', '.', '/', ':', ',']) && digit(before(head, head.len() - 1));
    let tail = &text[range.end..];
    let goes_on = tail.starts_with(['-', '.', '/', ':', ',']) && digit(after(tail, 1));
    !joined && !goes_back && !goes_on
}
