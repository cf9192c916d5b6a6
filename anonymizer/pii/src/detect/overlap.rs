//! One set of spans that do not overlap, from several that may.

use super::entity::Entity;
use super::span::{Source, Span};

/// How strongly a span's source speaks; the higher wins.
///
/// A recognizer with a validator is sure of its type. A keyword before a number says more than the number's form,
/// which is all a phone recognizer has; the model comes last.
fn rank(span: &Span) -> u8 {
    match &span.source {
        Source::Recognizer(_) if span.label.as_str() != Entity::PhoneNumber.as_str() => 3,
        Source::Context => 2,
        Source::Recognizer(_) => 1,
        Source::Model => 0,
    }
}

/// Keeps of overlapping spans the one whose source speaks most strongly, of equal sources the longest, then the first.
/// What remains of a beaten span on either side of the winner is dropped with it.
///
/// Returns the spans in the order of the text.
pub fn resolve(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.start < span.end);
    spans.sort_by_key(|span| {
        (std::cmp::Reverse(rank(span)), std::cmp::Reverse(span.end - span.start), span.start)
    });
    let mut kept = std::collections::BTreeMap::<usize, Span>::new();
    for span in spans {
        let before = kept.range(..span.end).next_back();
        if before.is_none_or(|(_, before)| before.end <= span.start) {
            kept.insert(span.start, span);
        }
    }
    kept.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(start: usize, end: usize, entity: Entity, source: Source) -> Span {
        Span { start, end, label: entity.into(), score: 1.0, source }
    }

    #[test]
    fn recognizers_beat_the_model_however_long_its_span() {
        let recognized = || Source::Recognizer("iban".into());
        let spans = vec![
            span(0, 40, Entity::StreetName, Source::Model),
            span(10, 32, Entity::BankAccount, recognized()),
            span(12, 20, Entity::PhoneNumber, Source::Recognizer("phone".into())),
            span(41, 45, Entity::City, Source::Model),
        ];
        let kept = resolve(spans);
        assert_eq!(kept.iter().map(|span| (span.start, span.end)).collect::<Vec<_>>(), [(10, 32), (41, 45)]);
    }

    #[test]
    fn a_keyword_beats_the_form_of_a_phone_number() {
        let spans = vec![
            span(5, 19, Entity::GovernmentId, Source::Context),
            span(5, 14, Entity::PhoneNumber, Source::Recognizer("phone".into())),
        ];
        assert_eq!(resolve(spans)[0].label, Entity::GovernmentId.into());
    }

    proptest! {
        #[test]
        fn the_result_is_ordered_and_disjoint(
            bounds in proptest::collection::vec((0usize..50, 0usize..9, 0u8..3), 0..20),
        ) {
            let source = |kind| match kind {
                0 => Source::Model,
                1 => Source::Context,
                _ => Source::Recognizer("r".into()),
            };
            let spans: Vec<_> = bounds
                .iter()
                .map(|&(start, length, kind)| span(start, start + length, Entity::Email, source(kind)))
                .collect();
            let covered = |spans: &[Span], at: usize| spans.iter().any(|s| s.start <= at && at < s.end);
            let kept = resolve(spans.clone());
            for pair in kept.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            for span in spans.iter().filter(|span| span.start < span.end) {
                prop_assert!((span.start..span.end).any(|at| covered(&kept, at)));
            }
        }
    }
}
