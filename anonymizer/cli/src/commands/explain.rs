//! `anonymize explain`.

use serde_json::json;

use super::args::ExplainArgs;
use super::{files, scanner, write_out};
use crate::detect::rules::Because;
use crate::detect::{Source, Span};
use crate::error::Result;
use crate::recognizers::Recognized;

pub(super) fn run(args: &ExplainArgs) -> Result<()> {
    let text = files::read_text(args.path.as_deref())?;
    let mut scanner = scanner(&args.detection)?;
    let scan = scanner.scan(&[&text])?;
    let recognized = scanner.rules().explain(&text);
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    for span in &scan.spans[0] {
        let value: String = chars[span.start..span.end].iter().collect();
        let why = reason(span, &recognized, &scan.because[0]);
        let beaten: Vec<String> = recognized
            .iter()
            .filter(|other| other.span.overlaps(span) && other.span != *span)
            .map(|other| format!("{} {}", other.span.source.as_str(), other.span.label))
            .collect();
        if args.json {
            let record = json!({
                "start": span.start, "end": span.end, "label": span.label.as_str(), "score": span.score,
                "source": span.source.as_str(), "text": value, "reason": why, "over": beaten,
            });
            out.push_str(&format!("{record}\n"));
        } else {
            let over =
                if beaten.is_empty() { String::new() } else { format!(" (over {})", beaten.join(", ")) };
            out.push_str(&format!(
                "{:>5}..{:<5} {:<18} {:.2}  {value:?}\n{:14}{}: {why}{over}\n",
                span.start,
                span.end,
                span.label.as_str(),
                span.score,
                "",
                span.source.as_str()
            ));
        }
    }
    if !args.json {
        out.push_str(&format!(
            "{} spans in {} tokens, {} tokens sent\n",
            scan.spans[0].len(),
            scan.tokens,
            scan.sent
        ));
    }
    write_out(out.as_bytes())
}

fn reason(span: &Span, recognized: &[Recognized], because: &[Because]) -> String {
    let rule = because.iter().find(|because| because.start < span.end && span.start < because.end);
    let rule = rule.map(|because| format!("rule {}; the model alone: {:.2}", because.rule, because.before));
    match span.source {
        Source::Model => {
            rule.unwrap_or_else(|| "the model's probability that these words are personal".to_owned())
        }
        Source::Context => rule.unwrap_or_else(|| "the words around it".to_owned()),
        Source::Recognizer(_) => recognized
            .iter()
            .find(|other| other.span == *span)
            .map_or("a recognizer", |other| other.reason)
            .to_owned(),
    }
}
