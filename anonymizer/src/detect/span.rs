//! Spans: where something personal stands in a text, and what it is.

use std::borrow::Cow;
use std::fmt;

/// The types that the model and the built-in recognizers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the types' own")]
pub enum Entity {
    GivenName,
    Surname,
    Email,
    PhoneNumber,
    Url,
    TaxId,
    BankAccount,
    RoutingNumber,
    GovernmentId,
    Passport,
    DriversLicense,
    BuildingNumber,
    StreetName,
    SecondaryAddress,
    City,
    State,
    ZipCode,
    Ssn,
    CreditCardNumber,
    IpAddress,
    Secret,
}

impl Entity {
    /// All types.
    pub const ALL: [Self; 21] = [
        Self::GivenName,
        Self::Surname,
        Self::Email,
        Self::PhoneNumber,
        Self::Url,
        Self::TaxId,
        Self::BankAccount,
        Self::RoutingNumber,
        Self::GovernmentId,
        Self::Passport,
        Self::DriversLicense,
        Self::BuildingNumber,
        Self::StreetName,
        Self::SecondaryAddress,
        Self::City,
        Self::State,
        Self::ZipCode,
        Self::Ssn,
        Self::CreditCardNumber,
        Self::IpAddress,
        Self::Secret,
    ];

    /// The label in spans and placeholders, e.g. `PHONE_NUMBER`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GivenName => "GIVEN_NAME",
            Self::Surname => "SURNAME",
            Self::Email => "EMAIL",
            Self::PhoneNumber => "PHONE_NUMBER",
            Self::Url => "URL",
            Self::TaxId => "TAX_ID",
            Self::BankAccount => "BANK_ACCOUNT",
            Self::RoutingNumber => "ROUTING_NUMBER",
            Self::GovernmentId => "GOVERNMENT_ID",
            Self::Passport => "PASSPORT",
            Self::DriversLicense => "DRIVERS_LICENSE",
            Self::BuildingNumber => "BUILDING_NUMBER",
            Self::StreetName => "STREET_NAME",
            Self::SecondaryAddress => "SECONDARY_ADDRESS",
            Self::City => "CITY",
            Self::State => "STATE",
            Self::ZipCode => "ZIP_CODE",
            Self::Ssn => "SSN",
            Self::CreditCardNumber => "CREDIT_CARD_NUMBER",
            Self::IpAddress => "IP_ADDRESS",
            Self::Secret => "SECRET",
        }
    }

    /// The type of a label, also under the names that models use (`PHONE`, `ZIP`, ...).
    pub fn from_label(label: &str) -> Option<Self> {
        let label = match label {
            "PHONE" => "PHONE_NUMBER",
            "CREDIT_CARD" => "CREDIT_CARD_NUMBER",
            "IP" => "IP_ADDRESS",
            "ZIP" | "POSTAL_CODE" => "ZIP_CODE",
            "EMAIL_ADDRESS" => "EMAIL",
            other => other,
        };
        Self::ALL.into_iter().find(|entity| entity.as_str() == label)
    }
}

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
    /// The words around it: a keyword in front, or the rest of an address.
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
    /// Behind the last code point; greater than `start`.
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
