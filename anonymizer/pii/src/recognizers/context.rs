//! Context words: what stands around a value says what it is.

use crate::detect::context::is_unspaced;

/// How far before a value a context word may begin, in bytes.
const BEFORE: usize = 48;
/// How far after a value a context word may end, in bytes.
const AFTER: usize = 16;

/// Whether one of `words` (in lower case) stands close to `range` as a whole word, line breaks included.
pub fn near(text: &str, range: &std::ops::Range<usize>, words: &[&str]) -> bool {
    let start = floor(text, range.start.saturating_sub(BEFORE));
    let end = floor(text, (range.end + AFTER).min(text.len()));
    let front = text[start..range.start].to_lowercase();
    let behind = text[range.end..end].to_lowercase();
    words.iter().any(|word| holds(&front, word) || holds(&behind, word))
}

/// As [`near`], looking only before `range`, in its line, `reach` bytes far.
pub fn in_front(text: &str, range: &std::ops::Range<usize>, words: &[&str], reach: usize) -> bool {
    let start = floor(text, range.start.saturating_sub(reach));
    let front = text[start..range.start].to_lowercase();
    let line = front.rsplit('\n').next().unwrap_or_default();
    words.iter().any(|word| holds(line, word))
}

/// Whether `word` occurs in `text` with no letter next to it.
fn holds(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphabetic() && !is_unspaced(c));
        !letter(text[..at].chars().next_back()) && !letter(text[at + word.len()..].chars().next())
    })
}

/// The character boundary at or before `at`.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_whole_and_close() {
        let text = "My card: 4111, discard 5";
        let at = |value: &str| {
            let start = text.find(value).unwrap();
            start..start + value.len()
        };
        assert!(near(text, &at("4111"), &["card"]));
        assert!(!near("discard 5", &(8..9), &["card"]));
        let far = format!("card {} 4111", "é".repeat(40));
        assert!(!near(&far, &(far.len() - 4..far.len()), &["card"]));
    }
}
