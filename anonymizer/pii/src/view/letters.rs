//! Characters in one form each.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::compose;

use super::Edit;

/// The edits that give characters their plain form.
pub(super) fn edits(text: &str) -> Vec<Edit> {
    if text.is_ascii() {
        return Vec::new();
    }
    let mut edits: Vec<Edit> = Vec::new();
    // The letter that a mark would belong to, and what stands before.
    let mut previous: Option<(usize, char)> = None;
    let mut neighbour = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let range = at..at + c.len_utf8();
        let next = chars.peek().map(|(_, next)| *next);
        if has_no_width(c, neighbour, next) {
            edits.push(Edit { range, with: String::new() });
            previous = None;
            continue;
        }
        neighbour = Some(c);
        if c.is_ascii() {
            previous = Some((at, c));
            continue;
        }
        // A mark apart from its letter.
        if let Some((start, base)) = previous
            && let Some(composed) = is_mark(c).then(|| compose(base, c)).flatten()
        {
            // Two marks on one letter continue its edit.
            match edits.last_mut() {
                Some(last) if last.range.end == at && last.range.start == start => {
                    last.range.end = range.end;
                    last.with = composed.to_string();
                }
                _ => edits.push(Edit { range: start..range.end, with: composed.to_string() }),
            }
            previous = Some((start, composed));
            continue;
        }
        if let Some(with) = plain(c) {
            edits.push(Edit { range, with });
        }
        previous = Some((at, c));
    }
    edits
}

/// Characters that a reader does not see. Joiners are part of the spelling in some scripts.
fn has_no_width(c: char, before: Option<char>, after: Option<char>) -> bool {
    let latin = |c: Option<char>| c.is_none_or(|c| c.is_ascii() || ('\u{c0}'..='\u{24f}').contains(&c));
    match c {
        '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{180e}' | '\u{34f}' | '\u{115f}'
        | '\u{3164}' => true,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' => true,
        '\u{200c}' | '\u{200d}' => latin(before) && latin(after),
        _ => false,
    }
}

fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{3099}' | '\u{309a}')
}

/// The plain form of a character that has one.
fn plain(c: char) -> Option<String> {
    if let Some(digit) = digit(c) {
        return Some(digit.to_string());
    }
    match c {
        // Spaces.
        '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => Some(" ".to_owned()),
        '\u{2010}' | '\u{2011}' | '\u{fe63}' => Some("-".to_owned()),
        // Full-width and half-width forms, mathematical and circled letters, ligatures.
        '\u{ff01}'..='\u{ffee}'
        | '\u{1d400}'..='\u{1d7ff}'
        | '\u{24b6}'..='\u{24e9}'
        | '\u{fb00}'..='\u{fb06}' => Some([c].into_iter().nfkc().collect()),
        _ => None,
    }
}

/// Zeros of the scripts that have digits of their own (Unicode, general category Nd).
const ZEROS: &[u32] = &[
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

fn digit(c: char) -> Option<char> {
    let code = c as u32;
    let zero = *ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code))?;
    char::from_digit(code - zero, 10)
}
