//! HTML: text, comments, scripts, and the attributes that people read or that lead somewhere.

use std::borrow::Cow;
use std::ops::Range;

use super::Reader;
use super::unit::{Code, Node, Unit};
use crate::error::Result;

/// Elements that begin or end within a sentence; all others separate texts.
const INLINE: &[&str] = &[
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time",
    "tt", "u", "var", "wbr",
];
/// Attributes with text or an address.
const ATTRIBUTES: &[&str] = &[
    "alt",
    "title",
    "content",
    "value",
    "placeholder",
    "label",
    "href",
    "src",
    "action",
    "cite",
    "summary",
    "download",
    "srcdoc",
];
/// Beginnings of further ones.
const ATTRIBUTE_PREFIXES: [&str; 2] = ["aria-", "data-"];

/// An attribute of a tag.
pub(super) struct Attribute {
    pub(super) name: String,
    /// Its value without quotes, in bytes of the file.
    pub(super) value: Range<usize>,
    pub(super) is_quoted: bool,
}

pub(super) fn read(reader: &mut Reader<'_>, bytes: Vec<u8>) -> Result<Node> {
    let text = reader.utf8(bytes)?;
    let first = reader.units.len();
    let mut body = Unit::new(Code::Markup);
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if let Some(inside) = rest.strip_prefix("<!--") {
            let length = inside.find("-->").unwrap_or(inside.len());
            reader.units.push(Unit::plain(at + 4..at + 4 + length, &inside[..length]));
            at = (at + 4 + length + 3).min(text.len());
        } else if rest.starts_with("<!") || rest.starts_with("<?") {
            at += rest.find('>').map_or(rest.len(), |end| end + 1);
        } else if is_tag(rest) {
            let end = tag_end(&text, at);
            let name = tag_name(&text[at..end]);
            for attribute in attributes(&text, at..end) {
                let known = ATTRIBUTES.contains(&attribute.name.as_str())
                    || ATTRIBUTE_PREFIXES.iter().any(|prefix| attribute.name.starts_with(prefix));
                if known && !attribute.value.is_empty() {
                    let code = if attribute.is_quoted { Code::Markup } else { Code::Unquoted };
                    let value = unescaped(&text[attribute.value.clone()]);
                    reader.units.push(Unit::single(code, attribute.value, &value));
                }
            }
            if !INLINE.contains(&name.as_str()) {
                body.separate("\n");
            }
            at = end;
            if matches!(name.as_str(), "script" | "style") {
                let length = end_tag(&text[at..], &name);
                if name == "script" && length > 0 {
                    reader.units.push(Unit::plain(at..at + length, &text[at..at + length]));
                }
                at += length;
            }
        } else {
            // A `<` that begins no tag is text.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let length = rest[first..].find('<').map_or(rest.len(), |next| first + next);
            body.push(at..at + length, &unescaped(&rest[..length]));
            at += length;
        }
    }
    reader.units.push(body);
    Ok(Node::text(text.into_bytes(), first..reader.units.len()))
}

/// Text with its entities replaced by their characters.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    html_escape::decode_html_entities(text)
}

/// Whether a tag begins here, and not only a `<`.
fn is_tag(text: &str) -> bool {
    let after = text.strip_prefix("</").or_else(|| text.strip_prefix('<'));
    after.is_some_and(|after| after.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// After the `>` of the tag that begins at `at`; one in quotes does not count.
fn tag_end(text: &str, at: usize) -> usize {
    let mut quote = None;
    for (offset, byte) in text.as_bytes()[at..].iter().enumerate() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'>') => return at + offset + 1,
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn tag_name(tag: &str) -> String {
    let name = tag.trim_start_matches(['<', '/']);
    let end =
        name.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, ':' | '-')).unwrap_or(name.len());
    name[..end].to_ascii_lowercase()
}

/// The attributes of the tag in `range`, with names in small letters.
pub(super) fn attributes(text: &str, range: Range<usize>) -> Vec<Attribute> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let ends_name = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/');
    let skip = |mut at: usize, test: &dyn Fn(u8) -> bool| {
        while at < range.end && test(bytes[at]) {
            at += 1;
        }
        at
    };
    let mut at = skip(range.start, &|byte| !byte.is_ascii_whitespace() && byte != b'>');
    loop {
        at = skip(at, &|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'='));
        if at >= range.end {
            return found;
        }
        let name_end = skip(at, &|byte| !ends_name(byte));
        let name = text[at..name_end].to_ascii_lowercase();
        at = skip(name_end, &|byte| byte.is_ascii_whitespace());
        if at >= range.end || bytes[at] != b'=' {
            continue;
        }
        at = skip(at + 1, &|byte| byte.is_ascii_whitespace());
        let Some(&quote) = bytes.get(at).filter(|_| at < range.end) else { return found };
        let is_quoted = matches!(quote, b'"' | b'\'');
        let start = at + usize::from(is_quoted);
        let end = match is_quoted {
            true => skip(start, &|byte| byte != quote),
            false => skip(start, &|byte| !byte.is_ascii_whitespace() && byte != b'>'),
        };
        found.push(Attribute { name, value: start..end, is_quoted });
        at = end + usize::from(is_quoted);
    }
}

/// Bytes up to the end tag of `name`.
fn end_tag(text: &str, name: &str) -> usize {
    let lower = text.to_ascii_lowercase();
    lower.find(&format!("</{name}")).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_where_they_are() {
        let text = "<a  href = 'x>y' data-N=1 disabled title=\"\" / >";
        assert_eq!(tag_end(text, 0), text.len());
        let found: Vec<_> = attributes(text, 0..text.len())
            .into_iter()
            .map(|attribute| (attribute.name, text[attribute.value].to_owned(), attribute.is_quoted))
            .collect();
        let expected = [("href", "x>y", true), ("data-n", "1", false), ("title", "", true)];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value, quoted)| ((*name).to_owned(), (*value).to_owned(), *quoted))
            .collect();
        assert_eq!(found, expected);
    }
}
