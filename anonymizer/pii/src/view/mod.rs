//! What a reader sees of a text: entities, percent-encoding, escapes and transfer encodings decoded, digits and letters in
//! one form, without characters that have no width. Detection works on a view; its spans are mapped back to the text, in
//! which they cover whole encoded characters.
//!
//! | encoding | example |
//! |---|---|
//! | HTML entities | `M&uuml;ller`, `ann&#64;example.org` |
//! | percent-encoding, `+` in forms | `ann%40example.org` |
//! | escapes of JSON and programs | `M\u00fcller`, `\"`, `\n` |
//! | quoted-printable, encoded words (RFC 2045, 2047) | `M=C3=BCller`, `=?utf-8?B?...?=` |
//! | base64 of text | `YW5uQGV4YW1wbGUub3Jn` |
//! | defanged addresses | `ann[at]example[.]org`, `hxxps://` |
//! | full-width, mathematical and other forms of letters; digits of all scripts | `ａｎｎ`, `٠١٢` |
//! | characters without width, marks apart from their letter | `a\u{200b}nn` |

mod decode;
mod letters;

use std::ops::Range;

use crate::detect::overlap::resolve;
use crate::detect::{Because, Span};

/// Rounds of decoding: what was encoded twice is decoded twice.
const ROUNDS: usize = 3;

/// A text as a reader sees it, and where each of its characters is in the original.
#[derive(Clone, Debug)]
pub struct View {
    text: String,
    /// Per code point of `text`: the code points of the original that it stands for. `None` if both are the same.
    places: Option<Vec<(u32, u32)>>,
}

/// A replacement of some bytes of the text of a view; each new character stands for all that was replaced.
#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    with: String,
}

impl View {
    /// The view of a text.
    pub fn of(text: &str) -> Self {
        let mut view = Self { text: text.to_owned(), places: None };
        view.apply(letters::edits(&view.text));
        view.apply(decode::quoted_printable(&view.text));
        view.apply(decode::encoded_words(&view.text));
        for _ in 0..ROUNDS {
            let before = view.text.len();
            let mut changed = false;
            // Each sees what the ones before it decoded.
            for edits in [decode::entities, decode::percent, decode::escapes, decode::defanged] {
                changed |= view.apply(edits(&view.text));
            }
            if !changed || view.text.len() > before {
                break;
            }
        }
        view.apply(decode::base64_of_text(&view.text));
        view.apply(letters::edits(&view.text));
        view
    }

    /// The text that a reader sees.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the original, character by character.
    pub fn is_plain(&self) -> bool {
        self.places.is_none()
    }

    /// The code points of the original that code points of the view stand for.
    ///
    /// # Panics
    /// If the range is empty or not in the view.
    pub fn original(&self, range: Range<usize>) -> Range<usize> {
        match &self.places {
            None => range,
            Some(places) => {
                assert!(range.start < range.end, "a range of the view");
                places[range.start].0 as usize..places[range.end - 1].1 as usize
            }
        }
    }

    /// Spans of the view as spans of the original. Two that stand for the same encoded piece become one.
    pub fn map_spans(&self, spans: Vec<Span>) -> Vec<Span> {
        if self.is_plain() {
            return spans;
        }
        let map = |span: Span| {
            let Range { start, end } = self.original(span.start..span.end);
            Span { start, end, ..span }
        };
        resolve(spans.into_iter().map(map).collect())
    }

    /// Reasons of spans of the view, likewise.
    pub fn map_reasons(&self, reasons: Vec<Because>) -> Vec<Because> {
        let map = |reason: Because| {
            let Range { start, end } = self.original(reason.start..reason.end);
            Because { start, end, ..reason }
        };
        reasons.into_iter().map(map).collect()
    }

    /// Applies edits, which are in order and do not overlap. Whether there were any.
    fn apply(&mut self, edits: Vec<Edit>) -> bool {
        if edits.is_empty() {
            return false;
        }
        let identity = || {
            let count = u32::try_from(self.text.chars().count()).unwrap_or(u32::MAX);
            (0..count).map(|at| (at, at + 1)).collect()
        };
        let places = self.places.take().unwrap_or_else(identity);
        let mut text = String::with_capacity(self.text.len());
        let mut kept = Vec::with_capacity(places.len());
        // In bytes and in code points.
        let (mut at, mut count) = (0, 0);
        for Edit { range, with } in edits {
            let untouched = self.text[at..range.start].chars().count();
            let replaced = self.text[range.clone()].chars().count();
            text.push_str(&self.text[at..range.start]);
            kept.extend_from_slice(&places[count..count + untouched]);
            count += untouched;
            let whole = (places[count].0, places[count + replaced - 1].1);
            kept.extend(with.chars().map(|_| whole));
            text.push_str(&with);
            count += replaced;
            at = range.end;
        }
        text.push_str(&self.text[at..]);
        kept.extend_from_slice(&places[count..]);
        self.text = text;
        self.places = Some(kept);
        true
    }
}

#[cfg(test)]
mod tests;
