//! Canaries: sentences whose labels are known.
//!
//! A server that answers wrongly could make the model see nothing personal anywhere. It cannot read the tokens, so it
//! cannot tell a canary from the text: each pass carries one at a random place, and a pass whose canary comes back
//! with wrong labels is not to be trusted.

use super::entity::Entity;
use super::span::{Label, Span};

/// A sentence and the words in it that the model is sure of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canary {
    pub(super) text: &'static str,
    expected: &'static [(&'static str, Entity)],
}

/// The model's confidence in every label below is above 0.9 (test `detect_rampart`).
pub(super) const CANARIES: [Canary; 6] = [
    Canary {
        text: "My name is Alex Rivera.",
        expected: &[("Alex", Entity::GivenName), ("Rivera", Entity::Surname)],
    },
    Canary {
        text: "Please call Maria Lopez in Denver.",
        expected: &[("Maria", Entity::GivenName), ("Lopez", Entity::Surname), ("Denver", Entity::City)],
    },
    Canary {
        text: "She lives at 42 Oak Street in Boston.",
        expected: &[
            ("42", Entity::BuildingNumber),
            ("Oak Street", Entity::StreetName),
            ("Boston", Entity::City),
        ],
    },
    Canary {
        text: "I am David Miller from Chicago.",
        expected: &[("David", Entity::GivenName), ("Miller", Entity::Surname), ("Chicago", Entity::City)],
    },
    Canary {
        text: "Send it to Laura Schmidt, Texas 78701.",
        expected: &[("Laura", Entity::GivenName), ("Schmidt", Entity::Surname), ("Texas", Entity::State)],
    },
    Canary {
        text: "Ask Thomas Baker for the key.",
        expected: &[("Thomas", Entity::GivenName), ("Baker", Entity::Surname)],
    },
];

impl Canary {
    /// Whether spans found in the sentence are the expected ones: each word under its label, and nothing else but
    /// numbers.
    pub(super) fn holds(&self, spans: &[Span]) -> bool {
        let place = |word: &str| {
            let byte = self.text.find(word)?;
            let start = self.text[..byte].chars().count();
            Some((start, start + word.chars().count()))
        };
        let is_expected = |span: &Span| {
            self.expected.iter().any(|(word, entity)| {
                place(word) == Some((span.start, span.end)) && span.label == Label::from(*entity)
            })
        };
        let found = spans.iter().filter(|span| is_expected(span)).count();
        let stray = spans.iter().filter(|span| !is_expected(span));
        found == self.expected.len()
            && stray.into_iter().all(|span| span.label == Label::from(Entity::ZipCode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::span::Source;

    #[test]
    fn wrong_and_missing_labels_are_noticed() {
        let canary = &CANARIES[0];
        let span = |start, end, entity: Entity| Span {
            start,
            end,
            label: entity.into(),
            score: 1.0,
            source: Source::Model,
        };
        let good = [span(11, 15, Entity::GivenName), span(16, 22, Entity::Surname)];
        assert!(canary.holds(&good));
        assert!(!canary.holds(&[]));
        assert!(!canary.holds(&good[..1]));
        assert!(!canary.holds(&[span(11, 15, Entity::City), good[1].clone()]));
        assert!(!canary.holds(&[good[0].clone(), good[1].clone(), span(0, 2, Entity::City)]));
    }
}
