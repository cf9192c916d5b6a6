//! E-mails: headers, texts and attachments that can be read. Attachments that cannot are taken out.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Encoding, MessageParser, MimeHeaders, PartType, parsers::MessageStream};

use super::unit::{Code, Node, Part, Unit, Wrap};
use super::{Format, Reader};
use crate::error::Result;

/// Headers that say how a message is packed, and no more.
const STRUCTURE: &[&str] =
    &["mime-version", "content-transfer-encoding", "content-length", "content-language"];
/// Headers of which only the names of files are text.
const NAMES_ONLY: &[&str] = &["content-type", "content-disposition"];
/// Bytes of an encoded word.
const WORD: usize = 45;

pub(super) fn read(reader: &mut Reader<'_>, bytes: Vec<u8>, depth: usize) -> Result<Node> {
    let Some(message) = MessageParser::default().parse(&bytes) else {
        return Err(reader.wrong("no e-mail: it has no header"));
    };
    let mut headers = Unit::new(Code::Header);
    let mut parts = Vec::new();
    let mut replaced = Vec::new();
    for (index, part) in message.parts.iter().enumerate() {
        let body = part.offset_body as usize..(part.offset_end as usize).min(bytes.len());
        for header in &part.headers {
            let range = trimmed(&bytes, header.offset_start as usize..header.offset_end as usize);
            add_header(&mut headers, &bytes, header.name.as_str(), range);
        }
        let name = part.attachment_name().unwrap_or_default().to_owned();
        let wrap = match part.encoding {
            Encoding::None => Wrap::None,
            Encoding::Base64 => Wrap::Base64,
            Encoding::QuotedPrintable => Wrap::QuotedPrintable,
        };
        let charset = part.content_type().and_then(|kind| kind.attribute("charset")).unwrap_or("utf-8");
        let is_foreign = !["utf-8", "utf8", "us-ascii", "ascii"].contains(&charset.to_lowercase().as_str());
        let (format, content) = match &part.body {
            PartType::Multipart(_) => continue,
            PartType::Html(text) => (Format::Html, text.as_bytes().to_vec()),
            PartType::Text(text) => (Format::of_name(name.as_ref()), text.as_bytes().to_vec()),
            PartType::Message(_) => match part.encoding {
                Encoding::None => (Format::Eml, bytes[body.clone()].to_vec()),
                _ => (Format::Eml, part.contents().to_vec()),
            },
            PartType::Binary(content) | PartType::InlineBinary(content) => {
                (Format::of_name(name.as_ref()), content.to_vec())
            }
        };
        let is_text = matches!(&part.body, PartType::Text(_) | PartType::Html(_));
        let before = (reader.units.len(), reader.tables.len(), reader.notes.len());
        match reader.node(format, content.clone(), depth + 1) {
            Ok(node) => {
                let always = is_text && is_foreign;
                if always {
                    replaced.extend(charset_of(&bytes, part.offset_header as usize..body.start));
                }
                parts.push(Part { range: body, wrap, always, node });
            }
            Err(error) if format == Format::Eml => return Err(error),
            Err(_) => {
                reader.units.truncate(before.0);
                reader.tables.truncate(before.1);
                reader.notes.truncate(before.2);
                // A part of a table or of a package that cannot be read as one is no text either.
                if is_text {
                    let node = reader.node(Format::Text, content, depth + 1)?;
                    parts.push(Part { range: body, wrap, always: false, node });
                } else {
                    let note = "[an attachment that is no text was left out]\r\n";
                    reader.notes.push("an attachment that cannot be read was left out".to_owned());
                    let header = "Content-Type: text/plain; charset=utf-8\r\n\r\n";
                    match index {
                        0 => replaced.push((body, STANDARD.encode(note).into_bytes())),
                        _ => {
                            let whole = part.offset_header as usize..body.end;
                            headers.forget(&whole);
                            replaced.push((whole, format!("{header}{note}").into_bytes()));
                        }
                    }
                }
            }
        }
    }
    let first = reader.units.len();
    reader.units.push(headers);
    drop(message);
    Ok(Node::Text { bytes, units: first..first + 1, parts, replaced })
}

/// Messages after lines that begin with `From `.
pub(super) fn read_mailbox(reader: &mut Reader<'_>, bytes: Vec<u8>, depth: usize) -> Result<Node> {
    let mut starts = Vec::new();
    let mut at = 0;
    let mut after_blank = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if after_blank && line.starts_with(b"From ") {
            starts.push((at, at + line.len()));
        }
        after_blank = line.iter().all(u8::is_ascii_whitespace);
        at += line.len();
    }
    if starts.first().is_none_or(|(start, _)| *start != 0) {
        return Err(reader.wrong("no mailbox: it does not begin with a line \"From \""));
    }
    let mut lines = Unit::new(Code::Plain);
    let mut parts = Vec::new();
    for (index, (start, body)) in starts.iter().enumerate() {
        let line = trimmed(&bytes, *start..*body);
        lines.push(line.clone(), &String::from_utf8_lossy(&bytes[line]));
        lines.separate("\n");
        let end = starts.get(index + 1).map_or(bytes.len(), |(next, _)| *next);
        let node = read(reader, bytes[*body..end].to_vec(), depth + 1)?;
        parts.push(Part { range: *body..end, wrap: Wrap::None, always: false, node });
    }
    let first = reader.units.len();
    reader.units.push(lines);
    Ok(Node::Text { bytes, units: first..first + 1, parts, replaced: Vec::new() })
}

/// Without white space at its ends.
fn trimmed(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let end = range.end.min(bytes.len());
    let inside = &bytes[range.start.min(end)..end];
    let front = inside.len() - inside.trim_ascii_start().len();
    range.start.min(end) + front..range.start.min(end) + front + inside.trim_ascii().len()
}

fn add_header(headers: &mut Unit, bytes: &[u8], name: &str, range: Range<usize>) {
    let lower = name.to_ascii_lowercase();
    if STRUCTURE.contains(&lower.as_str()) || range.is_empty() {
        return;
    }
    if NAMES_ONLY.contains(&lower.as_str()) {
        for value in file_names(&bytes[range.clone()]) {
            let value = range.start + value.start..range.start + value.end;
            headers.separate("\nFile: ");
            headers.push(value.clone(), &decoded(&bytes[value]));
        }
        return;
    }
    headers.separate(&format!("\n{name}: "));
    headers.push(range.clone(), &decoded(&bytes[range]));
}

/// A header's value with its encoded words read.
fn decoded(raw: &[u8]) -> String {
    let mut line = raw.to_vec();
    line.extend_from_slice(b"\r\n");
    let value = MessageStream::new(&line).parse_unstructured();
    value.as_text().map_or_else(|| String::from_utf8_lossy(raw).into_owned(), str::to_owned)
}

/// The values of `name` and `filename`, without quotes.
fn file_names(value: &[u8]) -> Vec<Range<usize>> {
    let lower = value.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = lower[at..].windows(4).position(|four| four == b"name") {
        at += next + 4;
        // `name*0*=` and the like are pieces of one value.
        while lower.get(at).is_some_and(|byte| matches!(byte, b'*' | b'0'..=b'9')) {
            at += 1;
        }
        if lower.get(at) != Some(&b'=') {
            continue;
        }
        at += 1;
        let is_quoted = lower.get(at) == Some(&b'"');
        let start = at + usize::from(is_quoted);
        let ends =
            |byte: &u8| if is_quoted { *byte == b'"' } else { matches!(byte, b';' | b' ' | b'\r' | b'\n') };
        let length = lower[start.min(lower.len())..].iter().position(ends);
        at = length.map_or(lower.len(), |length| start + length);
        found.push(start.min(at)..at);
    }
    found
}

/// The charset of a part's header, to be replaced.
fn charset_of(bytes: &[u8], header: Range<usize>) -> Option<(Range<usize>, Vec<u8>)> {
    let lower = bytes[header.clone()].to_ascii_lowercase();
    let at = lower.windows(8).position(|eight| eight == b"charset=")? + 8;
    let start = at + usize::from(lower.get(at) == Some(&b'"'));
    let length = lower[start..].iter().position(|byte| matches!(byte, b'"' | b';' | b' ' | b'\r' | b'\n'))?;
    Some((header.start + start..header.start + start + length, b"utf-8".to_vec()))
}

/// A header's value; words beyond ASCII are encoded.
pub(super) fn header(text: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if !out.is_empty() {
            out.push(' ');
        }
        if word.is_ascii() {
            out.push_str(word);
            continue;
        }
        // The space between two encoded words does not count: neighbours are encoded together.
        let mut run = word.to_owned();
        while let Some(next) = words.next_if(|next| !next.is_ascii()) {
            run.push(' ');
            run.push_str(next);
        }
        let mut rest = run.as_str();
        let mut first = true;
        while !rest.is_empty() {
            let mut end = rest.len().min(WORD);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            if !first {
                out.push_str("\r\n ");
            }
            out.push_str(&format!("=?utf-8?B?{}?=", STANDARD.encode(&rest[..end])));
            (rest, first) = (&rest[end..], false);
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back() {
        for text in ["plain [GIVEN_NAME_1] text", "Grüße an Çağla Öz von [CITY_1]", &"é".repeat(100)] {
            assert_eq!(decoded(&header(text)), text);
        }
        assert_eq!(decoded("=?iso-8859-1?Q?Andr=E9?= <a@example.org>".as_bytes()), "André <a@example.org>");
    }

    #[test]
    fn names_of_files_are_found() {
        let value = b"attachment; filename=\"Anna L.pdf\"; name*0*=utf-8''Anna%20L; size=3";
        let names: Vec<_> = file_names(value)
            .into_iter()
            .map(|range| String::from_utf8_lossy(&value[range]).into_owned())
            .collect();
        assert_eq!(names, ["Anna L.pdf", "utf-8''Anna%20L"]);
    }
}
