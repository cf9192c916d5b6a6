//! The grammar of placeholders: `[GIVEN_NAME_1]`, and the forms in which answers give them back.
//!
//! A placeholder is a label, an underscore and a number from 1, in brackets. Answers change its case, write spaces or
//! hyphens for underscores or none, escape it for Markdown (`\[GIVEN\_NAME\_1\]`), for HTML (`&#91;GIVEN_NAME_1&#93;`) or
//! for an address (`%5BGIVEN_NAME_1%5D`), use other brackets (`［GIVEN_NAME_1］`), add spaces or a line break, or pull a
//! possessive into the brackets (`[GIVEN_NAME_1's]`). All these read as the same placeholder. A form holds exactly one
//! opening bracket, at its beginning, so what precedes a placeholder cannot become part of it.

use std::ops::Range;

use crate::detect::Entity;

/// Bytes of the longest form that is read: what a stream has to hold back at most.
pub const MAX_BYTES: usize = 160;
/// Bytes of the longest label.
pub const MAX_LABEL_BYTES: usize = 48;
/// Digits of the largest number.
const MAX_DIGITS: usize = 7;

/// Characters at which a form may begin.
pub(super) const OPENERS: [char; 6] = ['[', '\\', '［', '【', '&', '%'];

/// Opening brackets and their closing ones, as bytes.
const BRACKETS: [(&str, &str); 7] = [
    ("[", "]"),
    ("［", "］"),
    ("【", "】"),
    ("&#91;", "&#93;"),
    ("&lbrack;", "&rbrack;"),
    ("%5B", "%5D"),
    ("%5b", "%5d"),
];
/// Spaces that may be next to a bracket.
const MAX_SPACES: usize = 2;

/// The label of placeholders for text that only looks like a placeholder.
pub const LITERAL: &str = "LITERAL";

/// Whether a name can be a label: words of capital letters and digits that begin with a letter, joined by underscores.
pub fn is_label(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    name.len() <= MAX_LABEL_BYTES && name != LITERAL && name.split('_').all(is_word)
}

/// The canonical form.
pub fn canonical(label: &str, number: u32) -> String {
    format!("[{label}_{number}]")
}

/// A placeholder in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where, in bytes.
    pub range: Range<usize>,
    /// Its label, canonical.
    pub label: String,
    /// Its number, from 1.
    pub number: u32,
    /// The possessive inside the brackets, in bytes of the text; empty if there is none.
    pub suffix: Range<usize>,
    /// Digits of the number.
    pub digits: usize,
}

/// What stands at a place of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A placeholder.
    Placeholder(Found),
    /// Something else, whatever follows.
    Other,
    /// The text ends before that can be told.
    Unfinished,
}

/// Reads at byte `at`, where one of `OPENERS` is.
pub fn read(text: &str, at: usize) -> Reading {
    let mut reader = Reader { bytes: text.as_bytes(), at };
    match reader.placeholder(at) {
        Ok(found) => Reading::Placeholder(found),
        Err(Stop::Other) => Reading::Other,
        Err(Stop::End) => Reading::Unfinished,
    }
}

/// All placeholders of a whole text, in its order.
pub fn find_all(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].find(OPENERS) {
        match read(text, at + next) {
            Reading::Placeholder(placeholder) => {
                at = placeholder.range.end;
                found.push(placeholder);
            }
            _ => at += next + text[at + next..].chars().next().map_or(1, char::len_utf8),
        }
    }
    found
}

/// A built-in type's label, also where the underscores in it are left out (`GIVENNAME`).
fn with_underscores(label: String) -> String {
    if Entity::from_label(&label).is_some() {
        return label;
    }
    let bare = |label: &str| label.bytes().filter(|byte| *byte != b'_').collect::<Vec<u8>>();
    let own = bare(&label);
    let meant = Entity::ALL.into_iter().find(|entity| bare(entity.as_str()) == own);
    meant.map_or(label, |entity| entity.as_str().to_owned())
}

/// Names of placeholders that have lost their brackets (`GIVEN_NAME_1`), in capitals and whole: where they are, in bytes.
pub(super) fn find_bare(text: &str) -> impl Iterator<Item = Found> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(start) = text[at..].find(is_part).map(|next| at + next) {
            let end = text[start..].find(|c: char| !is_part(c)).map_or(text.len(), |length| start + length);
            at = end;
            if let Some((label, number)) = bare_name(&text[start..end]) {
                let digits = number.to_string().len();
                let label = label.to_owned();
                return Some(Found { range: start..end, label, number, suffix: end..end, digits });
            }
        }
        None
    })
}

/// Bytes at the end of a text that may become a bare name, or the end of one.
pub(super) fn unfinished_bare(text: &str) -> usize {
    let run = text.len() - text.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
    let tail = &text[text.len() - run..];
    let part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if run <= MAX_LABEL_BYTES + 1 + MAX_DIGITS && tail.bytes().all(part) { run } else { 0 }
}

fn bare_name(word: &str) -> Option<(&str, u32)> {
    let (label, number) = word.rsplit_once('_')?;
    let plain = number.len() <= MAX_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    (plain && !number.starts_with('0') && is_label(label)).then_some((label, number.parse().ok()?))
}

enum Stop {
    Other,
    End,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::End)
    }

    fn take(&mut self, byte: u8) -> Result<bool, Stop> {
        let holds = self.peek()? == byte;
        self.at += usize::from(holds);
        Ok(holds)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.take(byte)? { Ok(()) } else { Err(Stop::Other) }
    }

    fn placeholder(&mut self, start: usize) -> Result<Found, Stop> {
        let escaped = self.take(b'\\')?;
        let close = self.open(escaped)?;
        self.spaces()?;
        let (label, number, digits) = self.name()?;
        let suffix = self.suffix()?;
        self.spaces()?;
        if escaped {
            self.expect(b'\\')?;
        }
        close.bytes().try_for_each(|byte| self.expect(byte))?;
        Ok(Found { range: start..self.at, label, number, suffix, digits })
    }

    /// An opening bracket; returns the closing one.
    fn open(&mut self, escaped: bool) -> Result<&'static str, Stop> {
        let rest = &self.bytes[self.at..];
        let brackets = if escaped { &BRACKETS[..1] } else { &BRACKETS };
        let mut unfinished = false;
        for (open, close) in brackets {
            if rest.starts_with(open.as_bytes()) {
                self.at += open.len();
                return Ok(close);
            }
            unfinished |= open.as_bytes().starts_with(rest);
        }
        Err(if unfinished { Stop::End } else { Stop::Other })
    }

    /// A few spaces, or none.
    fn spaces(&mut self) -> Result<(), Stop> {
        for _ in 0..MAX_SPACES {
            if !self.take(b' ')? {
                break;
            }
        }
        Ok(())
    }

    /// Words and separators up to the number.
    fn name(&mut self) -> Result<(String, u32, usize), Stop> {
        let mut label = String::new();
        loop {
            let word = self.at;
            while self.peek()?.is_ascii_alphanumeric() {
                self.at += 1;
                if self.at - word > MAX_LABEL_BYTES {
                    return Err(Stop::Other);
                }
            }
            let word = &self.bytes[word..self.at];
            match word.first() {
                Some(first) if first.is_ascii_alphabetic() => {
                    if !label.is_empty() {
                        label.push('_');
                    }
                    label.extend(word.iter().map(|byte| char::from(byte.to_ascii_uppercase())));
                }
                Some(b'1'..=b'9') if !label.is_empty() && word.len() <= MAX_DIGITS => {
                    let mut number = 0;
                    for byte in word {
                        if !byte.is_ascii_digit() {
                            return Err(Stop::Other);
                        }
                        number = 10 * number + u32::from(byte - b'0');
                    }
                    return Ok((with_underscores(label), number, word.len()));
                }
                _ => return Err(Stop::Other),
            }
            if label.len() > MAX_LABEL_BYTES {
                return Err(Stop::Other);
            }
            self.separator()?;
        }
    }

    /// `_`, `\_`, a space, a hyphen or a line break; one of these may be followed by a line break.
    fn separator(&mut self) -> Result<(), Stop> {
        if self.take(b'\\')? {
            self.expect(b'_')?;
        } else if !(self.take(b'_')? || self.take(b' ')? || self.take(b'-')? || self.peek()? == b'\n') {
            return Err(Stop::Other);
        }
        self.take(b'\n')?;
        Ok(())
    }

    /// `'s`, `’s` or an apostrophe alone.
    fn suffix(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        let apostrophe = match self.peek()? {
            b'\'' => self.take(b'\'')?,
            0xe2 => {
                self.at += 1;
                self.expect(0x80)?;
                self.expect(0x99)?;
                true
            }
            _ => false,
        };
        if apostrophe && matches!(self.peek()?, b's' | b'S') {
            self.at += 1;
        }
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_forms_are_read() {
        for form in [
            "[GIVEN_NAME_12]",
            "[given_name_12]",
            "[Given Name 12]",
            "[GIVEN-NAME-12]",
            r"\[GIVEN\_NAME\_12\]",
            r"[GIVEN\_NAME\_12]",
            "[GIVEN_NAME_12's]",
            "[GIVEN_NAME_12’s]",
            "[GIVEN_NAME_12']",
            "[ GIVEN_NAME_12 ]",
            "[GIVENNAME_12]",
            "[GIVEN\nNAME_12]",
            "[GIVEN_\nNAME_12]",
            "［GIVEN_NAME_12］",
            "【GIVEN_NAME_12】",
            "&#91;GIVEN_NAME_12&#93;",
            "&lbrack;given name 12&rbrack;",
            "%5BGIVEN_NAME_12%5D",
        ] {
            let Reading::Placeholder(found) = read(form, 0) else { panic!("{form}") };
            assert_eq!((found.label.as_str(), found.number, found.range), ("GIVEN_NAME", 12, 0..form.len()));
        }
    }

    #[test]
    fn other_texts_are_not() {
        for text in [
            "[]",
            "[1]",
            "[A]",
            "[A_0]",
            "[A_01]",
            "[A_1x]",
            "[_A_1]",
            "[A__1]",
            "[   A_1]",
            "[A_1］",
            "&A_1;",
            "%5BA_1]",
            "[A\n\n_1]",
            r"\[A_1]",
            "[A_12345678]",
            "[[A_1]",
            "[A_é_1]",
        ] {
            assert_eq!(read(text, 0), Reading::Other, "{text}");
        }
        let long = format!("[{}", "A".repeat(MAX_BYTES));
        assert_eq!(read(&long, 0), Reading::Other);
        let long = format!("[{}", "A_".repeat(MAX_BYTES));
        assert_eq!(read(&long, 0), Reading::Other);
        assert!(
            !is_label("A__B") && !is_label("a") && !is_label("LITERAL") && !is_label("1A") && !is_label("")
        );
        assert!(is_label("GIVEN_NAME") && is_label("ID2"));
    }

    #[test]
    fn every_beginning_is_unfinished() {
        let form = r"\[GIVEN\_NAME\_1’s\]";
        for form in [form, "[ A_1 ]", "&#91;A_1&#93;", "%5BA_1%5D", "［A_1］"] {
            for end in (1..form.len()).filter(|&end| form.is_char_boundary(end)) {
                assert_eq!(read(&form[..end], 0), Reading::Unfinished, "{}", &form[..end]);
            }
        }
        assert_eq!(find_all(&format!("x{form}[[A_2]")).len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_never_changes_with_what_follows(text in r"[\[\\A-Ca-c_ 0-9's’\n;#\]-]{0,24}", more in "\\PC{0,8}") {
            let text = format!("[{text}");
            let whole = format!("{text}{more}");
            match read(&text, 0) {
                Reading::Unfinished => {}
                decided => proptest::prop_assert_eq!(read(&whole, 0), decided),
            }
        }
    }
}
