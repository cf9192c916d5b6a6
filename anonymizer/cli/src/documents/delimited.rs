//! CSV and TSV.

use std::ops::Range;

use super::Reader;
use super::columns::Table;
use super::unit::{Code, Node, Unit};
use crate::error::Result;

/// Delimiters of files that do not say which they use.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Bytes at the beginning of a file that tell its delimiter.
const SAMPLE: usize = 64 << 10;

/// Reads a table. Without a `delimiter`, the one that occurs most often outside quotes in the first lines.
pub(super) fn read(reader: &mut Reader<'_>, bytes: Vec<u8>, delimiter: Option<u8>) -> Result<Node> {
    let text = reader.utf8(bytes)?;
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let delimiter = delimiter.unwrap_or_else(|| delimiter_of(&text.as_bytes()[start..]));
    let records = records(text.as_bytes(), start, delimiter)
        .map_err(|line| reader.wrong(format!("line {line}: a quote is opened and not closed")))?;
    let first = reader.units.len();
    let mut rows: Vec<Vec<Option<usize>>> = Vec::with_capacity(records.len());
    for record in records {
        let mut row = Vec::with_capacity(record.len());
        for range in record {
            let value = value(&text[range.clone()]);
            row.push(Some(reader.units.len()));
            let mut unit = Unit::single(Code::Cell { delimiter }, range, &value);
            unit.in_table = true;
            reader.units.push(unit);
        }
        rows.push(row);
    }
    reader.tables.push(Table { rows });
    Ok(Node::text(text.into_bytes(), first..reader.units.len()))
}

fn delimiter_of(bytes: &[u8]) -> u8 {
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    // Of equally many fields per line, the delimiter that gives more.
    let fields = |delimiter: u8| {
        let records = records(sample, 0, delimiter).unwrap_or_default();
        // A quote inside a cell, or one that closes before the cell ends: it belongs to a cell that another delimiter ends.
        let is_cut = |cell: &Range<usize>| !is_well_quoted(&sample[cell.clone()]);
        if records.iter().take(20).flatten().any(is_cut) {
            return 0;
        }
        let widths: Vec<usize> = records.iter().take(20).map(Vec::len).collect();
        let first = widths.first().copied().unwrap_or(1);
        let same = widths.iter().filter(|width| **width == first).count();
        if first == 1 { 0 } else { same * 1000 / widths.len().max(1) * 100 + first }
    };
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| fields(*delimiter)).unwrap_or(b',')
}

/// Whether a cell has no quotes, or one at each end and none but doubled ones between them.
fn is_well_quoted(cell: &[u8]) -> bool {
    match cell {
        [b'"', inside @ .., b'"'] => {
            let mut quotes = inside.split(|byte| *byte != b'"').map(<[u8]>::len);
            quotes.all(|run| run.is_multiple_of(2))
        }
        _ => !cell.contains(&b'"'),
    }
}

/// Where cells are, quotes included. An error is the number of the line with a quote that is not closed.
fn records(bytes: &[u8], start: usize, delimiter: u8) -> Result<Vec<Vec<Range<usize>>>, usize> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut at = start;
    let mut line = 1;
    while at < bytes.len() {
        let begin = at;
        let mut quoted_from = None;
        if bytes[at] == b'"' {
            quoted_from = Some(line);
            at += 1;
            while let Some(byte) = bytes.get(at) {
                line += usize::from(*byte == b'\n');
                at += 1;
                if *byte == b'"' {
                    if bytes.get(at) != Some(&b'"') {
                        quoted_from = None;
                        break;
                    }
                    at += 1;
                }
            }
        }
        if let Some(line) = quoted_from {
            return Err(line);
        }
        while bytes.get(at).is_some_and(|byte| *byte != delimiter && !matches!(byte, b'\n' | b'\r')) {
            at += 1;
        }
        record.push(begin..at);
        match bytes.get(at) {
            Some(byte) if *byte == delimiter => {
                at += 1;
                // A line that ends with a delimiter has an empty last cell.
                if matches!(bytes.get(at), None | Some(b'\n' | b'\r')) {
                    record.push(at..at);
                    at += line_end(&bytes[at..], &mut line);
                    records.push(std::mem::take(&mut record));
                }
            }
            _ => {
                at += line_end(&bytes[at..], &mut line);
                records.push(std::mem::take(&mut record));
            }
        }
    }
    if !record.is_empty() {
        records.push(record);
    }
    Ok(records)
}

fn line_end(bytes: &[u8], line: &mut usize) -> usize {
    let length = if bytes.starts_with(b"\r\n") { 2 } else { usize::from(!bytes.is_empty()) };
    *line += usize::from(length > 0);
    length
}

/// The value of a cell.
fn value(raw: &str) -> String {
    let inside = raw.strip_prefix('"').and_then(|rest| rest.rsplit_once('"'));
    match inside {
        // What follows a closing quote belongs to the value too, as most programs read it.
        Some((inside, after)) => inside.replace("\"\"", "\"") + after,
        None => raw.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str, delimiter: u8) -> Vec<Vec<String>> {
        let records = records(text.as_bytes(), 0, delimiter).unwrap();
        records
            .iter()
            .map(|record| record.iter().map(|range| value(&text[range.clone()])).collect())
            .collect()
    }

    #[test]
    fn cells_are_read() {
        let read = cells("a,\"b \"\"c\"\",\nd\",\r\n,x\n\nlast", b',');
        assert_eq!(read, [vec!["a", "b \"c\",\nd", ""], vec!["", "x"], vec![""], vec!["last"]]);
        assert_eq!(records(b"a\n\"b\nc", 0, b','), Err(2));
    }

    #[test]
    fn the_delimiter_is_found() {
        assert_eq!(delimiter_of(b"name;note\nAnna;a, b\nBob;c, d\n"), b';');
        assert_eq!(delimiter_of(b"a,b\n1,2\n"), b',');
        assert_eq!(delimiter_of(b"alone\nx\n"), b',');
        assert_eq!(delimiter_of(b"a|b|c\n1|2|3\n"), b'|');
        // A cell that goes on after its quotes is cut at the wrong place.
        assert_eq!(delimiter_of(b",;\r\n\"\", x@example.org,\r\n;\r\n"), b',');
        assert!(is_well_quoted(b"\"a \"\"b\"\"\"") && is_well_quoted(b"\"\"") && is_well_quoted(b"a"));
        assert!(!is_well_quoted(b"\"\", x") && !is_well_quoted(b"\"a\" b\"") && !is_well_quoted(b"\""));
    }
}
