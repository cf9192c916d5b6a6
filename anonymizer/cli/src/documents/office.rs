//! DOCX and XLSX: ZIP files of XML.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use quick_xml::events::Event;

use super::columns::Table;
use super::markup::{attributes, unescaped};
use super::unit::{Code, Node, Unit};
use super::{Format, Reader};
use crate::error::Result;

/// Bytes of all members, unpacked.
const MAX_BYTES: u64 = 256 << 20;
/// Members of a package.
const MAX_MEMBERS: usize = 10_000;
/// Columns of a worksheet.
const MAX_COLUMNS: usize = 16_384;
/// Names longer than this are not shown.
const SHOWN: usize = 80;

/// Elements whose text is joined with that of their neighbours: the runs of paragraphs.
const RUNS: &[&str] = &["t", "delText", "instrText"];
/// Elements whose text stands alone.
const ALONE: &[&str] = &[
    "oddHeader",
    "oddFooter",
    "evenHeader",
    "evenFooter",
    "firstHeader",
    "firstFooter",
    "author",
    "text",
    "creator",
    "lastModifiedBy",
    "title",
    "subject",
    "description",
    "keywords",
    "category",
    "Company",
    "Manager",
    "lpwstr",
];
/// Elements with a formula, whose strings are texts.
const FORMULAS: [&str; 3] = ["f", "formula1", "formula2"];
/// Attributes with text: of which element (any if empty), and their names.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("", &["author", "initials", "userid", "displayname"]),
    ("docPr", &["descr", "title"]),
    ("cNvPr", &["descr", "title"]),
    ("hyperlink", &["display", "tooltip"]),
    ("tableColumn", &["name"]),
    ("filter", &["val"]),
    ("s", &["v"]),
    ("alias", &["val"]),
];

/// What a part of a package consists of.
enum Item {
    Open { name: String, tag: Range<usize>, empty: bool },
    Text { range: Range<usize> },
    Close { name: String, end: usize },
}

pub(super) fn read(reader: &mut Reader<'_>, format: Format, bytes: Vec<u8>) -> Result<Node> {
    let what = if format == Format::Docx { "DOCX" } else { "XLSX" };
    if bytes.starts_with(b"\xd0\xcf\x11\xe0") {
        return Err(
            reader.wrong(format!("no {what} but a file of an old Office program, or one with a password"))
        );
    }
    let broken = |reader: &Reader<'_>| reader.wrong(format!("no {what}: its ZIP structure is damaged"));
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes[..])).map_err(|_| broken(reader))?;
    if archive.len() > MAX_MEMBERS {
        return Err(reader.wrong(format!("more than {MAX_MEMBERS} members")));
    }
    let main = if format == Format::Docx { "word/document.xml" } else { "xl/workbook.xml" };
    if archive.index_for_name(main).is_none() {
        return Err(reader.wrong(format!("no {what}: it has no {main}")));
    }
    let mut parts = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|_| broken(reader))?;
        let name = member.name().map_err(|_| broken(reader))?.into_owned();
        if member.is_dir() {
            continue;
        }
        let is_xml = name.ends_with(".xml") || name.ends_with(".rels") || name.ends_with(".vml");
        if !is_xml {
            let shown: String = name.chars().take(SHOWN).filter(|c| !c.is_control()).collect();
            reader.notes.push(format!("{shown} is left as it is"));
            continue;
        }
        let mut content = Vec::new();
        let limit = MAX_BYTES - total + 1;
        (&mut member).take(limit).read_to_end(&mut content).map_err(|_| broken(reader))?;
        total += content.len() as u64;
        if total > MAX_BYTES {
            return Err(reader.wrong(format!("more than {MAX_BYTES} bytes unpacked")));
        }
        let content = String::from_utf8(content).map_err(|_| reader.wrong(format!("{name} is not UTF-8")))?;
        let items = items(&content).ok_or_else(|| reader.wrong(format!("{name} is not well-formed XML")))?;
        parts.push((index, name, content, items));
    }
    // Shared strings first: cells refer to them.
    parts.sort_by_key(|(index, name, ..)| (name != "xl/sharedStrings.xml", *index));
    let mut strings = Vec::new();
    let mut members = Vec::new();
    for (index, name, content, items) in parts {
        let first = reader.units.len();
        if name == "xl/sharedStrings.xml" {
            strings = shared_strings(reader, &content, &items);
        } else if name.starts_with("xl/worksheets/") && !name.ends_with(".rels") {
            sheet(reader, &content, &items, &strings);
        } else {
            part(reader, &name, &content, &items);
        }
        members.push((index, Node::text(content.into_bytes(), first..reader.units.len())));
    }
    members.retain(|(_, node)| matches!(node, Node::Text { units, .. } if !units.is_empty()));
    Ok(Node::Package { bytes, members })
}

/// The tags and texts of XML; `None` if it is not well-formed.
fn items(content: &str) -> Option<Vec<Item>> {
    let mut reader = quick_xml::Reader::from_str(content);
    let mut items = Vec::new();
    let mut depth = 0usize;
    let mut after_tag = 0;
    let local =
        |name: quick_xml::name::QName<'_>| String::from_utf8_lossy(name.local_name().as_ref()).into_owned();
    loop {
        let start = usize::try_from(reader.buffer_position()).ok()?;
        let event = reader.read_event().ok()?;
        let end = usize::try_from(reader.buffer_position()).ok()?;
        // Text and references to characters come as several events: together they reach to the next tag.
        if !matches!(event, Event::Text(_) | Event::GeneralRef(_) | Event::CData(_)) {
            if after_tag < start && depth > 0 {
                items.push(Item::Text { range: after_tag..start });
            }
            after_tag = end;
        }
        match event {
            Event::Start(tag) => {
                depth += 1;
                items.push(Item::Open { name: local(tag.name()), tag: start..end, empty: false });
            }
            Event::Empty(tag) => {
                items.push(Item::Open { name: local(tag.name()), tag: start..end, empty: true });
            }
            Event::End(tag) => {
                depth = depth.checked_sub(1)?;
                items.push(Item::Close { name: local(tag.name()), end });
            }
            Event::Eof => return (depth == 0).then_some(items),
            _ => {}
        }
    }
}

/// Adds the texts of a part that is neither a worksheet nor the shared strings.
fn part(reader: &mut Reader<'_>, name: &str, content: &str, items: &[Item]) {
    let is_relations = name.ends_with(".rels");
    let is_data = name.starts_with("customXml/") && !name.contains("Props") && !is_relations;
    let is_chart = name.contains("/charts/");
    let mut runs = Unit::new(Code::Markup);
    let mut open: Vec<&str> = Vec::new();
    for item in items {
        match item {
            Item::Open { name, tag, empty } => {
                attributes_of(reader, content, name, tag.clone(), is_relations);
                if matches!(name.as_str(), "tab" | "br" | "cr" | "instrText" | "delText" | "fldSimple") {
                    runs.separate("\n");
                }
                if !empty {
                    open.push(name);
                }
            }
            Item::Text { range } => {
                let element = open.last().copied().unwrap_or_default();
                let text = unescaped(&content[range.clone()]);
                if RUNS.contains(&element) {
                    runs.push(range.clone(), &text);
                } else if ALONE.contains(&element) || is_data || (is_chart && element == "v") {
                    reader.units.push(Unit::single(Code::Markup, range.clone(), &text));
                }
            }
            Item::Close { name, .. } => {
                open.pop();
                if matches!(name.as_str(), "p" | "tc" | "instrText" | "delText" | "si" | "comment") {
                    runs.separate("\n");
                }
            }
        }
    }
    if !runs.is_blank() {
        reader.units.push(runs);
    }
}

/// Adds the attributes of a tag that hold text.
fn attributes_of(
    reader: &mut Reader<'_>,
    content: &str,
    element: &str,
    tag: Range<usize>,
    is_relations: bool,
) {
    let all = attributes(content, tag);
    let local = |name: &str| name.rsplit(':').next().unwrap_or_default().to_owned();
    let is_external = all
        .iter()
        .any(|attribute| attribute.name == "targetmode" && &content[attribute.value.clone()] == "External");
    for attribute in all {
        let name = local(&attribute.name);
        let value = unescaped(&content[attribute.value.clone()]).into_owned();
        let listed = ATTRIBUTES
            .iter()
            .any(|(own, names)| (own.is_empty() || *own == element) && names.contains(&name.as_str()));
        let code = if element == "sheet" && name == "name" {
            Code::Fixed("the name of a worksheet")
        } else if listed || (is_relations && is_external && name == "target") {
            Code::Markup
        } else {
            continue;
        };
        reader.units.push(Unit::single(code, attribute.value, &value));
    }
}

/// Adds the shared strings of a workbook; returns their units.
fn shared_strings(reader: &mut Reader<'_>, content: &str, items: &[Item]) -> Vec<usize> {
    let mut strings = Vec::new();
    let mut unit = Unit::new(Code::Markup);
    let mut element = "";
    for item in items {
        match item {
            Item::Open { name, empty, .. } => {
                match name.as_str() {
                    "si" => unit = Unit::new(Code::Markup),
                    // How a text is pronounced.
                    "rPh" => unit.separate("\n"),
                    _ => {}
                }
                element = if *empty { "" } else { name };
                if name == "si" && *empty {
                    strings.push(reader.units.len());
                    reader.units.push(Unit::new(Code::Markup));
                }
            }
            Item::Text { range } if element == "t" => {
                unit.push(range.clone(), &unescaped(&content[range.clone()]));
            }
            Item::Text { .. } => {}
            Item::Close { name, .. } => {
                element = "";
                if name == "si" {
                    strings.push(reader.units.len());
                    reader.units.push(std::mem::replace(&mut unit, Unit::new(Code::Markup)));
                }
            }
        }
    }
    strings
}

/// Adds the texts and numbers of a worksheet, as a table.
fn sheet(reader: &mut Reader<'_>, content: &str, items: &[Item], strings: &[usize]) {
    let mut rows: Vec<Vec<Option<usize>>> = Vec::new();
    let mut cell: Option<Cell> = None;
    let mut open: Vec<&str> = Vec::new();
    for item in items {
        match item {
            Item::Open { name, tag, empty } => {
                match name.as_str() {
                    "row" => rows.push(Vec::new()),
                    "c" => {
                        let all: HashMap<String, &str> = attributes(content, tag.clone())
                            .into_iter()
                            .map(|attribute| (attribute.name, &content[attribute.value]))
                            .collect();
                        let next = rows.last().map_or(0, Vec::len);
                        let column = all.get("r").and_then(|at| column(at)).unwrap_or(next);
                        let kind = all.get("t").copied().unwrap_or("n").to_owned();
                        cell = (!empty).then(|| Cell::new(tag.start, column.min(MAX_COLUMNS - 1), kind));
                    }
                    _ => attributes_of(reader, content, name, tag.clone(), false),
                }
                if !empty {
                    open.push(name);
                }
            }
            Item::Text { range } => {
                let element = open.last().copied().unwrap_or_default();
                let text = unescaped(&content[range.clone()]);
                match (&mut cell, element) {
                    (Some(cell), "t") => cell.text.push(range.clone(), &text),
                    (Some(cell), "v") => cell.value = Some((range.clone(), text.into_owned())),
                    (own, element) if FORMULAS.contains(&element) => {
                        if let Some(cell) = own {
                            cell.is_computed = true;
                        }
                        strings_of_formula(reader, content, range.clone());
                    }
                    (_, element) if ALONE.contains(&element) => {
                        reader.units.push(Unit::single(Code::Markup, range.clone(), &text));
                    }
                    _ => {}
                }
            }
            Item::Close { name, end } => {
                open.pop();
                if name == "c"
                    && let Some(cell) = cell.take()
                    && let Some(row) = rows.last_mut()
                {
                    let column = cell.column;
                    let unit = cell.finish(reader, *end, strings);
                    if row.len() <= column {
                        row.resize(column + 1, None);
                    }
                    row[column] = unit;
                }
            }
        }
    }
    reader.tables.push(Table { rows });
}

/// Adds the strings of a formula: `"` ends one, and a second `"` is part of it.
fn strings_of_formula(reader: &mut Reader<'_>, content: &str, range: Range<usize>) {
    // In XML, a quote in text may also be written as an entity.
    let quote = if content[range.clone()].contains("&quot;") { "&quot;" } else { "\"" };
    let mut at = range.start;
    while let Some(open) = content[at..range.end].find(quote) {
        let start = at + open + quote.len();
        let Some(length) = content[start..range.end].find(quote) else { return };
        if length > 0 {
            let text = unescaped(&content[start..start + length]).into_owned();
            reader.units.push(Unit::single(Code::Markup, start..start + length, &text));
        }
        at = start + length + quote.len();
    }
}

/// A cell while it is read.
struct Cell {
    start: usize,
    column: usize,
    kind: String,
    text: Unit,
    value: Option<(Range<usize>, String)>,
    is_computed: bool,
}

impl Cell {
    fn new(start: usize, column: usize, kind: String) -> Self {
        Self { start, column, kind, text: Unit::new(Code::Markup), value: None, is_computed: false }
    }

    /// Adds the cell's unit, if it has one of its own, and returns the one that it shows.
    fn finish(self, reader: &mut Reader<'_>, end: usize, strings: &[usize]) -> Option<usize> {
        let mut unit = match (self.kind.as_str(), self.value) {
            ("s", Some((_, index))) => {
                let index = *strings.get(index.trim().parse::<usize>().ok()?)?;
                reader.units[index].in_table = true;
                return Some(index);
            }
            ("str", Some((range, text))) => Unit::single(Code::Markup, range, &text),
            ("n" | "d", Some((_, text))) if !self.is_computed => {
                Unit::single(Code::SheetNumber, self.start..end, &whole_number(&text))
            }
            ("inlineStr", _) => self.text,
            _ => return None,
        };
        unit.in_table = true;
        reader.units.push(unit);
        Some(reader.units.len() - 1)
    }
}

/// A number as people write it: long ones are stored as `4.1E+15`.
fn whole_number(text: &str) -> String {
    let is_short = !text.contains(['e', 'E']);
    match text.parse::<f64>() {
        Ok(number) if !is_short && number.fract() == 0.0 && number.abs() < 1e18 => format!("{number:.0}"),
        _ => text.to_owned(),
    }
}

/// The column of a reference such as `BC12`, from 0.
fn column(reference: &str) -> Option<usize> {
    let letters = reference.bytes().take_while(u8::is_ascii_alphabetic);
    let number = letters.fold(0usize, |sum, letter| {
        sum.saturating_mul(26).saturating_add(usize::from(letter.to_ascii_uppercase() - b'A') + 1)
    });
    number.checked_sub(1)
}

/// A cell with text in place of a number; `before` is the whole element.
pub(super) fn text_cell(before: &[u8], escaped: &str) -> Vec<u8> {
    let before = String::from_utf8_lossy(before);
    let end = before.find('>').map_or(before.len(), |end| end + 1);
    let name: String = before[1..].chars().take_while(|c| c.is_alphanumeric() || *c == ':').collect();
    let prefix = name.rsplit_once(':').map_or(String::new(), |(prefix, _)| format!("{prefix}:"));
    let kept: String = attributes(&before, 0..end)
        .into_iter()
        .filter(|attribute| attribute.name != "t")
        .map(|attribute| format!(" {}=\"{}\"", attribute.name, &before[attribute.value]))
        .collect();
    format!(
        "<{name}{kept} t=\"inlineStr\"><{prefix}is><{prefix}t xml:space=\"preserve\">{escaped}</{prefix}t></{prefix}is></{name}>"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_columns_and_numbers_become_text() {
        assert_eq!((column("A1"), column("AB7"), column("7")), (Some(0), Some(27), None));
        assert_eq!(whole_number("4.111111111111111E+15"), "4111111111111111");
        assert_eq!(whole_number("0.5"), "0.5");
        let cell = text_cell(b"<c r=\"B2\" s=\"3\" t=\"n\"><v>1</v></c>", "[A_1]");
        assert_eq!(
            String::from_utf8(cell).unwrap(),
            "<c r=\"B2\" s=\"3\" t=\"inlineStr\"><is><t xml:space=\"preserve\">[A_1]</t></is></c>"
        );
    }

    #[test]
    fn text_reaches_to_the_next_tag() {
        let items = items("<?xml version=\"1.0\"?><a>x &amp; y<b/>z</a>").unwrap();
        let texts: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Text { range } => Some(range.len()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, [9, 1]);
        assert!(super::items("<a><b></a>").is_none() && super::items("<a>").is_none());
    }
}
