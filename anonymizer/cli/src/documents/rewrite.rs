//! Redacting and restoring files.

use super::Document;
use super::columns::{Rules, Uses};
use super::unit::{Edit, Unit};
use crate::detect::Span;
use crate::error::{Error, Result};
use crate::scan::Scanner;
use crate::vault::{Vault, placeholder};

/// Bytes of texts that are scanned together.
const BATCH: usize = 64 << 10;

/// What was found in a file, by unit.
pub(crate) type Found = Vec<Vec<Span>>;

impl Document {
    /// Finds personal data in several files; short texts share passes of the model.
    ///
    /// # Errors
    /// If detection fails.
    pub(crate) fn scan(documents: &mut [Self], scanner: &mut Scanner, rules: &Rules) -> Result<Vec<Found>> {
        let mut found: Vec<Found> =
            documents.iter().map(|document| vec![Vec::new(); document.units.len()]).collect();
        for (document, found) in documents.iter_mut().zip(&mut found) {
            // Cells of a workbook may share a text: it stays only if it does in all of them.
            let mut uses = vec![Uses::default(); document.units.len()];
            for table in &document.tables {
                table.scan(&document.units, rules, scanner, found, &mut uses)?;
            }
            for ((unit, spans), uses) in document.units.iter_mut().zip(found).zip(uses) {
                if uses.kept > 0 && uses.kept == uses.all {
                    unit.keep = true;
                    spans.clear();
                }
            }
        }
        let mut batch: Vec<(usize, usize)> = Vec::new();
        let mut size = 0;
        for (number, document) in documents.iter().enumerate() {
            for (index, unit) in document.units.iter().enumerate() {
                if unit.in_table || unit.is_blank() {
                    continue;
                }
                batch.push((number, index));
                size += unit.text().len();
                if size >= BATCH {
                    Self::scan_alone(documents, &std::mem::take(&mut batch), scanner, &mut found)?;
                    size = 0;
                }
            }
        }
        if !batch.is_empty() {
            Self::scan_alone(documents, &batch, scanner, &mut found)?;
        }
        for (document, found) in documents.iter().zip(&mut found) {
            for (unit, spans) in document.units.iter().zip(found) {
                *spans = split_at_glue(unit, std::mem::take(spans));
            }
        }
        Ok(found)
    }

    fn scan_alone(
        documents: &[Self],
        batch: &[(usize, usize)],
        scanner: &mut Scanner,
        found: &mut [Found],
    ) -> Result<()> {
        let with_name = |(number, index): &(usize, usize)| {
            let unit = &documents[*number].units[*index];
            let front = if unit.name.is_empty() { String::new() } else { format!("{}: ", unit.name) };
            let length = front.chars().count();
            (front + unit.text(), length)
        };
        let texts: Vec<(String, usize)> = batch.iter().map(with_name).collect();
        let scan = scanner.scan(&texts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>())?;
        for (((number, index), (_, front)), spans) in batch.iter().zip(&texts).zip(scan.spans) {
            let inside = spans.into_iter().filter(|span| span.end > *front);
            found[*number][*index] = inside
                .map(|span| Span { start: span.start.max(*front) - front, end: span.end - front, ..span })
                .collect();
        }
        Ok(())
    }

    /// The texts, for what has to be said about them before anything is written.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.units.iter().map(Unit::text).collect()
    }

    /// The heads of all columns.
    pub(crate) fn heads(&self) -> Vec<&str> {
        self.tables.iter().flat_map(|table| table.heads(&self.units)).collect()
    }

    /// Replaces what was found, and what the vault holds, by placeholders.
    ///
    /// # Errors
    /// If the vault is full, the file has something where no placeholder can be, or it cannot be written.
    pub(crate) fn redact(&self, found: &Found, vault: &mut Vault) -> Result<Vec<u8>> {
        // Twice: a value found in a later text is then also replaced in the earlier ones.
        for _ in 0..2 {
            for (unit, spans) in self.units.iter().zip(found).filter(|(unit, _)| !unit.keep) {
                vault.redact(unit.text(), spans)?;
            }
        }
        let mut edits = Vec::with_capacity(self.units.len());
        for (unit, spans) in self.units.iter().zip(found) {
            if unit.keep {
                edits.push(Vec::new());
                continue;
            }
            let mut redacted = vault.redact(unit.text(), spans)?;
            if unit.is_number()
                && let Some(placed) = redacted.spans.first()
            {
                let whole = Span { start: 0, end: unit.text().chars().count(), ..placed.span.clone() };
                redacted = vault.redact(unit.text(), &[whole])?;
            }
            if let (Some(what), false) = (unit.fixed(), redacted.spans.is_empty()) {
                return Err(Error::input(
                    &self.place,
                    format!("{what} holds personal data and cannot hold a placeholder; rename it first"),
                ));
            }
            if redacted.spans.len() == 1 && serde_json::from_str::<serde_json::Number>(unit.text()).is_ok() {
                vault.mark_number(&redacted.text);
            }
            edits.push(
                redacted
                    .edits
                    .into_iter()
                    .map(|(range, text)| Edit { range, text, is_number: false })
                    .collect(),
            );
        }
        self.root.render(&self.units, &edits, true)
    }

    /// Puts values back where placeholders stand. Also tells which placeholders the vault does not know.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn restore(&self, vault: &Vault) -> Result<(Vec<u8>, Vec<String>)> {
        let mut unknown = Vec::new();
        let edits: Vec<_> = self
            .units
            .iter()
            .map(|unit| {
                let text = unit.text();
                let mut edits = Vec::new();
                let is_number = vault.number(text).is_some();
                let (mut byte, mut at) = (0, 0);
                for found in placeholder::find_all(text) {
                    at += text[byte..found.range.start].chars().count();
                    let raw = &text[found.range.clone()];
                    let length = raw.chars().count();
                    let restored = vault.restore(raw);
                    unknown.extend(restored.unknown);
                    if restored.replaced > 0 {
                        edits.push(Edit { range: at..at + length, text: restored.text, is_number });
                    }
                    (byte, at) = (found.range.end, at + length);
                }
                edits
            })
            .collect();
        Ok((self.root.render(&self.units, &edits, false)?, unknown))
    }
}

/// No value goes across what separates pieces.
fn split_at_glue(unit: &Unit, spans: Vec<Span>) -> Vec<Span> {
    if unit.glue().is_empty() {
        return spans;
    }
    let mut split = Vec::with_capacity(spans.len());
    for span in spans {
        let mut start = span.start;
        let first = unit.glue().partition_point(|glue| glue.end <= span.start);
        for glue in unit.glue()[first..].iter().take_while(|glue| glue.start < span.end) {
            if start < glue.start {
                split.push(Span { start, end: glue.start, ..span.clone() });
            }
            start = glue.end.max(start);
        }
        if start < span.end {
            split.push(Span { start, ..span });
        }
    }
    split
}
