//! The rules of detection: what is said around a word, and the forms that names, addresses and numbers have.
//!
//! The model gives each word a probability per type. The rules then correct it, one after another in the order of
//! [`STAGES`], which is all the precedence that there is: a later rule sees what the earlier ones left, and may overrule
//! it. Each has a name, by which `anonymize explain` says what decided, and `anonymize eval --ablate` what it is worth.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{Found, merge};
use super::entity::Entity;
use super::span::Span;
use super::words::Word;
use super::{address, context, fields, mentions, names, postal, regions, tables};

/// Name of a rule, e.g. `name.after-greeting`.
pub type RuleId = &'static str;

/// A text on its way through the rules.
pub(super) struct Document<'t> {
    /// The text in code points.
    pub(super) text: &'t [char],
    /// What recognizers found in it and the words around do not contradict.
    pub(super) fixed: &'t [Span],
    /// Its words, those in recognized spans left out. Their number and places do not change.
    pub(super) words: Vec<Word>,
    /// Spans in the making; empty until the words have been put together.
    pub(super) found: Vec<Found>,
    /// Per word, the rule that decided last.
    word_rules: Vec<Option<RuleId>>,
    /// Per span, likewise.
    found_rules: BTreeMap<(usize, usize, Entity), RuleId>,
}

/// One rule.
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    apply: fn(&mut Document<'_>),
}

/// Rules that are applied to the same thing.
pub struct Stage {
    /// What they correct.
    pub name: &'static str,
    /// In the order in which they are applied.
    pub rules: &'static [Rule],
}

/// A rule that decided about a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Because {
    /// First code point of the span.
    pub start: usize,
    /// The code point after the last.
    pub end: usize,
    /// The rule.
    pub rule: RuleId,
    /// What the model alone thought: its highest probability of being personal for a word of the span.
    pub before: f32,
}

macro_rules! words {
    ($id:literal, $rule:path) => {
        Rule { id: $id, apply: |document| $rule(document.text, &mut document.words) }
    };
    ($id:literal, $rule:path, fixed) => {
        Rule { id: $id, apply: |document| $rule(document.text, &mut document.words, document.fixed) }
    };
}

macro_rules! spans {
    ($id:literal, $rule:path) => {
        Rule { id: $id, apply: |document| $rule(document.text, &mut document.found) }
    };
    ($id:literal, $rule:path, fixed) => {
        Rule { id: $id, apply: |document| $rule(document.text, &mut document.found, document.fixed) }
    };
    ($id:literal, $rule:path, words) => {
        Rule {
            id: $id,
            apply: |document| $rule(document.text, &document.words, &mut document.found, document.fixed),
        }
    };
}

/// All rules, in their order.
pub static STAGES: &[Stage] = &[
    Stage {
        name: "words: names",
        rules: &[
            words!("name.after-cue", names::cued),
            words!("name.in-todo", names::marked),
            words!("name.of-thing", names::common),
            words!("name.lower-case-after-name", names::uncapitalised),
            words!("name.after-title", names::titles),
            words!("name.beside-name", names::neighbours),
            words!("name.place-after-given-name", names::behind_given_names),
            words!("name.pair", names::full_names),
            words!("name.surname-first", names::surname_first),
            words!("name.surname-in-capitals", names::shouted),
            words!("name.particle-alone", names::particles),
            words!("name.doubted", mentions::doubted),
            words!("name.after-greeting", mentions::greeted),
            words!("name.signed", mentions::signed),
            words!("name.before-address", mentions::addressed),
            words!("name.as-in-full", mentions::as_in_full),
            words!("name.repeated", names::repeated, fixed),
            words!("name.party-of-case", mentions::opposed),
            words!("name.passenger", names::manifests),
            words!("name.speaker", names::speakers),
        ],
    },
    Stage {
        name: "words: addresses",
        rules: &[
            words!("address.street", address::streets),
            words!("address.home-town", address::homes),
            words!("address.town-below-street", address::cities_below_streets),
            words!("address.form", postal::forms),
            words!("address.code-and-town", postal::codes_and_towns),
            words!("address.state", address::states),
            words!("address.region", regions::refine),
            words!("address.flight", address::flights),
            words!("address.house-number", address::house_numbers),
        ],
    },
    Stage {
        name: "words: fields",
        rules: &[words!("field.name", fields::names), words!("field.value", fields::values)],
    },
    Stage {
        name: "spans: numbers",
        rules: &[
            spans!("number.of-thing", context::things),
            spans!("number.after-keyword", context::keywords, fixed),
            spans!("number.whole", context::snap, fixed),
        ],
    },
    Stage {
        name: "spans: addresses",
        rules: &[
            spans!("address.street-whole", address::extend_streets),
            spans!("address.street-prefix", address::prefixed_streets),
            spans!("address.number-after-street", address::numbers_behind_streets, words),
            spans!("address.unit", address::units, fixed),
            spans!("address.postcode-after-town", address::postcodes),
            spans!("address.number-alone", address::lone_numbers),
            spans!("address.street-alone", address::lone_streets),
            spans!("address.postcode-alone", address::lone_codes),
        ],
    },
    Stage { name: "spans: tables", rules: &[spans!("table.column", tables::refine, words)] },
];

/// All rules, in their order.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    STAGES.iter().flat_map(|stage| stage.rules)
}

impl<'t> Document<'t> {
    /// A text with its words, which have the labels that the model gives them.
    pub(super) fn new(text: &'t [char], fixed: &'t [Span], words: Vec<Word>) -> Self {
        let word_rules = vec![None; words.len()];
        Self { text, fixed, words, found: Vec::new(), word_rules, found_rules: BTreeMap::new() }
    }

    /// Applies all rules but the disabled ones.
    pub(super) fn apply(&mut self, disabled: &BTreeSet<String>) {
        let is_on = |rule: &&Rule| !disabled.contains(rule.id);
        let (of_words, of_spans) =
            STAGES.split_at(STAGES.partition_point(|stage| stage.name.starts_with("words")));
        for rule in of_words.iter().flat_map(|stage| stage.rules).filter(is_on) {
            let before: Vec<(Option<Entity>, f32)> =
                self.words.iter().map(|word| (word.entity, word.score)).collect();
            (rule.apply)(self);
            for ((word, before), decided) in self.words.iter().zip(before).zip(&mut self.word_rules) {
                if (word.entity, word.score) != before {
                    *decided = Some(rule.id);
                }
            }
        }
        self.found = merge(self.text, &self.words);
        for found in &self.found {
            let words = self.words.iter().zip(&self.word_rules);
            let mut inside = words.filter(|(word, _)| found.overlaps(word.start, word.end));
            if let Some(rule) = inside.find_map(|(_, rule)| *rule) {
                self.found_rules.insert((found.start, found.end, found.entity), rule);
            }
        }
        for rule in of_spans.iter().flat_map(|stage| stage.rules).filter(is_on) {
            let key = |found: &Found| (found.start, found.end, found.entity);
            let before: BTreeSet<_> = self.found.iter().map(key).collect();
            (rule.apply)(self);
            for key in self.found.iter().map(key).filter(|key| !before.contains(key)) {
                self.found_rules.insert(key, rule.id);
            }
        }
        self.found.sort_by_key(|found| (found.start, found.end));
    }

    /// The rule that decided about a span, if it was not the model alone.
    pub(super) fn because(&self, found: &Found) -> Option<Because> {
        let rule = *self.found_rules.get(&(found.start, found.end, found.entity))?;
        let inside = self.words.iter().filter(|word| found.overlaps(word.start, word.end));
        let before = inside.map(Word::personal).fold(0.0, f32::max);
        Some(Because { start: found.start, end: found.end, rule, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let ids: BTreeSet<RuleId> = rules().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), rules().count());
        assert!(ids.iter().all(|id| id.split_once('.').is_some()));
        // Words first: what follows works on the spans that they were put together to.
        assert!(STAGES.is_sorted_by_key(|stage| !stage.name.starts_with("words")));
    }

    #[test]
    fn a_disabled_rule_does_nothing_and_the_others_say_what_they_did() {
        let text: Vec<char> = "Hale v. Osei".chars().collect();
        let words = || {
            let mut words: Vec<Word> = Vec::new();
            for (start, end) in [(0, 4), (5, 6), (6, 7), (8, 12)] {
                words.push(Word::for_test(start, end));
            }
            words[0].set(Entity::GivenName, 0.9);
            words[3].set(Entity::GivenName, 0.9);
            words
        };
        let run = |disabled: &BTreeSet<String>| {
            let mut document = Document::new(&text, &[], words());
            document.apply(disabled);
            let first = document.found[0].clone();
            (first.entity, document.because(&first).map(|because| because.rule))
        };
        assert_eq!(run(&BTreeSet::new()), (Entity::Surname, Some("name.party-of-case")));
        let without = BTreeSet::from(["name.party-of-case".to_owned()]);
        assert_eq!(run(&without), (Entity::GivenName, None));
    }
}
