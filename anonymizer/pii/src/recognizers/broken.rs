//! Values that a line break divides: addresses of mail, and numbers with check digits.
//!
//! The end of a line and the beginning of the next are read as one. What is found counts only if it crosses the break,
//! and was not found whole on either side. Columns of numbers are left alone: one of the lines must hold more.

use std::borrow::Cow;
use std::ops::Range;

use super::{Candidate, Named, Recognizer, card, email, iban, national, phone};
use crate::detect::Entity;

/// Bytes of a line next to a break that are read.
const REACH: usize = 64;
/// Least confidence that counts.
const SURE: f32 = 0.9;

pub(super) struct Broken {
    email: email::Email,
    numbers: Vec<Box<dyn Recognizer>>,
}

impl Broken {
    pub(super) fn new() -> Self {
        let mut numbers: Vec<Box<dyn Recognizer>> = vec![
            Box::new(card::Card::new()),
            Box::new(iban::IbanNumber::new()),
            Box::new(national::National::new()),
        ];
        // No country: the international form alone.
        numbers.extend(phone::Phone::new(&[]).ok().map(|phone| Box::new(phone) as Box<dyn Recognizer>));
        Self { email: email::Email::new(), numbers }
    }

    pub(super) fn find(&self, text: &str, found: &mut Vec<Named>) {
        for (at, _) in text.match_indices('\n') {
            let (head, tail) = (text[..at].trim_end_matches(['\r', ' ', '\t', '\\']), &text[at + 1..]);
            // What quotes and comments begin with.
            let margin = tail.len() - tail.trim_start_matches([' ', '\t', '>', '|', '*', '#']).len();
            let next = at + 1 + margin;
            self.find_address(text, head, next, found);
            self.find_number(text, head, next, found);
        }
    }

    fn find_address(&self, text: &str, head: &str, next: usize, found: &mut Vec<Named>) {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '@');
        let first = end_part(head, word);
        let second = beginning(&text[next..], word);
        let begins =
            second.starts_with(|c: char| c.is_lowercase() || c.is_ascii_digit() || matches!(c, '@' | '.'));
        if first.is_empty() || !begins || !(first.contains('@') || second.contains('@')) {
            return;
        }
        let joined = format!("{first}{second}");
        self.keep(&[&self.email], &joined, first.len(), (head.len() - first.len(), next, 0), found);
    }

    fn find_number(&self, text: &str, head: &str, next: usize, found: &mut Vec<Named>) {
        let part = |c: char| {
            c.is_ascii_digit()
                || c.is_ascii_uppercase()
                || matches!(c, ' ' | '-' | '.' | '(' | ')' | '+' | '/')
        };
        let digit = |c: char| c.is_ascii_digit();
        let first = end_part(head, part).trim_start();
        let second = beginning(&text[next..], part).trim_end();
        if !first.contains(digit)
            || !second.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
            || !second.contains(digit)
        {
            return;
        }
        let line = head.rsplit('\n').next().unwrap_or_default().trim_start();
        let next_line = text[next..].lines().next().unwrap_or_default().trim_end();
        if line.len() == first.len() && next_line.len() == second.len() {
            return;
        }
        let gap = usize::from(!first.ends_with(['-', '/', '.']));
        let joined = format!("{first}{}{second}", &" "[..gap]);
        let numbers: Vec<&dyn Recognizer> = self.numbers.iter().map(AsRef::as_ref).collect();
        self.keep(&numbers, &joined, first.len(), (head.len() - first.len(), next, gap), found);
    }

    /// Keeps what crosses `seam` in `joined`; `places`: where its parts begin in the text, and bytes between them.
    fn keep(
        &self,
        recognizers: &[&dyn Recognizer],
        joined: &str,
        seam: usize,
        places: (usize, usize, usize),
        found: &mut Vec<Named>,
    ) {
        let (first, second, gap) = places;
        let place = |at: usize| if at <= seam { first + at } else { second + at - seam - gap };
        for recognizer in recognizers {
            let mut here: Vec<Candidate> = Vec::new();
            recognizer.find(joined, &mut here);
            for candidate in here {
                let Range { start, end } = candidate.range;
                let crosses = start < seam && end > seam + gap;
                let range = place(start)..place(end);
                // What was found whole on one side stays; the beginning of a number, by its form alone, does not.
                let known = found.iter().any(|(other, _)| {
                    other.label == candidate.label
                        && other.score >= candidate.score
                        && other.range.start < range.end
                        && range.start < other.range.end
                });
                let placed = candidate.label != Entity::PhoneNumber.into() || candidate.score >= 1.0;
                if crosses && !known && placed && candidate.score >= SURE {
                    found.push((Candidate { range, ..candidate }, Cow::Owned(recognizer.name().to_owned())));
                }
            }
        }
    }
}

/// The end of a line as far as its characters are of a kind.
fn end_part(line: &str, kind: impl Fn(char) -> bool) -> &str {
    let start =
        line.char_indices().rev().take_while(|(_, c)| kind(*c)).last().map_or(line.len(), |(at, _)| at);
    let mut start = start.max(line.len().saturating_sub(REACH));
    while !line.is_char_boundary(start) {
        start += 1;
    }
    &line[start..]
}

/// The beginning of a line, likewise.
fn beginning(line: &str, kind: impl Fn(char) -> bool) -> &str {
    let mut end = line.find(|c| !kind(c)).unwrap_or(line.len()).min(REACH);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        Broken::new().find(text, &mut found);
        found.into_iter().map(|(candidate, _)| text[candidate.range].to_owned()).collect()
    }

    #[test]
    fn values_are_found_across_a_break() {
        assert_eq!(found("write to ann.lee@\n  example.org soon"), ["ann.lee@\n  example.org"]);
        assert_eq!(
            found("my IBAN is DE89 3704 0044\n> 0532 0130 00 at the bank"),
            ["DE89 3704 0044\n> 0532 0130 00"]
        );
        let known = "IBAN: DE89 3704 0044 0532\n0130 00, thanks";
        let spans =
            crate::recognizers::Recognizers::new(&crate::config::Config::default()).unwrap().scan(known);
        assert!(spans.iter().any(|span| (span.start, span.end) == (6, 33)), "{spans:?}");
        assert_eq!(found("card 4111 1111\n1111 1111, thanks"), ["4111 1111\n1111 1111"]);
        assert_eq!(found("call +49 89 2233\n4455 today"), ["+49 89 2233\n4455"]);
    }

    #[test]
    fn lines_that_end_are_left_alone() {
        assert!(
            found("write to ann@example.org\nthanks").is_empty()
                || found("write to ann@example\nThanks").is_empty()
        );
        assert!(found("41111111\n11111111\n").is_empty(), "a column");
        assert!(found("in 2024\n2025 was better").is_empty());
    }
}
