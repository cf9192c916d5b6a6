//! Spans: where something personal stands in a text, and what it is.

use std::borrow::Cow;
use std::fmt;

use super::entity::Entity;

/// What a span is: a built-in type, or the name that a custom recognizer gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Cow<'static, str>);

impl Label {
    /// A label of that name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// The name, e.g. `PHONE_NUMBER`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Entity> for Label {
    fn from(entity: Entity) -> Self {
        Self(Cow::Borrowed(entity.as_str()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What found a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The token classifier.
    Model,
    /// The words around it: a keyword before, or the rest of an address.
    Context,
    /// A recognizer, by name.
    Recognizer(Cow<'static, str>),
}

impl Source {
    /// `model`, `context`, or the recognizer's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Model => "model",
            Self::Context => "context",
            Self::Recognizer(name) => name,
        }
    }
}

/// Something personal in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// First code point.
    pub start: usize,
    /// After the last code point; greater than `start`.
    pub end: usize,
    /// What it is.
    pub label: Label,
    /// Confidence, 0 to 1. A validated recognizer's is 1.
    pub score: f32,
    /// What found it.
    pub source: Source,
}

impl Span {
    /// Whether the two share a code point.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}
