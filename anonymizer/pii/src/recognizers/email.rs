//! E-mail addresses: RFC 5321 section 4.5.3.1 (lengths), RFC 6531 (letters of all scripts), and spelled-out forms such
//! as `ann [at] example [dot] org`.

use regex::Regex;

use super::{Candidate, Recognizer, built_in};
use crate::detect::Entity;
use crate::detect::context::is_unspaced;

/// A local part of dots and word characters, `@`, at least two labels, the last of letters.
const PLAIN: &str = r"[\p{L}\p{N}_%+][\p{L}\p{N}\p{M}._%+'&-]*@(?:[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}-]*[\p{L}\p{N}\p{M}])?\.)+(?:xn--[a-z0-9-]+|\p{L}[\p{L}\p{M}]+)";
/// The same with the marks spelled out in brackets.
const SPELLED: &str = r"(?i)[\p{L}\p{N}][\p{L}\p{N}._%+-]* ?[(\[{] ?at ?[)\]}] ?[\p{L}\p{N}-]+(?:(?: ?[(\[{] ?dot ?[)\]}] ?|\.)[\p{L}\p{N}-]+)+";

const LONGEST_LOCAL: usize = 64;
const LONGEST: usize = 254;

/// The recognizer of e-mail addresses.
pub struct Email {
    plain: Regex,
    spelled: Regex,
}

impl Email {
    /// The recognizer.
    pub fn new() -> Self {
        Self { plain: built_in(PLAIN), spelled: built_in(SPELLED) }
    }
}

impl Default for Email {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Email {
    fn name(&self) -> &str {
        "email"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let valid =
            |place: &regex::Match<'_>| is_valid(place.as_str()) && !is_user_of_host(&text[..place.start()]);
        for place in self.plain.find_iter(text).filter(valid) {
            let range = without_text_around(text, place.range());
            found.push(Candidate {
                range,
                label: Entity::Email.into(),
                score: 1.0,
                reason: "form of an e-mail address",
            });
        }
        for place in self.spelled.find_iter(text) {
            found.push(Candidate {
                range: place.range(),
                label: Entity::Email.into(),
                score: 0.9,
                reason: "e-mail address with its marks spelled out",
            });
        }
    }
}

/// An address without the words of a script without spaces that run into it: "\u{90ae}\u{7bb1}ann@example.org".
fn without_text_around(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let address = &text[range.clone()];
    let ascii = |c: char| c.is_ascii_alphanumeric();
    let Some((local, domain)) = address.rsplit_once('@') else { return range };
    let front = local.trim_start_matches(is_unspaced);
    let start = if front.starts_with(ascii) { local.len() - front.len() } else { 0 };
    let back = domain.trim_end_matches(is_unspaced);
    let end = if back.ends_with(ascii) && back.contains('.') { domain.len() - back.len() } else { 0 };
    range.start + start..range.end - end
}

/// Lengths, and no empty part.
fn is_valid(address: &str) -> bool {
    let Some((local, _)) = address.rsplit_once('@') else { return false };
    local.len() <= LONGEST_LOCAL && address.len() <= LONGEST && !local.contains("..") && !local.ends_with('.')
}

/// Whether what follows is the user or password of `scheme://user:password@host`.
fn is_user_of_host(front: &str) -> bool {
    let mut start = front.len().saturating_sub(LONGEST);
    while !front.is_char_boundary(start) {
        start += 1;
    }
    let front = &front[start..];
    let word =
        front.rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<')).next().unwrap_or_default();
    word.rsplit_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?', '#']))
}
