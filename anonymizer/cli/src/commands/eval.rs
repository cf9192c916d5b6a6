//! `anonymize eval`.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::EvalArgs;
use super::{files, scanner, scanner_without, write_out};
use crate::detect::Span;
use crate::detect::rules::rules;
use crate::error::{Error, Result};
use crate::eval::{Counts, GoldDocument, Scores, is_scored, labels, parse_gold};
use crate::scan::Scanner;
use crate::vault::Vault;

/// Documents that are scanned together.
const BATCH: usize = 64;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let lines = files::read_text(Some(&args.gold))?;
    let documents = parse_gold(&lines)
        .map_err(|error| Error::input(args.gold.display().to_string(), error.to_string()))?;
    let Scored { scores, genres, mistakes, unscored } = score(&documents, &mut scanner(&args.detection)?)?;
    for mistake in mistakes.iter().take(args.mistakes) {
        eprintln!("{mistake}");
    }
    if args.json {
        let genres: BTreeMap<_, _> = genres.iter().map(|(genre, scores)| (genre, summary(scores))).collect();
        let labels: BTreeMap<_, _> =
            scores.labels.iter().map(|(label, counts)| (label, rates(counts))).collect();
        let report = json!({
            "all": summary(&scores), "genres": genres, "labels": labels, "not_scored": unscored,
        });
        return write_out(format!("{report}\n").as_bytes());
    }
    write_out(table(&scores, &genres).as_bytes())?;
    for (label, count) in &unscored {
        write_out(format!("not scored, as no document labels it: {label} ({count} found)\n").as_bytes())?;
    }
    if args.ablate { ablate(args, &documents, &scores) } else { Ok(()) }
}

/// Scores of a set of documents.
struct Scored<'d> {
    scores: Scores,
    genres: BTreeMap<&'d str, Scores>,
    mistakes: Vec<String>,
    /// Spans of types that the set does not label.
    unscored: BTreeMap<String, usize>,
}

fn score<'d>(documents: &'d [GoldDocument], scanner: &mut Scanner) -> Result<Scored<'d>> {
    let mut scored = Scored {
        scores: Scores::default(),
        genres: BTreeMap::new(),
        mistakes: Vec::new(),
        unscored: BTreeMap::new(),
    };
    let labels = labels(documents);
    for batch in documents.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|document| document.text.as_str()).collect();
        for (document, spans) in batch.iter().zip(scanner.scan(&texts)?.spans) {
            // What the vault adds (repeated values) is redacted, so it counts.
            let mut spans: Vec<Span> = Vault::new()
                .redact(&document.text, &spans)?
                .spans
                .into_iter()
                .map(|placed| placed.span)
                .collect();
            spans.retain(|span| {
                let counts = is_scored(&labels, span.label.as_str());
                if !counts {
                    *scored.unscored.entry(span.label.to_string()).or_default() += 1;
                }
                counts
            });
            scored.scores.add(document, &spans);
            scored.genres.entry(&document.genre).or_default().add(document, &spans);
            scored.mistakes.extend(list_mistakes(document, &spans));
        }
    }
    Ok(scored)
}

/// What each rule is worth: how the scores change with it.
fn ablate(args: &EvalArgs, documents: &[GoldDocument], with: &Scores) -> Result<()> {
    write_out(
        format!("\n{:<32} {:>7} {:>8} {:>8} {:>6}\n", "with the rule", "F1", "leak", "over", "clean")
            .as_bytes(),
    )?;
    for rule in rules() {
        let mut scanner = scanner_without(&args.detection, Some(rule.id))?;
        let without = score(documents, &mut scanner)?.scores;
        let line = format!(
            "{:<32} {:>+7.4} {:>+7.3}% {:>+7.3}% {:>+6}\n",
            rule.id,
            with.exact.f1() - without.exact.f1(),
            100.0 * (with.leak_rate() - without.leak_rate()),
            100.0 * (with.over_redaction_rate() - without.over_redaction_rate()),
            with.clean_flagged as i64 - without.clean_flagged as i64,
        );
        write_out(line.as_bytes())?;
    }
    Ok(())
}

fn summary(scores: &Scores) -> serde_json::Value {
    json!({
        "documents": scores.documents,
        "exact": rates(&scores.exact),
        "leak_rate": scores.leak_rate(),
        "over_redaction_rate": scores.over_redaction_rate(),
        "clean_documents": scores.clean,
        "clean_documents_flagged": scores.clean_flagged,
    })
}

fn rates(counts: &Counts) -> serde_json::Value {
    json!({ "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(), "hits": counts.hits,
        "extra": counts.extra, "missed": counts.missed })
}

fn table(scores: &Scores, genres: &BTreeMap<&str, Scores>) -> String {
    let mut out = format!(
        "{:<20} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7}\n",
        "type", "hits", "extra", "missed", "F1", "leak", "over"
    );
    for (label, counts) in &scores.labels {
        out.push_str(&format!(
            "{label:<20} {:>6} {:>6} {:>6} {:>6.3}\n",
            counts.hits,
            counts.extra,
            counts.missed,
            counts.f1()
        ));
    }
    let all = [("all", scores)];
    for (name, scores) in genres.iter().map(|(genre, scores)| (*genre, scores)).chain(all) {
        let counts = &scores.exact;
        out.push_str(&format!(
            "{name:<20} {:>6} {:>6} {:>6} {:>6.3} {:>6.2}% {:>6.2}%\n",
            counts.hits,
            counts.extra,
            counts.missed,
            counts.f1(),
            100.0 * scores.leak_rate(),
            100.0 * scores.over_redaction_rate()
        ));
    }
    out.push_str(&format!("clean documents flagged: {} of {}\n", scores.clean_flagged, scores.clean));
    out
}

fn list_mistakes(document: &GoldDocument, spans: &[Span]) -> Vec<String> {
    let chars: Vec<char> = document.text.chars().collect();
    let shown = |start: usize, end: usize| {
        let around = start.saturating_sub(24)..(end + 8).min(chars.len());
        let around: String = chars[around].iter().collect();
        format!("{:?} in {around:?}", chars[start..end].iter().collect::<String>())
    };
    let same = |label: &str, other: &str| {
        label == other || matches!((label, other), ("SSN", "TAX_ID") | ("TAX_ID", "SSN"))
    };
    let mut lines = Vec::new();
    for gold in &document.spans {
        let hit = spans
            .iter()
            .any(|s| s.start == gold.start && s.end == gold.end && same(s.label.as_str(), &gold.label));
        if !hit {
            lines.push(format!("missed {} {} {}", document.id, gold.label, shown(gold.start, gold.end)));
        }
    }
    for span in spans {
        let hit = document
            .spans
            .iter()
            .any(|g| g.start == span.start && g.end == span.end && same(span.label.as_str(), &g.label));
        if !hit {
            let source = span.source.as_str();
            lines.push(format!(
                "extra {} {} ({source}) {}",
                document.id,
                span.label,
                shown(span.start, span.end)
            ));
        }
    }
    lines
}
