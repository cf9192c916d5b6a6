//! Texts of a file, where they come from, and how they are written back.

use std::io::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};

/// Length of a line of base64 in a mail.
const BASE64_LINE: usize = 76;

/// How a text is written in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// As it is.
    Plain,
    /// A JSON string, quotes included.
    JsonString,
    /// A JSON number; a placeholder for it is a string.
    JsonNumber,
    /// A cell, quotes included.
    Cell {
        /// What separates cells.
        delimiter: u8,
    },
    /// Text or an attribute of XML or HTML.
    Markup,
    /// An attribute of HTML without quotes.
    Unquoted,
    /// A whole `<c>` of a worksheet that holds a number; a placeholder for it is text.
    SheetNumber,
    /// The value of a header of a mail.
    Header,
    /// It cannot hold a placeholder, so the file is refused if something is found there.
    Fixed(&'static str),
}

/// A change of a text.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Code points of the text.
    pub(super) range: Range<usize>,
    /// What stands there afterwards.
    pub(super) text: String,
    /// Whether it is a number again, where the form of the file has numbers.
    pub(super) is_number: bool,
}

/// A part of a text and the bytes that it is read from.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Bytes of the node.
    range: Range<usize>,
    /// Code points of the unit's text.
    chars: Range<usize>,
}

/// A text that is scanned as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    text: String,
    chars: usize,
    pieces: Vec<Piece>,
    /// Code points of the text that are in no piece: they separate pieces, and no value goes across them.
    glue: Vec<Range<usize>>,
    code: Code,
    /// What precedes the text when it is scanned: the name of its field.
    pub(super) name: String,
    /// Whether it is scanned as the cell of a table.
    pub(super) in_table: bool,
    /// Whether it is left as it is.
    pub(super) keep: bool,
}

impl Unit {
    /// An empty text whose pieces are written in one way.
    pub(super) fn new(code: Code) -> Self {
        Self {
            text: String::new(),
            chars: 0,
            pieces: Vec::new(),
            glue: Vec::new(),
            code,
            name: String::new(),
            in_table: false,
            keep: false,
        }
    }

    /// A text of one piece.
    pub(super) fn single(code: Code, range: Range<usize>, text: &str) -> Self {
        let mut unit = Self::new(code);
        unit.push(range, text);
        unit
    }

    /// Plain text.
    pub(super) fn plain(range: Range<usize>, text: &str) -> Self {
        Self::single(Code::Plain, range, text)
    }

    /// Adds a piece that `range` holds.
    pub(super) fn push(&mut self, range: Range<usize>, text: &str) {
        let start = self.chars;
        self.text.push_str(text);
        self.chars += text.chars().count();
        self.pieces.push(Piece { range, chars: start..self.chars });
    }

    /// Adds characters that separate what precedes from what follows.
    pub(super) fn separate(&mut self, glue: &str) {
        let start = self.chars;
        self.text.push_str(glue);
        self.chars += glue.chars().count();
        self.glue.push(start..self.chars);
    }

    /// Writes nothing into a range of bytes: it is replaced as a whole.
    pub(super) fn forget(&mut self, range: &Range<usize>) {
        self.pieces.retain(|piece| piece.range.end <= range.start || range.end <= piece.range.start);
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has no letter or digit.
    pub(super) fn is_blank(&self) -> bool {
        !self.text.contains(char::is_alphanumeric)
    }

    /// Whether it is a number in its file, which is redacted as a whole or not at all.
    pub(super) fn is_number(&self) -> bool {
        matches!(self.code, Code::JsonNumber | Code::SheetNumber)
    }

    /// Where pieces are separated, in code points.
    pub(super) fn glue(&self) -> &[Range<usize>] {
        &self.glue
    }

    /// What a unit is called that cannot hold a placeholder.
    pub(super) fn fixed(&self) -> Option<&'static str> {
        match self.code {
            Code::Fixed(what) => Some(what),
            _ => None,
        }
    }

    /// The bytes of the pieces that `edits` change, which are in the order of the text.
    fn written(&self, bytes: &[u8], edits: &[Edit]) -> Vec<(Range<usize>, Vec<u8>)> {
        let chars: Vec<char> = self.text.chars().collect();
        let mut written = Vec::new();
        for piece in &self.pieces {
            let first = edits.partition_point(|edit| edit.range.end <= piece.chars.start);
            let last = edits.partition_point(|edit| edit.range.start < piece.chars.end);
            if first >= last {
                continue;
            }
            let mut text = String::new();
            let mut at = piece.chars.start;
            let mut is_number = false;
            for Edit { range, text: replacement, is_number: number } in &edits[first..last] {
                text.extend(&chars[at..range.start.max(at)]);
                // It stands where the value began; further pieces lose their part of the value.
                if self.first_in_piece(range) >= piece.chars.start {
                    text.push_str(replacement);
                }
                at = range.end.min(piece.chars.end);
                is_number |= *number;
            }
            text.extend(&chars[at..piece.chars.end]);
            let before = &bytes[piece.range.clone()];
            let code = if is_number && self.code == Code::JsonString { Code::JsonNumber } else { self.code };
            written.push((piece.range.clone(), encode(code, before, &text)));
        }
        written
    }

    /// The first code point of a range that lies in a piece.
    fn first_in_piece(&self, range: &Range<usize>) -> usize {
        let first = self.glue.partition_point(|glue| glue.end <= range.start);
        let mut at = range.start;
        for glue in self.glue[first..].iter().take_while(|glue| glue.start <= range.end) {
            if !glue.contains(&at) {
                break;
            }
            at = glue.end;
        }
        at
    }
}

/// How a part of a file is packed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Not at all.
    None,
    /// In lines of base64.
    Base64,
    /// As quoted-printable.
    QuotedPrintable,
}

/// A part of a file with a form of its own.
pub(super) struct Part {
    /// Bytes of the file.
    pub(super) range: Range<usize>,
    /// How it is packed.
    pub(super) wrap: Wrap,
    /// Whether redacting writes it anew although nothing in it changes.
    pub(super) always: bool,
    /// What is in it.
    pub(super) node: Node,
}

/// Bytes and what of them is text, or a package of such.
pub(super) enum Node {
    /// A text file.
    Text {
        /// All of it.
        bytes: Vec<u8>,
        /// Indices of its units.
        units: Range<usize>,
        /// Parts with a form of their own.
        parts: Vec<Part>,
        /// Bytes that are replaced whatever is found.
        replaced: Vec<(Range<usize>, Vec<u8>)>,
    },
    /// A ZIP file, with the members that hold texts.
    Package {
        /// All of it.
        bytes: Vec<u8>,
        /// By index of the archive.
        members: Vec<(usize, Node)>,
    },
}

impl Node {
    pub(super) fn text(bytes: Vec<u8>, units: Range<usize>) -> Self {
        Self::Text { bytes, units, parts: Vec::new(), replaced: Vec::new() }
    }

    /// The bytes with edits, which are given per unit. `redacting`: whether the replacements that redacting needs are made.
    pub(super) fn render(&self, units: &[Unit], edits: &[Vec<Edit>], redacting: bool) -> Result<Vec<u8>> {
        match self {
            Self::Text { bytes, units: own, parts, replaced } => {
                let mut changes: Vec<(Range<usize>, Vec<u8>)> =
                    own.clone().flat_map(|index| units[index].written(bytes, &edits[index])).collect();
                for part in parts {
                    let changed = part.node.render(units, edits, redacting)?;
                    if (part.always && redacting) || !part.node.is(&changed) {
                        changes.push((part.range.clone(), wrapped(part.wrap, &changed)));
                    }
                }
                if redacting {
                    changes.extend(replaced.iter().cloned());
                }
                changes.sort_by_key(|(range, _)| range.start);
                let mut out = Vec::with_capacity(bytes.len());
                let mut at = 0;
                for (range, change) in changes {
                    out.extend_from_slice(&bytes[at..range.start]);
                    out.extend_from_slice(&change);
                    at = range.end;
                }
                out.extend_from_slice(&bytes[at..]);
                Ok(out)
            }
            Self::Package { bytes, members } => {
                let failed = |error: zip::result::ZipError| {
                    Error::io_of("writing a package", std::io::Error::other(error.to_string()))
                };
                let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes[..])).map_err(failed)?;
                let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
                for index in 0..archive.len() {
                    match members.iter().find(|(member, _)| *member == index) {
                        Some((_, node)) => {
                            let name = archive
                                .by_index_raw(index)
                                .map_err(failed)?
                                .name()
                                .map_err(failed)?
                                .into_owned();
                            let options = zip::write::SimpleFileOptions::default()
                                .compression_method(zip::CompressionMethod::Deflated);
                            out.start_file(name, options).map_err(failed)?;
                            out.write_all(&node.render(units, edits, redacting)?)
                                .map_err(|error| Error::io_of("writing a package", error))?;
                        }
                        None => {
                            let member = archive.by_index_raw(index).map_err(failed)?;
                            out.raw_copy_file(member).map_err(failed)?;
                        }
                    }
                }
                Ok(out.finish().map_err(failed)?.into_inner())
            }
        }
    }

    fn is(&self, other: &[u8]) -> bool {
        match self {
            Self::Text { bytes, .. } | Self::Package { bytes, .. } => bytes == other,
        }
    }
}

fn encode(code: Code, before: &[u8], text: &str) -> Vec<u8> {
    match code {
        Code::Plain | Code::Fixed(_) => text.as_bytes().to_vec(),
        Code::JsonString => serde_json::Value::from(text).to_string().into_bytes(),
        Code::JsonNumber => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(_) => text.as_bytes().to_vec(),
            Err(_) => serde_json::Value::from(text).to_string().into_bytes(),
        },
        Code::Cell { delimiter } => {
            // A quote inside a cell without quotes stays as it was.
            let had_quote = before.contains(&b'"') && !before.starts_with(b"\"");
            let special = |byte: u8| byte == delimiter || matches!(byte, b'\n' | b'\r');
            let needs =
                text.bytes().any(special) || text.starts_with('"') || (text.contains('"') && !had_quote);
            match needs || before.starts_with(b"\"") {
                true => format!("\"{}\"", text.replace('"', "\"\"")).into_bytes(),
                false => text.as_bytes().to_vec(),
            }
        }
        Code::Markup => markup(text).into_bytes(),
        Code::Unquoted => format!("\"{}\"", markup(text)).into_bytes(),
        Code::SheetNumber => super::office::text_cell(before, &markup(text)),
        Code::Header => super::mail::header(text),
    }
}

/// Escapes text for XML and HTML, inside and outside attributes.
fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn wrapped(wrap: Wrap, bytes: &[u8]) -> Vec<u8> {
    match wrap {
        Wrap::None => bytes.to_vec(),
        Wrap::Base64 => {
            let mut out = Vec::new();
            for line in STANDARD.encode(bytes).as_bytes().chunks(BASE64_LINE) {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            out
        }
        Wrap::QuotedPrintable => quoted_printable(bytes),
    }
}

fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    let mut column = 0;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\r\n") || bytes[at] == b'\n' {
            let length = if bytes[at] == b'\r' { 2 } else { 1 };
            out.push_str("\r\n");
            (at, column) = (at + length, 0);
            continue;
        }
        let byte = bytes[at];
        let ends_line = matches!(bytes.get(at + 1), None | Some(b'\r' | b'\n'));
        let plain = matches!(byte, b'!'..=b'<' | b'>'..=b'~') || (matches!(byte, b' ' | b'\t') && !ends_line);
        let width = if plain { 1 } else { 3 };
        // A line has up to 76 characters, the "=" at its end included.
        if column + width > BASE64_LINE - 1 {
            out.push_str("=\r\n");
            column = 0;
        }
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
        (at, column) = (at + 1, column + width);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_several_pieces_becomes_one_placeholder() {
        let bytes = b"<b>An</b><i>na</i> met".to_vec();
        let mut unit = Unit::new(Code::Markup);
        unit.push(3..5, "An");
        unit.push(12..14, "na");
        unit.push(18..22, " met");
        let node = Node::text(bytes, 0..1);
        let edit = Edit { range: 0..4, text: "[GIVEN_NAME_1]".to_owned(), is_number: false };
        let edits = vec![vec![edit]];
        let out = node.render(&[unit], &edits, true).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "<b>[GIVEN_NAME_1]</b><i></i> met");
    }

    #[test]
    fn cells_are_quoted_where_needed() {
        let cell = Code::Cell { delimiter: b',' };
        assert_eq!(encode(cell, b"x", "a,b"), b"\"a,b\"");
        assert_eq!(encode(cell, b"\"x\"", "a"), b"\"a\"");
        assert_eq!(encode(cell, b"x", "a\"b"), b"\"a\"\"b\"");
        assert_eq!(encode(Code::JsonNumber, b"1", "[PHONE_NUMBER_1]"), b"\"[PHONE_NUMBER_1]\"");
    }

    #[test]
    fn quoted_printable_can_be_read_back() {
        let text = format!("a=b \r\né{}\n.", "x".repeat(200));
        let encoded = String::from_utf8(quoted_printable(text.as_bytes())).unwrap();
        assert!(encoded.lines().all(|line| line.len() <= 76), "{encoded}");
        let decoded = mail_parser::decoders::quoted_printable::quoted_printable_decode(encoded.as_bytes());
        assert_eq!(String::from_utf8(decoded.unwrap()).unwrap().replace('\r', ""), text.replace('\r', ""));
    }
}
