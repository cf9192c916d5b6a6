//! Tables: cells are scanned with the heads of their columns, and a column whose values are mostly of one type is of that
//! type.

use std::collections::BTreeMap;
use std::ops::Range;

use super::unit::Unit;
use crate::detect::{Entity, Label, Source, Span};
use crate::error::{Error, Result};
use crate::scan::Scanner;
use crate::vault::placeholder;

/// Code points of rows that are scanned as one text.
const CHUNK: usize = 16 << 10;
/// Cells that a column needs before its values tell its type.
const MIN_CELLS: usize = 5;
/// Of a column's cells, how many of a hundred have to be of one type.
const MAJORITY: usize = 60;

/// A table: per row and column the unit of the cell.
pub(crate) struct Table {
    pub(super) rows: Vec<Vec<Option<usize>>>,
}

/// How many cells hold a text, and how many of them stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub(super) all: usize,
    pub(super) kept: usize,
}

/// What a person says about a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Every value is of this type.
    Is(Label),
    /// It is scanned like any other text.
    Scan,
    /// It stays as it is.
    Keep,
}

/// What a person says about columns, by their heads in small letters, or by their numbers from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(BTreeMap<String, Rule>);

impl Rules {
    /// Reads `name=TYPE,notes=scan,id=keep`.
    ///
    /// # Errors
    /// If it is not of that form, or a type is none.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rules = BTreeMap::new();
        for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
            let Some((column, rule)) = entry.split_once('=') else {
                return Err(Error::Usage(format!("--columns: expected COLUMN=TYPE, got {entry:?}")));
            };
            let rule = match rule.trim() {
                "scan" => Rule::Scan,
                "keep" => Rule::Keep,
                label => {
                    let known = Entity::from_label(label).map(Label::from);
                    let own = || placeholder::is_label(label).then(|| Label::new(label.to_owned()));
                    Rule::Is(known.or_else(own).ok_or_else(|| {
                        Error::Usage(format!(
                            "--columns: {label:?} is no type; give one such as CITY, or scan or keep"
                        ))
                    })?)
                }
            };
            rules.insert(column.trim().to_lowercase(), rule);
        }
        Ok(Self(rules))
    }

    /// The names that are no column of any table, for a message.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn of(&self, head: &str, number: usize) -> Option<&Rule> {
        self.0.get(&head.trim().to_lowercase()).or_else(|| self.0.get(&number.to_string()))
    }
}

impl Table {
    /// The names of the columns, as they stand in the first row.
    pub(crate) fn heads<'a>(&self, units: &'a [Unit]) -> Vec<&'a str> {
        let first = self.rows.first().into_iter().flatten();
        first.map(|cell| cell.map_or("", |index| units[index].text())).collect()
    }

    /// Scans the cells. The spans of each are added to `spans`, by unit.
    pub(super) fn scan(
        &self,
        units: &[Unit],
        rules: &Rules,
        scanner: &mut Scanner,
        spans: &mut [Vec<Span>],
        uses: &mut [Uses],
    ) -> Result<()> {
        for index in self.rows.iter().flatten().flatten() {
            uses[*index].all += 1;
        }
        let heads: Vec<String> = self.heads(units).into_iter().map(str::to_owned).collect();
        let width = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let head = |column: usize| heads.get(column).map_or("", String::as_str);
        let rules: Vec<Option<&Rule>> = (0..width).map(|column| rules.of(head(column), column + 1)).collect();
        let named = rules.iter().any(Option::is_some);
        for chunk in self.chunks(units) {
            let (text, cells) = self.text(units, chunk);
            let scan = scanner.scan(&[&text])?;
            for (index, range) in cells {
                let first = scan.spans[0].partition_point(|span| span.end <= range.start);
                let own = scan.spans[0][first..].iter().take_while(|span| span.start < range.end);
                let cut = own.map(|span| Span {
                    start: span.start.max(range.start) - range.start,
                    end: span.end.min(range.end) - range.start,
                    ..span.clone()
                });
                // A text that stands in several cells is found if it is found in one.
                if spans[index].is_empty() {
                    spans[index].extend(cut);
                }
            }
        }
        for (column, rule) in rules.iter().enumerate() {
            let below = self.rows.iter().skip(usize::from(named || is_head(head(column))));
            let cells: Vec<usize> = below.filter_map(|row| row.get(column).copied().flatten()).collect();
            match rule {
                Some(Rule::Keep) => {
                    for index in cells {
                        uses[index].kept += 1;
                    }
                }
                Some(Rule::Is(label)) => {
                    for index in cells {
                        spans[index] = whole(&units[index], label).into_iter().collect();
                    }
                }
                Some(Rule::Scan) => {}
                None => generalize(units, &cells, spans),
            }
        }
        Ok(())
    }

    /// Ranges of rows that are scanned together.
    fn chunks(&self, units: &[Unit]) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let (mut start, mut size) = (0, 0);
        for (row, cells) in self.rows.iter().enumerate() {
            if size > CHUNK {
                chunks.push(start..row);
                (start, size) = (row, 0);
            }
            size += cells.iter().flatten().map(|index| units[*index].text().len() + 1).sum::<usize>();
        }
        chunks.push(start..self.rows.len());
        chunks
    }

    /// Rows as text delimited by tabs below the heads, and where each cell is in it, in code points.
    fn text(&self, units: &[Unit], rows: Range<usize>) -> (String, Vec<(usize, Range<usize>)>) {
        let mut text = String::new();
        let mut count = 0;
        let mut cells = Vec::new();
        let repeated = (rows.start > 0).then_some(0);
        for row in repeated.into_iter().chain(rows) {
            for (column, cell) in self.rows[row].iter().enumerate() {
                if column > 0 {
                    text.push('\t');
                    count += 1;
                }
                let Some(index) = *cell else { continue };
                let start = count;
                // One code point for one: spans have to fit the cell.
                for c in units[index].text().chars() {
                    text.push(if matches!(c, '\t' | '\n' | '\r') { ' ' } else { c });
                    count += 1;
                }
                if start < count {
                    cells.push((index, start..count));
                }
            }
            text.push('\n');
            count += 1;
        }
        (text, cells)
    }
}

/// Whether the first cell of a column can be its name.
fn is_head(cell: &str) -> bool {
    !cell.is_empty() && !cell.contains(|c: char| c.is_ascii_digit() || c == '@') && cell.chars().count() <= 32
}

/// A span of all of a cell.
fn whole(unit: &Unit, label: &Label) -> Option<Span> {
    let text = unit.text();
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return None;
    }
    let start = text.chars().take_while(|c| c.is_whitespace()).count();
    let end = start + trimmed.chars().count();
    Some(Span { start, end, label: label.clone(), score: 1.0, source: Source::Recognizer("column".into()) })
}

/// Gives the cells of a column the type that most of them are wholly of.
fn generalize(units: &[Unit], cells: &[usize], spans: &mut [Vec<Span>]) {
    let filled: Vec<usize> = cells.iter().copied().filter(|index| !units[*index].is_blank()).collect();
    if filled.len() < MIN_CELLS {
        return;
    }
    let mut labels: BTreeMap<&Label, usize> = BTreeMap::new();
    for index in &filled {
        let [span] = &spans[*index][..] else { continue };
        let wide = whole(&units[*index], &span.label);
        if wide.is_some_and(|wide| (wide.start, wide.end) == (span.start, span.end)) {
            *labels.entry(&span.label).or_default() += 1;
        }
    }
    let Some((label, count)) = labels.into_iter().max_by_key(|(_, count)| *count) else { return };
    if count * 100 < filled.len() * MAJORITY {
        return;
    }
    let label = label.clone();
    for index in filled {
        if spans[index].is_empty() {
            spans[index].extend(whole(&units[index], &label));
        }
    }
}
