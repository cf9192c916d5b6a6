//! JSON and JSON Lines: strings, names of fields, and numbers.

use super::Reader;
use super::unit::{Code, Node, Unit};
use crate::error::Result;

/// Digits of a number from which it is looked at.
const LONG_NUMBER: usize = 7;
/// Objects and lists inside each other that are read.
const MAX_DEPTH: usize = 120;

/// Reads one value, or one per line.
pub(super) fn read(reader: &mut Reader<'_>, bytes: Vec<u8>, lines: bool) -> Result<Node> {
    let text = reader.utf8(bytes)?;
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let first = reader.units.len();
    if lines {
        let mut at = start;
        for (number, line) in text[start..].split_inclusive('\n').enumerate() {
            if !line.trim().is_empty() {
                check(line).map_err(|reason| reader.wrong(format!("line {}: {reason}", number + 1)))?;
                values(&text, at, at + line.len(), &mut reader.units);
            }
            at += line.len();
        }
    } else {
        check(&text[start..]).map_err(|reason| reader.wrong(reason))?;
        values(&text, start, text.len(), &mut reader.units);
    }
    Ok(Node::text(text.into_bytes(), first..reader.units.len()))
}

/// What is wrong with a value, without its text.
fn check(text: &str) -> std::result::Result<(), String> {
    let mut depth = 0usize;
    let mut deepest = 0;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if deepest > MAX_DEPTH {
        return Err(format!("nested more than {MAX_DEPTH} levels deep"));
    }
    serde_json::from_str::<serde_json::Value>(text)
        .map(|_| ())
        .map_err(|error| format!("not valid JSON (line {}, column {})", error.line(), error.column()))
}

/// The strings and long numbers of valid JSON between two bytes.
fn values(text: &str, start: usize, end: usize, units: &mut Vec<Unit>) {
    let bytes = text.as_bytes();
    let mut at = start;
    // The name of the field whose value comes next, and those of the lists and objects around it.
    let mut name = String::new();
    let mut around: Vec<String> = Vec::new();
    while at < end {
        match bytes[at] {
            b'"' => {
                let close = close_of(bytes, at);
                let range = at..close + 1;
                let value: String = serde_json::from_str(&text[at..=close]).unwrap_or_default();
                at = close + 1;
                let is_name = bytes[at..end].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                let mut unit = Unit::single(Code::JsonString, range, &value);
                if is_name {
                    name = value;
                } else {
                    unit.name = name.replace(['_', '-'], " ");
                }
                // Names of fields are words of a program, unless they are no identifiers.
                if !(is_name && is_identifier(&name)) {
                    units.push(unit);
                }
                continue;
            }
            b'{' | b'[' => around.push(std::mem::take(&mut name)),
            b'}' | b']' => name = around.pop().unwrap_or_default(),
            b',' => {
                if let Some(last) = around.last()
                    && !is_in_object(bytes, at, end)
                {
                    name.clone_from(last);
                }
            }
            byte if byte.is_ascii_digit() || byte == b'-' => {
                let length = bytes[at..end]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
                    .count();
                let number = &text[at..at + length];
                if number.bytes().filter(u8::is_ascii_digit).count() >= LONG_NUMBER {
                    let mut unit = Unit::single(Code::JsonNumber, at..at + length, number);
                    unit.name = name.replace(['_', '-'], " ");
                    units.push(unit);
                }
                at += length;
                continue;
            }
            _ => {}
        }
        if matches!(bytes[at], b'[') {
            // Values of a list are values of its field.
            name = around.last().cloned().unwrap_or_default();
        }
        at += 1;
    }
}

/// Whether a comma stands before the name of a field.
fn is_in_object(bytes: &[u8], comma: usize, end: usize) -> bool {
    let Some(quote) = (comma + 1..end).find(|at| !bytes[*at].is_ascii_whitespace()) else { return false };
    if bytes[quote] != b'"' {
        return false;
    }
    let close = close_of(bytes, quote);
    bytes[close + 1..end].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Where the string ends that begins with the quote at `at`.
fn close_of(bytes: &[u8], at: usize) -> usize {
    let mut close = at + 1;
    while close < bytes.len() && bytes[close] != b'"' {
        close += if bytes[close] == b'\\' { 2 } else { 1 };
    }
    close.min(bytes.len().saturating_sub(1))
}

fn is_identifier(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$' | '.' | ':');
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        && name.chars().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let mut units = Vec::new();
        values(text, 0, text.len(), &mut units);
        units.into_iter().map(|unit| (unit.name.clone(), unit.text().to_owned())).collect()
    }

    #[test]
    fn values_know_their_fields() {
        let text = r#"{"full_name": "An\u006ea \"x\"", "list": ["a", "b", {"in": "c"}, "d"], "n": 4111111111111111, "m": 7,
            "Anna Lopez": null, "last": "e"}"#;
        let read = read(text);
        let expected = [
            ("full name", "Anna \"x\""),
            ("list", "a"),
            ("list", "b"),
            ("in", "c"),
            ("list", "d"),
            ("n", "4111111111111111"),
            ("", "Anna Lopez"),
            ("last", "e"),
        ];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_json_is_told_without_its_text() {
        assert!(check("{\"a\": 1}").is_ok());
        for text in ["{\"a\": Anna}", "{\"a\": \"Anna", "", "{} {}", r#""\ud800""#] {
            let reason = check(text).unwrap_err();
            assert!(reason.contains("line") && !reason.contains("Anna"), "{reason}");
        }
        assert!(check(&"[".repeat(300)).unwrap_err().contains("levels deep"));
    }
}
