//! Payment card numbers: ISO/IEC 7812-1, the Luhn check (annex B) and the networks' number ranges and lengths.

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context, continues_word};
use crate::detect::Entity;

/// 12 to 19 digits in groups.
const PATTERN: &str = r"\d(?:[ -]?\d){11,18}";

const CONTEXT: &[&str] = &[
    "card",
    "cards",
    "credit",
    "debit",
    "visa",
    "mastercard",
    "amex",
    "american express",
    "discover",
    "maestro",
    "pan",
    "cc",
    "cvv",
    "cvc",
    "exp",
    "kreditkarte",
    "karte",
    "carte",
    "tarjeta",
    "carta",
];

/// The recognizer of payment card numbers.
pub struct Card {
    pattern: Regex,
}

impl Card {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pattern: built_in(PATTERN) }
    }
}

impl Default for Card {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.pattern.find_iter(text) {
            let range = place.range();
            let digits: Vec<u8> =
                place.as_str().bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect();
            let joined = before(text, range.start)
                .is_some_and(|c| continues_word(c) || matches!(c, '_' | '+'))
                || after(text, range.end).is_some_and(|c| continues_word(c) || c == '_');
            if joined || digits.iter().all(|&digit| digit == digits[0]) {
                continue;
            }
            let known = is_known(&digits);
            let spoken_of = context::near(text, &range, CONTEXT);
            let (score, reason) = match (luhn(&digits), known, spoken_of) {
                (true, true, _) => (1.0, "card number: Luhn check and a network's range"),
                (true, false, true) if digits.len() >= 13 => {
                    (0.9, "card number: Luhn check and words around it")
                }
                (false, true, true) if is_grouped(place.as_str()) => {
                    (0.7, "form of a card number and words around it")
                }
                _ => continue,
            };
            found.push(Candidate { range, label: Entity::CreditCardNumber.into(), score, reason });
        }
    }
}

/// Whether the last digit is the check digit of the others.
pub fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| {
            let value = u32::from(digit) << (index % 2);
            value / 10 + value % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether a network issues numbers of this beginning and length.
fn is_known(digits: &[u8]) -> bool {
    let first =
        |count: usize| digits[..count].iter().fold(0u32, |value, &digit| 10 * value + u32::from(digit));
    let length = digits.len();
    let (two, three, four) = (first(2), first(3), first(4));
    let visa = digits[0] == 4 && matches!(length, 13 | 16 | 19);
    let mastercard = ((51..=55).contains(&two) || (2221..=2720).contains(&four)) && length == 16;
    let amex = matches!(two, 34 | 37) && length == 15;
    let diners = ((300..=305).contains(&three) || matches!(two, 36 | 38 | 39)) && (14..=19).contains(&length);
    let discover = (four == 6011 || (644..=649).contains(&three) || two == 65) && (16..=19).contains(&length);
    let jcb = (3528..=3589).contains(&four) && (16..=19).contains(&length)
        || matches!(four, 1800 | 2131) && length == 15;
    let unionpay = two == 62 && (16..=19).contains(&length);
    let maestro = matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) && length >= 12;
    let mir = (2200..=2204).contains(&four) && (16..=19).contains(&length);
    visa || mastercard || amex || diners || discover || jcb || unionpay || maestro || mir
}

/// Four groups of four digits.
fn is_grouped(text: &str) -> bool {
    let groups: Vec<&str> = text.split([' ', '-']).collect();
    groups.len() == 4 && groups.iter().all(|group| group.len() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_digit_is_noticed() {
        let good = [4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        assert!(luhn(&good));
        for place in 0..good.len() {
            for digit in (0..10).filter(|&digit| digit != good[place]) {
                let mut bad = good;
                bad[place] = digit;
                assert!(!luhn(&bad), "{bad:?}");
            }
        }
    }
}
