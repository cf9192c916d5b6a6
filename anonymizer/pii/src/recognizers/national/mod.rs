//! National identity, tax and social insurance numbers, by country. Forms and check digits are those of the issuing
//! authorities (see the comment of each check). A form that many other numbers have, too, counts only next to a word for
//! it; the words are those of the lexicon for the type, and the country's own names below.

mod checks;
mod forms;

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context};
use crate::detect::Entity;
use crate::lexicon::{Meaning, lexicon};
use forms::FORMS;

/// How far before a number a word for its type may begin, in bytes.
const TYPE_REACH: usize = 24;

/// One number.
struct Form {
    /// ISO 3166 code and name of the number.
    name: &'static str,
    entity: Entity,
    pattern: &'static str,
    check: fn(&str) -> bool,
    /// Whether form and check digits tell it from other numbers without words around it.
    alone: bool,
    /// Its names, in lower case.
    words: &'static [&'static str],
}

const fn form(
    name: &'static str,
    entity: Entity,
    pattern: &'static str,
    check: fn(&str) -> bool,
    alone: bool,
    words: &'static [&'static str],
) -> Form {
    Form { name, entity, pattern, check, alone, words }
}

/// A form with its pattern compiled, and all words for it.
struct Compiled {
    form: &'static Form,
    pattern: Regex,
}

/// The recognizer of national numbers.
pub struct National {
    forms: Vec<Compiled>,
    words: Vec<(Entity, Vec<&'static str>)>,
}

impl National {
    /// The recognizer.
    pub fn new() -> Self {
        let compiled =
            |form: &'static Form| Compiled { form, pattern: built_in(&format!("(?:{})", form.pattern)) };
        let words = |entity: Entity| {
            let keywords = lexicon().keywords.iter().filter(|(_, meaning)| *meaning == Meaning::Is(entity));
            (
                entity,
                keywords.map(|(word, _)| word.as_str()).filter(|word| word.chars().count() > 2).collect(),
            )
        };
        Self {
            forms: FORMS.iter().map(compiled).collect(),
            words: vec![words(Entity::GovernmentId), words(Entity::TaxId)],
        }
    }
}

impl Default for National {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for National {
    fn name(&self) -> &str {
        "national"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for Compiled { form, pattern } in &self.forms {
            let mut from = 0;
            while let Some(place) = pattern.find_at(text, from) {
                let range = place.range();
                from = range.end;
                if !is_free(text, &range) || !(form.check)(place.as_str()) {
                    // One number may begin inside what looked like another.
                    from = range.start + after(text, range.start).map_or(1, char::len_utf8);
                    continue;
                }
                let own = context::near(text, &range, form.words);
                let of_type = || {
                    let words = self.words.iter().find(|(entity, _)| *entity == form.entity);
                    let checked = !std::ptr::fn_addr_eq(form.check, checks::any as fn(&str) -> bool);
                    checked
                        && words.is_some_and(|(_, words)| context::in_front(text, &range, words, TYPE_REACH))
                };
                if form.alone || own || of_type() {
                    let score = if own { 1.0 } else { 0.9 };
                    found.push(Candidate { range, label: form.entity.into(), score, reason: form.name });
                }
            }
        }
    }
}

/// Whether a range is no part of a longer number, code or amount.
fn is_free(text: &str, range: &std::ops::Range<usize>) -> bool {
    let joins = |c: Option<char>| {
        c.is_some_and(|c| {
            (c.is_alphanumeric() && !crate::detect::context::is_unspaced(c))
                || matches!(c, '_' | '+' | '#' | '$' | '€' | '£')
        })
    };
    let (head, tail) = (&text[..range.start], &text[range.end..]);
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    // A number in groups may be the end or the beginning of a longer one.
    let grouped = text[range.clone()].contains(' ');
    let separator = |c: char| matches!(c, '-' | '.' | '/' | ',') || grouped && c == ' ';
    let came_from = head.ends_with(separator) && digit(before(head, head.len() - 1));
    let goes_on = tail.starts_with(separator) && digit(after(tail, 1));
    !joins(before(text, range.start)) && !joins(after(text, range.end)) && !came_from && !goes_on
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid numbers from the documentation of the issuing authorities, or computed with their rules.
    const VALID: &[(&str, &str)] = &[
        ("CN resident identity", "11010519491231002X"),
        ("BR CPF", "529.982.247-25"),
        ("BR CNPJ", "11.222.333/0001-81"),
        ("RU SNILS", "112-233-445 95"),
        ("MX CURP", "HEGG560427MVZRRL04"),
        ("FR register", "2 55 08 14 168 025 38"),
        ("IT codice fiscale", "RSSMRA85T10A562S"),
        ("ES DNI", "12345678Z"),
        ("ES NIE", "X1234567L"),
        ("FI HETU", "131052-308T"),
        ("IE PPS", "1234567FA"),
        ("CH AHV", "756.9217.0769.85"),
        ("SG NRIC", "S1234567D"),
        ("HK identity card", "A123456(3)"),
        ("TW identity card", "A123456789"),
        ("CL RUT", "12.345.678-5"),
        ("AR CUIL with hyphens", "20-12345678-6"),
        ("SE personnummer", "811228-9874"),
        ("NO fødselsnummer", "15076500565"),
        ("CZ rodné číslo", "736028/5163"),
        ("RO CNP", "1960523460024"),
        ("RS JMBG", "0101006500006"),
        ("IN Aadhaar", "2341 2341 2346"),
        ("TR identity", "10000000146"),
        ("PL PESEL", "44051401359"),
        ("NL BSN", "111222333"),
        ("GB NHS", "943 476 5919"),
        ("AU TFN", "123 456 782"),
        ("AU ABN", "51 824 753 556"),
        ("CA SIN", "046 454 286"),
        ("JP My Number", "1234 5678 9018"),
        ("TH citizen", "1-1018-00035-40-1"),
        ("DE tax", "86095742719"),
        ("HR OIB", "69435151530"),
        ("EE isikukood", "37605030299"),
        ("BG EGN", "7523169263"),
        ("IR national code", "0499370899"),
        ("ZA identity", "8001015009087"),
        ("PT NIF", "123456789"),
        ("GR AFM", "094259216"),
        ("BE register with marks", "85.07.30-033.28"),
        ("RU INN", "7707083893"),
        ("AT social insurance", "1237 010180"),
        ("IL identity", "123456782"),
    ];

    #[test]
    fn valid_numbers_pass_and_a_wrong_digit_is_noticed() {
        for (name, number) in VALID {
            let form = FORMS.iter().find(|form| form.name == *name).unwrap_or_else(|| panic!("{name}"));
            let pattern = Regex::new(&format!("^(?:{})$", form.pattern)).unwrap();
            assert!(pattern.is_match(number), "{name}: form of {number}");
            assert!((form.check)(number), "{name}: check of {number}");
            // Of all single wrong digits, a check notices nearly all.
            let (mut tried, mut noticed) = (0, 0);
            for (at, _) in number.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
                for digit in '0'..='9' {
                    let mut wrong = (*number).to_owned();
                    wrong.replace_range(at..=at, &digit.to_string());
                    if wrong != *number && pattern.is_match(&wrong) {
                        tried += 1;
                        noticed += usize::from(!(form.check)(&wrong));
                    }
                }
            }
            assert!(noticed * 10 >= tried * 8, "{name}: {noticed} of {tried}");
        }
    }

    #[test]
    fn names_are_unique_and_plain_numbers_need_words() {
        let names: std::collections::BTreeSet<&str> = FORMS.iter().map(|form| form.name).collect();
        assert_eq!(names.len(), FORMS.len());
        let found = |text: &str| {
            let mut found = Vec::new();
            National::new().find(text, &mut found);
            found.iter().filter(|candidate| candidate.reason == "PL PESEL").count()
        };
        assert_eq!(found("order 44051401359"), 0);
        assert!(found("PESEL: 44051401359") > 0);
        assert_eq!(found("PESEL: 44051401358"), 0);
    }
}
