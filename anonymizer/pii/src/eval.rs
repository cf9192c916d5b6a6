//! How good detection is on labelled documents.
//!
//! The measures are those by which personal-data detectors are compared: an exact span counts when start, end and
//! label are equal, after touching spans of one label have been joined; the leak rate is what a reader would still
//! see.

use crate::detect::span::Span;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A labelled span.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GoldSpan {
    /// First code point.
    pub start: usize,
    /// After the last code point.
    pub end: usize,
    /// The label.
    pub label: String,
}

/// A document with the spans that should be found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldDocument {
    /// Unique in its set.
    pub id: String,
    /// What kind of text it is.
    #[serde(default)]
    pub genre: String,
    /// The text.
    pub text: String,
    /// The spans.
    pub spans: Vec<GoldSpan>,
}

/// Why a set of documents cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A line is not a document.
    #[error("line {line}: {reason}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it, without its text.
        reason: String,
    },
}

/// Reads documents, one JSON object per line.
///
/// # Errors
/// If a line is not a document, an id occurs twice, or a span is empty or ends after its text.
pub fn parse_gold(lines: &str) -> Result<Vec<GoldDocument>, EvalError> {
    let mut ids = BTreeSet::new();
    let mut documents = Vec::new();
    for (index, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refused = |reason: String| EvalError::Line { line: index + 1, reason };
        let document: GoldDocument = serde_json::from_str(line).map_err(|error| {
            refused(format!("column {}: not a document with id, text and spans", error.column()))
        })?;
        if !ids.insert(document.id.clone()) {
            return Err(refused("the id occurs twice".to_owned()));
        }
        let length = document.text.chars().count();
        if document.spans.iter().any(|span| span.start >= span.end || span.end > length) {
            return Err(refused(format!(
                "a span is empty or ends after the {length} code points of the text"
            )));
        }
        documents.push(document);
    }
    Ok(documents)
}

/// The labels that occur in a set of documents, under the names by which they are scored. A type that a set labels
/// nowhere cannot be scored on it: nobody said where it occurs.
pub fn labels(documents: &[GoldDocument]) -> BTreeSet<String> {
    documents.iter().flat_map(|document| &document.spans).map(|span| normal(span).label).collect()
}

/// Whether spans of a label are scored on a set with these labels; in a set without any, all are.
pub fn is_scored(labels: &BTreeSet<String>, label: &str) -> bool {
    let span = GoldSpan { start: 0, end: 1, label: label.to_owned() };
    labels.is_empty() || labels.contains(&normal(&span).label)
}

/// Hits and misses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Found as they should be.
    pub hits: usize,
    /// Found, but not so labelled.
    pub extra: usize,
    /// Labelled, but not so found.
    pub missed: usize,
}

impl Counts {
    /// Share of what was found that is right; 0 if nothing was found.
    pub fn precision(&self) -> f64 {
        ratio(self.hits, self.hits + self.extra)
    }

    /// Share of what should be found that was; 0 if there is nothing to find.
    pub fn recall(&self) -> f64 {
        ratio(self.hits, self.hits + self.missed)
    }

    /// Harmonic mean of both.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.hits, 2 * self.hits + self.extra + self.missed)
    }
}

/// Scores of a set of documents.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Documents.
    pub documents: usize,
    /// Spans, exact after joining.
    pub exact: Counts,
    /// The same per label.
    pub labels: BTreeMap<String, Counts>,
    /// Code points of labelled spans.
    pub personal: usize,
    /// Those that no span of any label covers.
    pub leaked: usize,
    /// Code points outside labelled spans, white space left out.
    pub other: usize,
    /// Those that some span covers.
    pub over_redacted: usize,
    /// Documents without labelled spans.
    pub clean: usize,
    /// Those in which something was found.
    pub clean_flagged: usize,
}

impl Scores {
    /// Share of personal code points that leak.
    pub fn leak_rate(&self) -> f64 {
        ratio(self.leaked, self.personal)
    }

    /// Share of other code points that are redacted.
    pub fn over_redaction_rate(&self) -> f64 {
        ratio(self.over_redacted, self.other)
    }

    /// Adds a document and what was found in it.
    pub fn add(&mut self, document: &GoldDocument, found: &[Span]) {
        let gold: Vec<GoldSpan> = document.spans.iter().map(normal).collect();
        let found: Vec<GoldSpan> = found
            .iter()
            .map(|span| {
                normal(&GoldSpan { start: span.start, end: span.end, label: span.label.as_str().to_owned() })
            })
            .collect();
        self.documents += 1;
        self.count_spans(&joined(&gold), &joined(&found));
        let text: Vec<char> = document.text.chars().collect();
        let covering = |spans: &[GoldSpan]| {
            let mut covered = vec![false; text.len()];
            for span in spans {
                covered[span.start.min(text.len())..span.end.min(text.len())].fill(true);
            }
            covered
        };
        for ((c, personal), covered) in text.iter().zip(covering(&gold)).zip(covering(&found)) {
            if personal {
                self.personal += 1;
                self.leaked += usize::from(!covered);
            } else if !c.is_whitespace() {
                self.other += 1;
                self.over_redacted += usize::from(covered);
            }
        }
        if gold.is_empty() {
            self.clean += 1;
            self.clean_flagged += usize::from(!found.is_empty());
        }
    }

    fn count_spans(&mut self, gold: &[GoldSpan], found: &[GoldSpan]) {
        let (gold, found): (BTreeSet<_>, BTreeSet<_>) = (gold.iter().collect(), found.iter().collect());
        for span in gold.union(&found) {
            let per_label = self.labels.entry(span.label.clone()).or_default();
            for counts in [&mut self.exact, per_label] {
                match (gold.contains(span), found.contains(span)) {
                    (true, true) => counts.hits += 1,
                    (true, false) => counts.missed += 1,
                    _ => counts.extra += 1,
                }
            }
        }
    }
}

/// A span under the name by which it is scored: SSN and TAX_ID are one class, as the model has no SSN.
fn normal(span: &GoldSpan) -> GoldSpan {
    let label = match span.label.as_str() {
        "SSN" => "TAX_ID",
        "PHONE" => "PHONE_NUMBER",
        "CREDIT_CARD" => "CREDIT_CARD_NUMBER",
        "IP" => "IP_ADDRESS",
        "ZIP" | "POSTAL_CODE" => "ZIP_CODE",
        other => other,
    };
    GoldSpan { label: label.to_owned(), ..*span }
}

/// Joins touching and overlapping spans of one label.
fn joined(spans: &[GoldSpan]) -> Vec<GoldSpan> {
    let mut by_label: HashMap<&str, Vec<&GoldSpan>> = HashMap::new();
    for span in spans {
        by_label.entry(&span.label).or_default().push(span);
    }
    let mut joined: Vec<GoldSpan> = Vec::new();
    for mut spans in by_label.into_values() {
        spans.sort();
        let first = joined.len();
        for span in spans {
            match joined[first..].last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => joined.push(span.clone()),
            }
        }
    }
    joined
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Entity, Source};

    #[test]
    fn scores_count_spans_and_characters() {
        let gold = r#"{"id": "a", "text": "Ann lives in Rome.", "spans": [{"start": 0, "end": 3, "label": "GIVEN_NAME"},
            {"start": 13, "end": 17, "label": "CITY"}]}"#
            .replace('\n', " ");
        let documents = parse_gold(&gold).unwrap();
        let span = |start, end, entity: Entity| Span {
            start,
            end,
            label: entity.into(),
            score: 1.0,
            source: Source::Model,
        };
        let mut scores = Scores::default();
        // Two touching pieces count as one; "in R" is half wrong.
        let found =
            [span(0, 1, Entity::GivenName), span(1, 3, Entity::GivenName), span(10, 14, Entity::City)];
        scores.add(&documents[0], &found);
        assert_eq!(scores.exact, Counts { hits: 1, extra: 1, missed: 1 });
        assert_eq!((scores.personal, scores.leaked), (7, 3));
        assert_eq!((scores.other, scores.over_redacted), (8, 2));
        assert!((scores.exact.f1() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn types_that_a_set_does_not_label_are_not_scored() {
        let gold = r#"{"id": "a", "text": "Ann", "spans": [{"start": 0, "end": 3, "label": "SSN"}]}"#;
        let labels = labels(&parse_gold(gold).unwrap());
        assert!(is_scored(&labels, "TAX_ID") && is_scored(&labels, "SSN"));
        assert!(!is_scored(&labels, "AGE") && is_scored(&BTreeSet::new(), "AGE"));
    }

    #[test]
    fn damaged_sets_are_refused_by_line() {
        let line = r#"{"id": "a", "text": "x", "spans": []}"#;
        for bad in [
            "{}",
            "no",
            line,
            r#"{"id": "b", "text": "x", "spans": [{"start": 0, "end": 2, "label": "CITY"}]}"#,
        ] {
            let error = parse_gold(&format!("{line}\n\n{bad}")).unwrap_err();
            assert!(error.to_string().starts_with("line 3:"), "{error}");
        }
    }
}
