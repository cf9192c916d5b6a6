//! Encodings of text in text.

use std::sync::LazyLock;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use regex::Regex;

use super::Edit;
use crate::recognizers::{after, before, built_in};

/// Characters of the shortest text for which base64 is decoded.
const SHORTEST: usize = 10;
/// Bytes of the longest base64 that is decoded: a longer one is a file.
const LONGEST: usize = 64 << 10;

macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| built_in($pattern));
    };
}

pattern!(ENTITY, r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});");
pattern!(PERCENT, r"(?:%[0-9A-Fa-f]{2})+");
pattern!(FORM_PLUS, r"[?&;]?[A-Za-z0-9_.%\[\]-]{1,64}=[^\s&=]{0,256}\+[^\s&=]{1,256}");
pattern!(
    ESCAPE,
    r#"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}|\\U000[0-9a-fA-F]{5}|(?:\\x[0-9a-fA-F]{2})+|\\[nrt"'/]"#
);
pattern!(
    DEFANGED,
    r"(?i)\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\)|\[@\]|\[at\]|\(at\)|\{at\}|\[:\]|\[://\]|\bhxxp"
);
pattern!(QUOTED, r"=[ \t]*\r?\n|(?:=[0-9A-F]{2})+");
pattern!(SOFT_BREAK, r"=[ \t]*\r?\n");
pattern!(WORD, r"=\?([A-Za-z0-9_-]{3,20})\?([QqBb])\?([^?\s]{1,500})\?=");
pattern!(BASE64, r"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]{4,76}={0,2}|[A-Za-z0-9+/_-]{16,}={0,2}");

/// Edits for matches that decode to something else.
fn replaced(text: &str, pattern: &Regex, decode: impl Fn(&regex::Match<'_>) -> Option<String>) -> Vec<Edit> {
    pattern
        .find_iter(text)
        .filter_map(|place| Some(Edit { range: place.range(), with: decode(&place)? }))
        .collect()
}

/// `&amp;`, `&#64;`, `&#x40;`.
pub(super) fn entities(text: &str) -> Vec<Edit> {
    if !text.contains('&') {
        return Vec::new();
    }
    replaced(text, &ENTITY, |place| {
        let decoded = html_escape::decode_html_entities(place.as_str());
        // "&nbsp;" is white space to a reader.
        (decoded != place.as_str()).then(|| decoded.replace('\u{a0}', " "))
    })
}

/// Edits of one for each character of runs of encoded bytes, `width` characters per byte.
fn bytes_edits(
    edits: &mut Vec<Edit>,
    start: usize,
    bytes: &[u8],
    width: usize,
    accept: impl Fn(char) -> bool,
) {
    let Ok(decoded) = std::str::from_utf8(bytes) else { return };
    if !decoded.chars().all(accept) {
        return;
    }
    for (at, c) in decoded.char_indices() {
        let from = start + at * width;
        edits.push(Edit { range: from..from + c.len_utf8() * width, with: c.to_string() });
    }
}

fn hex_bytes(text: &str, width: usize) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks(width)
        .map(|chunk| digit(chunk[width - 2]) << 4 | digit(chunk[width - 1]))
        .collect()
}

/// `%40`, and `+` for a space in the values of forms.
pub(super) fn percent(text: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    if text.contains('%') {
        for place in PERCENT.find_iter(text) {
            let bytes = hex_bytes(place.as_str(), 3);
            bytes_edits(&mut edits, place.start(), &bytes, 3, |c| !c.is_control() || c == '\n' || c == '\r');
        }
    }
    if text.contains('+') && text.contains('=') {
        for place in FORM_PLUS.find_iter(text) {
            let form = place.as_str().starts_with(['?', '&', ';']) || after(text, place.end()) == Some('&');
            let plus = place.as_str().match_indices('+').map(|(at, _)| place.start() + at);
            // "tel=+44...": a plus between letters is a space.
            let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '%');
            let spaces = plus.filter(|&at| form && letter(before(text, at)) && letter(after(text, at + 1)));
            edits.extend(spaces.map(|at| Edit { range: at..at + 1, with: " ".to_owned() }));
        }
        edits.sort_by_key(|edit| edit.range.start);
    }
    edits
}

/// `\u00fc`, `\x40`, `\n`, `\"`.
pub(super) fn escapes(text: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    if !text.contains('\\') {
        return edits;
    }
    for place in ESCAPE.find_iter(text) {
        let escape = place.as_str();
        // An escaped backslash, or a Windows path.
        let token = text[..place.start()].rsplit(char::is_whitespace).next().unwrap_or_default();
        let doubled = token.len() - token.trim_end_matches('\\').len();
        if doubled % 2 == 1 || is_path(token) && !escape.starts_with("\\u") {
            continue;
        }
        let digits: String = escape.chars().filter(char::is_ascii_hexdigit).collect();
        let one = match escape.as_bytes()[1] {
            b'n' | b'r' => Some("\n".to_owned()),
            b't' => Some("\t".to_owned()),
            b'"' | b'\'' | b'/' => Some(escape[1..].to_owned()),
            b'x' => {
                bytes_edits(&mut edits, place.start(), &hex_bytes(escape, 4), 4, |c| !c.is_control());
                continue;
            }
            _ if digits.len() == 8 && escape.len() == 12 => {
                let units =
                    [&digits[..4], &digits[4..]].map(|unit| u16::from_str_radix(unit, 16).unwrap_or(0));
                char::decode_utf16(units).next().and_then(Result::ok).map(String::from)
            }
            _ => u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).map(String::from),
        };
        if let Some(with) = one {
            edits.push(Edit { range: place.range(), with });
        }
    }
    edits
}

/// Whether a backslash after this separates folders: `C:\new`, `\\host\tools`.
fn is_path(token: &str) -> bool {
    let drive = token.char_indices().any(|(at, c)| c == ':' && token[at + 1..].starts_with('\\'))
        || token.ends_with(':') && token.chars().rev().nth(1).is_some_and(|c| c.is_ascii_uppercase());
    drive || token.starts_with(r"\\")
}

/// `ann[at]example[.]org`, `hxxps://`.
pub(super) fn defanged(text: &str) -> Vec<Edit> {
    if !text.contains(['[', '(', '{', 'x', 'X']) {
        return Vec::new();
    }
    replaced(text, &DEFANGED, |place| {
        let lower = place.as_str().to_ascii_lowercase();
        if lower == "hxxp" {
            return text[place.end()..].starts_with(['s', ':', '[', 'S']).then(|| "http".to_owned());
        }
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | 'p'));
        let inside = word(before(text, place.start())) && word(after(text, place.end()));
        let plain = match &lower[1..lower.len() - 1] {
            "dot" | "." => ".",
            "at" | "@" => "@",
            other => other,
        };
        inside.then(|| plain.to_owned())
    })
}

/// Quoted-printable. Escapes of ASCII are decoded only in a text that shows that it is in this encoding.
pub(super) fn quoted_printable(text: &str) -> Vec<Edit> {
    if !text.contains('=') {
        return Vec::new();
    }
    let announced = text.contains("uoted-printable") || text.contains("UOTED-PRINTABLE");
    let encoded = announced
        || SOFT_BREAK.is_match(text)
            && QUOTED.find_iter(text).any(|p| p.as_str().starts_with("=3D") || p.len() >= 6);
    let mut edits = Vec::new();
    for place in QUOTED.find_iter(text) {
        if place.as_str().ends_with('\n') {
            if encoded {
                edits.push(Edit { range: place.range(), with: String::new() });
            }
            continue;
        }
        let bytes = hex_bytes(place.as_str(), 3);
        bytes_edits(&mut edits, place.start(), &bytes, 3, |c| {
            if encoded {
                !c.is_control() || matches!(c, '\n' | '\r' | '\t')
            } else {
                c.is_alphabetic() && !c.is_ascii()
            }
        });
    }
    edits
}

/// `=?utf-8?Q?M=C3=BCller?=` (RFC 2047).
pub(super) fn encoded_words(text: &str) -> Vec<Edit> {
    if !text.contains("=?") {
        return Vec::new();
    }
    let decode = |groups: regex::Captures<'_>| {
        let (whole, [charset, encoding, content]) = groups.extract();
        let bytes = if encoding.eq_ignore_ascii_case("b") {
            engine(false).decode(content).ok()?
        } else {
            quoted_bytes(content)
        };
        let utf8 = charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii");
        let latin = charset.to_ascii_lowercase().starts_with("iso-8859-1")
            || charset.eq_ignore_ascii_case("windows-1252");
        let with = match (utf8, latin) {
            (true, _) => String::from_utf8(bytes).ok()?,
            (_, true) => bytes.into_iter().map(char::from).collect(),
            _ => return None,
        };
        let start = groups.get(0)?.start();
        Some(Edit { range: start..start + whole.len(), with })
    };
    WORD.captures_iter(text).filter_map(decode).collect()
}

fn quoted_bytes(content: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len());
    let mut rest = content.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'=', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.extend(hex_bytes(&format!("={}{}", *high as char, *low as char), 3));
                rest = &tail[2..];
            }
            (b'_', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    bytes
}

fn engine(url: bool) -> GeneralPurpose {
    let alphabet = if url { alphabet::URL_SAFE } else { alphabet::STANDARD };
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&alphabet, config)
}

/// Base64 that decodes to readable text; the whole of it stands for each character.
pub(super) fn base64_of_text(text: &str) -> Vec<Edit> {
    replaced(text, &BASE64, |place| {
        let value = place.as_str();
        let joined = |c: Option<char>| {
            c.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.'))
        };
        // A JSON web token is a secret as it is.
        if value.len() > LONGEST
            || joined(before(text, place.start()))
            || after(text, place.end()) == Some('.') && value.starts_with("eyJ")
        {
            return None;
        }
        let compact: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = engine(compact.contains(['-', '_'])).decode(compact).ok()?;
        let decoded = String::from_utf8(bytes).ok()?;
        is_readable(&decoded).then_some(decoded)
    })
}

/// Words, and no accident: printable, and mostly letters, digits and spaces.
fn is_readable(text: &str) -> bool {
    let count = text.chars().count();
    let printable = text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    let worded = text.chars().filter(|c| c.is_alphanumeric() || *c == ' ').count();
    count >= SHORTEST && printable && worded * 10 >= count * 6
}
