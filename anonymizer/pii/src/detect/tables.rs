//! Tables: the head of a column says what its cells are.
//!
//! Known forms are delimited text (CSV with commas, semicolons or tabs, tables of bars, columns of spaces), `INSERT INTO t
//! (columns) VALUES (...)` and `COPY t (columns) FROM stdin`. In a row of cells the model has no sentence to go by and
//! mixes up the types of neighbouring columns.

use super::decode::Found;
use super::entity::{Entity, LONGEST_NAME, Value};
use super::span::{Source, Span};
use super::words::Word;
use crate::lexicon::{Column, lexicon};
use std::ops::Range;

/// Longest head of a column, in code points.
const LONGEST_HEAD: usize = 32;
/// Probability of being personal from which a word in a column for a person or a thing is a name.
const SUSPECTED: f32 = 0.05;
/// Longest list of values in parentheses, in code points.
const LONGEST_TUPLE: usize = 4096;
/// Confidence in what a column says.
const SCORE: f32 = 0.9;

/// A row of cells below or after the heads of their columns.
struct Row {
    columns: std::rc::Rc<[Option<Column>]>,
    cells: Vec<Range<usize>>,
}

/// Gives the cells of tables the types of their columns.
pub(super) fn refine(text: &[char], words: &[Word], found: &mut Vec<Found>, fixed: &[Span]) {
    let mut rows = delimited(text);
    rows.extend(inserted(text));
    rows.extend(copied(text));
    if rows.is_empty() {
        return;
    }
    // Per code point: whether a recognizer's span is there, and whether one that is no phone number.
    let mut recognized = vec![(false, false); text.len()];
    for span in fixed {
        let phone = span.label.as_str() == Entity::PhoneNumber.as_str();
        for place in &mut recognized[span.start..span.end] {
            *place = (true, place.1 || !phone);
        }
    }
    let mut replaced = vec![false; text.len()];
    let mut added = Vec::new();
    for row in rows {
        for (column, cell) in row.columns.iter().zip(row.cells) {
            let Some(column) = *column else { continue };
            // A phone number has no check digits: a column of other numbers is worth more.
            let numeric =
                matches!(column, Column::Is(entity) if entity.is_number() && entity != Entity::PhoneNumber);
            let taken = |&(any, certain): &(bool, bool)| if numeric { certain } else { any };
            if recognized[cell.clone()].iter().any(taken) || replaced[cell.clone()].contains(&true) {
                continue;
            }
            let spans = match column {
                Column::NotPersonal => Some(Vec::new()),
                Column::Is(entity) => {
                    holds(&text[cell.clone()], entity).then(|| vec![(cell.clone(), entity)])
                }
                Column::Person => person(text, words, &cell),
                Column::Party => is_suspected(words, &cell).then(|| person(text, words, &cell)).flatten(),
                Column::StreetLine => street(text, &cell),
            };
            let Some(spans) = spans else { continue };
            replaced[cell].fill(true);
            added.extend(spans.into_iter().map(|(range, entity)| Found {
                start: range.start,
                end: range.end,
                entity,
                score: SCORE,
                source: Source::Context,
            }));
        }
    }
    found.retain(|found| !replaced[found.start..found.end].contains(&true));
    found.extend(added);
    found.sort_by_key(|found| (found.start, found.end));
}

fn is_suspected(words: &[Word], cell: &Range<usize>) -> bool {
    inside(words, cell).any(|word| word.entity.is_some() || word.personal() >= SUSPECTED)
}

fn inside<'a>(words: &'a [Word], cell: &'a Range<usize>) -> impl Iterator<Item = &'a Word> {
    let first = words.partition_point(|word| word.start < cell.start);
    words[first..].iter().take_while(|word| word.end <= cell.end)
}

/// Whether a cell's form is one of its column's.
fn holds(cell: &[char], entity: Entity) -> bool {
    (entity.spec().fits_column)(&Value::new(cell))
}

/// A person's name in full: the surname last, or first before a comma. A single word stays what the model says.
fn person(text: &[char], words: &[Word], cell: &Range<usize>) -> Option<Vec<(Range<usize>, Entity)>> {
    if !holds(&text[cell.clone()], Entity::GivenName) {
        return None;
    }
    let mut parts = split_words(text, cell.clone());
    let word = |part: &Range<usize>| -> String {
        text[part.clone()].iter().flat_map(|c| c.to_lowercase()).collect()
    };
    if parts.iter().any(|part| lexicon().named_things.contains(&word(part))) {
        return None;
    }
    // "Dr." and other titles are no part of the name.
    if parts.len() > 1 && text[parts[0].end - 1] == '.' && parts[0].len() <= 5 {
        parts.remove(0);
    }
    let (first, last) = (parts.first()?.clone(), parts.last()?.clone());
    if parts.len() == 1 {
        let own = inside(words, cell).next()?;
        let surname = own.probability(Entity::Surname) > own.probability(Entity::GivenName);
        return Some(vec![(first, if surname { Entity::Surname } else { Entity::GivenName })]);
    }
    if let Some(comma) = parts.iter().position(|part| text[part.end - 1] == ',') {
        let surname = first.start..parts[comma].end - 1;
        let given = parts.get(comma + 1)?.start..last.end;
        return Some(vec![(surname, Entity::Surname), (given, Entity::GivenName)]);
    }
    // Particles before a surname belong to it.
    let small = |part: &&Range<usize>| text[part.start].is_lowercase();
    let capitalised = text[first.start].is_uppercase();
    let particles = parts[1..parts.len() - 1].iter().rev().take_while(small).count();
    let from = parts.len() - 1 - if capitalised { particles } else { 0 };
    Some(vec![
        (first.start..parts[from - 1].end, Entity::GivenName),
        (parts[from].start..last.end, Entity::Surname),
    ])
}

/// `12 Oak Road`, `Lindenweg 3`, with nothing else in the cell.
fn street(text: &[char], cell: &Range<usize>) -> Option<Vec<(Range<usize>, Entity)>> {
    let parts = split_words(text, cell.clone());
    let letters = |part: &Range<usize>| text[part.clone()].iter().filter(|c| c.is_alphabetic()).count();
    let is_number =
        |part: &Range<usize>| text[part.start].is_ascii_digit() && letters(part) <= 1 && part.len() <= 6;
    let (first, last) = (parts.first()?.clone(), parts.last()?.clone());
    let plain = text[cell.clone()]
        .iter()
        .all(|c| c.is_alphanumeric() || matches!(c, ' ' | '.' | '-' | '\'' | '\u{2019}' | '/'));
    if parts.len() < 2 || parts.len() > LONGEST_NAME + 1 || !plain {
        return None;
    }
    let inner = |range: &[Range<usize>]| range.iter().all(|part| !is_number(part));
    if is_number(&first) && inner(&parts[1..]) {
        return Some(vec![(first, Entity::BuildingNumber), (parts[1].start..last.end, Entity::StreetName)]);
    }
    if is_number(&last) && inner(&parts[..parts.len() - 1]) {
        return Some(vec![
            (first.start..parts[parts.len() - 2].end, Entity::StreetName),
            (last, Entity::BuildingNumber),
        ]);
    }
    None
}

fn split_words(text: &[char], range: Range<usize>) -> Vec<Range<usize>> {
    split(text, range, |c| c == ' ').into_iter().filter(|part| !part.is_empty()).collect()
}

fn split(text: &[char], range: Range<usize>, at: impl Fn(char) -> bool) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = range.start;
    for i in range.clone() {
        if at(text[i]) {
            parts.push(start..i);
            start = i + 1;
        }
    }
    parts.push(start..range.end);
    parts
}

/// A cell without white space and quotation marks at its ends.
fn trimmed(text: &[char], mut cell: Range<usize>) -> Range<usize> {
    let outside = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    while !cell.is_empty() && outside(text[cell.start]) {
        cell.start += 1;
    }
    while !cell.is_empty() && outside(text[cell.end - 1]) {
        cell.end -= 1;
    }
    cell
}

/// How the cells of a line are divided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delimiter {
    Char(char),
    /// Two spaces or more.
    Spaces,
}

/// Cells of a line; what is between double quotation marks is not divided.
fn cells(text: &[char], line: Range<usize>, delimiter: Delimiter) -> Vec<Range<usize>> {
    let mut cells = Vec::new();
    let mut quoted = false;
    let mut start = line.start;
    let mut at = line.start;
    while at < line.end {
        let divides = match delimiter {
            Delimiter::Char(c) => text[at] == c,
            Delimiter::Spaces => text[at] == ' ' && at + 1 < line.end && text[at + 1] == ' ',
        };
        if text[at] == '"' {
            quoted = !quoted;
        }
        if divides && !quoted {
            cells.push(trimmed(text, start..at));
            while delimiter == Delimiter::Spaces && at + 1 < line.end && text[at + 1] == ' ' {
                at += 1;
            }
            start = at + 1;
        }
        at += 1;
    }
    cells.push(trimmed(text, start..line.end));
    cells
}

fn is_head(text: &[char], cell: &Range<usize>) -> bool {
    let inside = &text[cell.clone()];
    inside.len() <= LONGEST_HEAD
        && inside.iter().any(|c| c.is_alphabetic())
        && inside.iter().all(|c| {
            c.is_alphanumeric()
                || matches!(c, ' ' | '_' | '-' | '.' | '/' | '#' | '(' | ')' | '\'' | '\u{2019}')
        })
}

fn heads(text: &[char], cells: &[Range<usize>]) -> Option<std::rc::Rc<[Option<Column>]>> {
    let edge = |i: usize| i == 0 || i + 1 == cells.len();
    let wrong =
        cells.iter().enumerate().any(|(i, cell)| !(is_head(text, cell) || edge(i) && cell.is_empty()));
    if cells.len() < 2 || wrong {
        return None;
    }
    let names: Vec<String> = cells.iter().map(|cell| text[cell.clone()].iter().collect()).collect();
    let columns = lexicon().columns(&names);
    let known = columns.iter().flatten().count();
    let personal = columns.iter().flatten().any(|column| *column != Column::NotPersonal);
    (known >= 2 && personal).then(|| columns.into())
}

/// Rows of lines with as many cells as the line of heads above them.
fn delimited(text: &[char]) -> Vec<Row> {
    let lines = split(text, 0..text.len(), |c| c == '\n');
    let mut rows = Vec::new();
    let mut first = 0;
    while first + 1 < lines.len() {
        let forms = ['\t', '|', ';', ','].map(Delimiter::Char).into_iter().chain([Delimiter::Spaces]);
        let table = forms
            .filter_map(|delimiter| {
                let head = cells(text, lines[first].clone(), delimiter);
                let columns = heads(text, &head)?;
                let below: Vec<Vec<Range<usize>>> = lines[first + 1..]
                    .iter()
                    .map(|line| cells(text, line.clone(), delimiter))
                    .take_while(|cells| cells.len() == head.len())
                    .collect();
                (!below.is_empty()).then_some((columns, head, below))
            })
            .max_by_key(|(columns, ..)| columns.iter().flatten().count());
        first += 1;
        let Some((columns, head, below)) = table else { continue };
        let head = Row { columns: vec![Some(Column::NotPersonal); columns.len()].into(), cells: head };
        first += below.len();
        rows.push(head);
        rows.extend(below.into_iter().map(|cells| Row { columns: columns.clone(), cells }));
    }
    rows
}

/// Whether a word (lower case) stands at `at`, whole.
fn word_at(text: &[char], at: usize, word: &str) -> bool {
    let length = word.len();
    text.len() >= at + length
        && word.chars().zip(&text[at..]).all(|(a, b)| a == b.to_ascii_lowercase())
        && (at == 0 || !text[at - 1].is_alphanumeric())
        && !text.get(at + length).is_some_and(|c| c.is_alphanumeric())
}

fn skip_space(text: &[char], mut at: usize) -> usize {
    while text.get(at).is_some_and(|c| c.is_whitespace()) {
        at += 1;
    }
    at
}

/// The values between the parenthesis at `at` and its end, and where it ends. Strings are in single quotation marks.
fn tuple(text: &[char], at: usize) -> Option<(Vec<Range<usize>>, usize)> {
    if text.get(at) != Some(&'(') {
        return None;
    }
    let (mut values, mut quoted, mut depth) = (Vec::new(), false, 0usize);
    let mut start = at + 1;
    for i in at + 1..text.len().min(at + LONGEST_TUPLE) {
        match text[i] {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => depth -= 1,
            ')' if !quoted => {
                values.push(trimmed(text, start..i));
                return Some((values, i + 1));
            }
            ',' if !quoted && depth == 0 => {
                values.push(trimmed(text, start..i));
                start = i + 1;
            }
            _ => {}
        }
    }
    None
}

/// The columns named after a statement that begins at `at` with `verb`, and where the list ends.
fn statement(text: &[char], at: usize, verb: &str) -> Option<(std::rc::Rc<[Option<Column>]>, usize)> {
    if !word_at(text, at, verb) {
        return None;
    }
    let open = (at..text.len().min(at + 96)).find(|&i| text[i] == '(')?;
    let (names, end) = tuple(text, open)?;
    Some((heads(text, &names)?, end))
}

/// `INSERT INTO t (columns) VALUES (...), (...)`.
fn inserted(text: &[char]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some((columns, end)) = statement(text, at, "insert") else {
            at += 1;
            continue;
        };
        at = end;
        let values = skip_space(text, end);
        if !word_at(text, values, "values") {
            continue;
        }
        at = values + "values".len();
        while let Some((cells, end)) = tuple(text, skip_space(text, at)) {
            if cells.len() == columns.len() {
                rows.push(Row { columns: columns.clone(), cells });
            }
            at = skip_space(text, end);
            if text.get(at) != Some(&',') {
                break;
            }
            at += 1;
        }
    }
    rows
}

/// How far after the columns of `COPY` its line may end, in code points.
const COPY_REACH: usize = 64;

/// `COPY t (columns) FROM stdin;` and lines of cells with tabs between them.
fn copied(text: &[char]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some((columns, end)) = statement(text, at, "copy") else {
            at += 1;
            continue;
        };
        at = end;
        let mut following = end..text.len().min(end + COPY_REACH);
        let Some(line_end) = following.find(|&i| text[i] == '\n') else { continue };
        if !word_at(text, skip_space(text, end), "from") {
            continue;
        }
        at = line_end + 1;
        while at < text.len() {
            let line = at..(at..text.len()).find(|&i| text[i] == '\n').unwrap_or(text.len());
            let end = line.end + 1;
            let cells = cells(text, line, Delimiter::Char('\t'));
            if cells.len() != columns.len() {
                break;
            }
            rows.push(Row { columns: columns.clone(), cells });
            at = end;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(text: &str) -> Vec<(String, Entity)> {
        let text: Vec<char> = text.chars().collect();
        let mut found = Vec::new();
        refine(&text, &[], &mut found, &[]);
        found.iter().map(|f| (text[f.start..f.end].iter().collect(), f.entity)).collect()
    }

    fn spans(text: &str) -> String {
        let spans = labelled(text);
        spans
            .iter()
            .map(|(value, entity)| format!("{}={value}", entity.as_str()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let rows = "id,last_name,first_name,zip\n7,Grey,May,10115\n8,\"von Hahn\",Ida,NULL\n";
        assert_eq!(spans(rows), "SURNAME=Grey GIVEN_NAME=May ZIP_CODE=10115 SURNAME=von Hahn GIVEN_NAME=Ida");
        assert_eq!(
            spans("| full name | phone |\n|---|---|\n| Ida van Hahn | 555 01 99 |"),
            "GIVEN_NAME=Ida SURNAME=van Hahn PHONE_NUMBER=555 01 99"
        );
        assert_eq!(
            spans("Straße;Ort\nLindenweg 3;Bad Urach"),
            "STREET_NAME=Lindenweg BUILDING_NUMBER=3 CITY=Bad Urach"
        );
    }

    #[test]
    fn statements_name_their_columns() {
        assert_eq!(
            spans("insert into t (id, surname, city) values (1, 'O''Hara', 'Ulm'), (2, 'Lee', NULL);"),
            "SURNAME=O''Hara CITY=Ulm SURNAME=Lee"
        );
        assert_eq!(
            spans("COPY s (id, full_name) FROM stdin;\n1\tIda Hahn\n\\.\n"),
            "GIVEN_NAME=Ida SURNAME=Hahn"
        );
    }

    #[test]
    fn prose_is_no_table() {
        assert_eq!(spans("Give me your name, your city\nand more, please"), "");
        assert_eq!(spans("state,count\nidle,3"), "");
        assert_eq!(spans("insert (coin) values (1)"), "");
    }
}
