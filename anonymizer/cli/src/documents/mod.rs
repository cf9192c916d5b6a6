//! Files with a form: which parts of them are text, and how a part is written back.
//!
//! A reader turns the bytes of a file into `Unit`s, the texts that are scanned. Each unit knows which bytes its pieces
//! come from, so that everything else of the file stays as it is, byte for byte.
//!
//! | module | content |
//! |---|---|
//! | `unit` | texts, where they come from, and how they are written back |
//! | `delimited` | CSV and TSV |
//! | `json` | JSON and JSON Lines |
//! | `markup` | HTML |
//! | `mail` | e-mails and mailboxes |
//! | `office` | DOCX and XLSX |
//! | `subtitles` | SRT and WebVTT |
//! | `columns` | tables and the types of their columns |
//! | `rewrite` | redacting and restoring |

pub(crate) mod columns;
mod delimited;
mod json;
mod mail;
mod markup;
mod office;
pub(crate) mod rewrite;
mod subtitles;
pub(crate) mod unit;

use std::path::Path;

use clap::ValueEnum;

use crate::error::{Error, Result};
use columns::Table;
use unit::{Node, Unit};

/// Parts inside parts (mails in mails, spreadsheets in mails) that are read.
const MAX_DEPTH: usize = 8;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain text, Markdown, source code, logs
    Text,
    /// Delimited by commas, semicolons or bars
    Csv,
    /// Delimited by tabs
    Tsv,
    /// One JSON value
    Json,
    /// One JSON value per line
    Jsonl,
    /// HTML
    Html,
    /// One e-mail
    Eml,
    /// A mailbox
    Mbox,
    /// A document of Word
    Docx,
    /// A workbook of Excel
    Xlsx,
    /// Subtitles: SubRip or WebVTT
    Subtitles,
}

/// Endings of names, and what they stand for.
const ENDINGS: &[(&str, Format)] = &[
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("tab", Format::Tsv),
    ("json", Format::Json),
    ("jsonl", Format::Jsonl),
    ("ndjson", Format::Jsonl),
    ("html", Format::Html),
    ("htm", Format::Html),
    ("xhtml", Format::Html),
    ("eml", Format::Eml),
    ("mbox", Format::Mbox),
    ("docx", Format::Docx),
    ("xlsx", Format::Xlsx),
    ("srt", Format::Subtitles),
    ("vtt", Format::Subtitles),
];

/// How files begin that are not read, and what they are.
const REFUSED: &[(&[u8], &str)] = &[
    (b"PK\x03\x04", "a ZIP archive, or a file of a program that packs its files as one; unpack it first"),
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
    (b"BZh", "compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ\x00", "compressed (xz); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd); unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF-", "a PDF; convert it to text first (pdftotext)"),
    (b"\xd0\xcf\x11\xe0", "a file of an old Office program; save it as DOCX or XLSX first"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"PAR1", "a Parquet file; convert it to CSV first"),
    (b"SQLite format 3", "a database; export it as CSV first"),
    (b"\xff\xfe", "UTF-16 text; convert it to UTF-8 first"),
    (b"\xfe\xff", "UTF-16 text; convert it to UTF-8 first"),
];

impl Format {
    /// The format that a file's name tells.
    pub fn of_name(name: &Path) -> Self {
        let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        ENDINGS.iter().find(|(own, _)| *own == ending).map_or(Self::Text, |(_, format)| *format)
    }

    /// Whether a file of this format is no text.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Docx | Self::Xlsx)
    }
}

/// A file that was read.
pub(crate) struct Document {
    place: String,
    root: Node,
    units: Vec<Unit>,
    tables: Vec<Table>,
    /// What is left as it is and may hold personal data, in words.
    notes: Vec<String>,
}

impl Document {
    /// Reads a file. `place` names it in errors.
    ///
    /// # Errors
    /// If it is not of its format.
    pub(crate) fn read(format: Format, place: &str, bytes: Vec<u8>) -> Result<Self> {
        let mut reader = Reader { place, units: Vec::new(), tables: Vec::new(), notes: Vec::new() };
        let root = reader.node(format, bytes, 0)?;
        let place = place.to_owned();
        Ok(Self { place, root, units: reader.units, tables: reader.tables, notes: reader.notes })
    }

    /// What the file is called.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// What is left as it is and may hold personal data.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes of all texts.
    pub(crate) fn len(&self) -> usize {
        self.units.iter().map(|unit| unit.text().len()).sum()
    }
}

/// Collects the units of a file while it is read.
struct Reader<'a> {
    place: &'a str,
    units: Vec<Unit>,
    tables: Vec<Table>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn node(&mut self, format: Format, bytes: Vec<u8>, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(format!("nested more than {MAX_DEPTH} parts deep")));
        }
        if !format.is_binary()
            && let Some((magic, what)) = REFUSED.iter().find(|(magic, _)| bytes.starts_with(magic))
            // Text may begin so, too.
            && (*magic == b"%PDF-" || bytes.contains(&0) || std::str::from_utf8(&bytes).is_err())
        {
            return Err(self.wrong(format!("not read: {what}")));
        }
        match format {
            Format::Text => {
                let text = self.utf8(bytes)?;
                let first = self.units.len();
                self.units.push(Unit::plain(0..text.len(), &text));
                Ok(Node::text(text.into_bytes(), first..self.units.len()))
            }
            Format::Csv => delimited::read(self, bytes, None),
            Format::Tsv => delimited::read(self, bytes, Some(b'\t')),
            Format::Json => json::read(self, bytes, false),
            Format::Jsonl => json::read(self, bytes, true),
            Format::Html => markup::read(self, bytes),
            Format::Eml => mail::read(self, bytes, depth),
            Format::Mbox => mail::read_mailbox(self, bytes, depth),
            Format::Docx | Format::Xlsx => office::read(self, format, bytes),
            Format::Subtitles => subtitles::read(self, bytes),
        }
    }

    fn utf8(&self, bytes: Vec<u8>) -> Result<String> {
        String::from_utf8(bytes).map_err(|error| {
            self.wrong(format!("not UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::input(self.place, reason)
    }
}

#[cfg(test)]
mod tests;
