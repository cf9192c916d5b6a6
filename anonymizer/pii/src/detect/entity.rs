//! The types of personal data: one row each.
//!
//! To add a type: a row here, its keywords and names of columns under its label in `anonymizer/data/lexicon`, and a
//! made-up value for `anonymize verify`, which the compiler asks for. Placeholders, configuration, tables, keywords, the
//! page and the scores take the rest from the row.

use super::postcodes::is_postcode;
use crate::lexicon::lexicon;

/// Groups of types that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Parts of a person's name.
    Name,
    /// Parts of an address.
    Place,
    /// Numbers and codes that identify a person.
    Number,
    /// Addresses on a network.
    Network,
    /// Keys and passwords.
    Secret,
    /// What is told about a person: age and date of birth.
    Trait,
}

/// When a value found once is replaced wherever else it is a whole word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// If it is long enough not to be found by chance.
    Always,
    /// If it begins with a capital, too: many names are also words.
    Capitalised,
    /// Not at all: it would be found by chance.
    Never,
}

/// What is known about a type.
pub struct EntitySpec {
    /// The label in spans and placeholders, e.g. `PHONE_NUMBER`.
    pub label: &'static str,
    /// Other labels for it, of models and of other programs.
    pub aliases: &'static [&'static str],
    /// The type in words.
    pub name: &'static str,
    /// Its group.
    pub kind: Kind,
    /// Whether a value that the model found can be of this type.
    pub(crate) plausible: fn(&Value) -> bool,
    /// Whether a cell of a column for this type can be a value.
    pub(crate) fits_column: fn(&Value) -> bool,
    /// Whether a value after a keyword for this type can be one.
    pub(crate) fits_keyword: fn(&Value) -> bool,
    /// Whether it is looked for in the rest of a conversation.
    pub(crate) repeats: Repeats,
    /// Whether it is redacted unless the configuration says otherwise.
    pub on_by_default: bool,
}

/// A value to be judged by its characters.
pub(crate) struct Value<'a> {
    chars: &'a [char],
    /// ASCII digits.
    digits: usize,
    /// Letters of any script.
    letters: usize,
    /// Words between single spaces.
    words: usize,
}

impl<'a> Value<'a> {
    pub(crate) fn new(chars: &'a [char]) -> Self {
        Self {
            chars,
            digits: chars.iter().filter(|c| c.is_ascii_digit()).count(),
            letters: chars.iter().filter(|c| c.is_alphabetic()).count(),
            words: chars.split(|c| *c == ' ').count(),
        }
    }

    /// Characters that are numbers in any script, fractions and circled digits included.
    fn numerics(&self) -> usize {
        self.chars.iter().filter(|c| c.is_numeric()).count()
    }
}

/// Words of the longest name of a person or place.
pub(super) const LONGEST_NAME: usize = 5;

macro_rules! entities {
    ($($entity:ident: $spec:expr;)+) => {
        /// The types that the model and the built-in recognizers know.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names are the types' own")]
        pub enum Entity {
            $($entity,)+
        }

        /// A row per type, in the order of [`Entity`].
        static SPECS: [EntitySpec; Entity::ALL.len()] = [$($spec,)+];

        impl Entity {
            /// All types.
            pub const ALL: [Self; [$(Self::$entity,)+].len()] = [$(Self::$entity,)+];
        }
    };
}

/// What most types have in common: a number or code.
const NUMBER: EntitySpec = EntitySpec {
    label: "",
    aliases: &[],
    name: "",
    kind: Kind::Number,
    plausible: |value| value.numerics() >= 3 && value.numerics() + value.letters >= 4,
    fits_column: |value| value.digits >= 4 && value.digits + value.letters >= 6 && value.words <= 8,
    fits_keyword: |value| value.digits >= 5 || (value.digits >= 4 && value.chars.len() >= 6),
    repeats: Repeats::Always,
    on_by_default: true,
};

/// What parts of names have in common.
const NAME: EntitySpec = EntitySpec {
    kind: Kind::Name,
    plausible: |value| value.letters > value.numerics() && value.letters > 0,
    fits_column: is_worded,
    repeats: Repeats::Capitalised,
    ..NUMBER
};

/// What parts of addresses have in common.
const PLACE: EntitySpec = EntitySpec { kind: Kind::Place, plausible: |_| true, ..NUMBER };

/// What addresses on a network have in common.
const NETWORK: EntitySpec = EntitySpec { kind: Kind::Network, plausible: |_| true, ..NUMBER };

entities! {
    GivenName: EntitySpec { label: "GIVEN_NAME", name: "given name", ..NAME };
    Surname: EntitySpec { label: "SURNAME", name: "surname", ..NAME };
    Email: EntitySpec {
        label: "EMAIL",
        aliases: &["EMAIL_ADDRESS"],
        name: "e-mail address",
        plausible: |value| {
            value.chars.contains(&'@') || value.chars.windows(4).any(|four| four == [' ', 'a', 't', ' '])
        },
        ..NETWORK
    };
    PhoneNumber: EntitySpec {
        label: "PHONE_NUMBER",
        aliases: &["PHONE"],
        name: "phone number",
        plausible: |value| value.numerics() >= 5,
        fits_column: |value| (5..=20).contains(&value.digits) && value.letters <= 4,
        fits_keyword: |value| (7..=15).contains(&value.digits) && value.letters == 0,
        ..NUMBER
    };
    Url: EntitySpec {
        label: "URL",
        name: "web address",
        plausible: |value| value.chars.contains(&'.') || value.chars.contains(&'/'),
        ..NETWORK
    };
    TaxId: EntitySpec {
        label: "TAX_ID",
        name: "tax number",
        // Letters and digits, as an Indian PAN.
        fits_keyword: |value| {
            let code = (8..=17).contains(&value.chars.len()) && !value.chars.contains(&' ');
            value.digits >= 7 || (value.digits >= 4 && code)
        },
        ..NUMBER
    };
    BankAccount: EntitySpec {
        label: "BANK_ACCOUNT",
        name: "bank account",
        fits_keyword: |value| value.digits >= 6,
        ..NUMBER
    };
    RoutingNumber: EntitySpec {
        label: "ROUTING_NUMBER",
        name: "bank routing number",
        fits_column: |value| (8..=10).contains(&value.digits) && value.letters == 0,
        // A sort code has six digits, a German bank code eight, a US routing number nine.
        fits_keyword: |value| {
            let plain = value.chars.iter().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
            matches!(value.digits, 6 | 8 | 9) && plain
        },
        ..NUMBER
    };
    GovernmentId: EntitySpec { label: "GOVERNMENT_ID", name: "identity number", ..NUMBER };
    Passport: EntitySpec { label: "PASSPORT", name: "passport number", ..NUMBER };
    DriversLicense: EntitySpec { label: "DRIVERS_LICENSE", name: "driver's license", ..NUMBER };
    BuildingNumber: EntitySpec {
        label: "BUILDING_NUMBER",
        name: "house number",
        plausible: |value| value.numerics() > 0 && value.chars.len() <= 8,
        fits_column: |value| value.digits > 0 && value.chars.len() <= 8,
        repeats: Repeats::Never,
        ..PLACE
    };
    StreetName: EntitySpec {
        label: "STREET_NAME",
        name: "street",
        plausible: |value| value.chars.len() > 1 && (value.letters > 1 || value.numerics() == 0),
        repeats: Repeats::Capitalised,
        ..PLACE
    };
    SecondaryAddress: EntitySpec {
        label: "SECONDARY_ADDRESS",
        name: "part of a building",
        plausible: is_unit,
        fits_column: |value| value.digits > 0 && value.chars.len() <= 24,
        repeats: Repeats::Never,
        ..PLACE
    };
    City: EntitySpec {
        label: "CITY",
        name: "city",
        plausible: |value| value.letters > 1 || value.numerics() == 0,
        fits_column: is_worded,
        repeats: Repeats::Capitalised,
        ..PLACE
    };
    State: EntitySpec {
        label: "STATE",
        name: "state or region",
        plausible: |value| value.letters > 1 || value.numerics() == 0,
        fits_column: is_worded,
        repeats: Repeats::Never,
        ..PLACE
    };
    ZipCode: EntitySpec {
        label: "ZIP_CODE",
        aliases: &["ZIP", "POSTAL_CODE"],
        name: "postcode",
        plausible: |value| is_postcode(value.chars),
        fits_column: |value| is_postcode(value.chars),
        ..PLACE
    };
    Ssn: EntitySpec {
        label: "SSN",
        name: "social security number",
        fits_column: |value| (8..=10).contains(&value.digits) && value.letters == 0,
        fits_keyword: |value| value.digits >= 7,
        ..NUMBER
    };
    CreditCardNumber: EntitySpec {
        label: "CREDIT_CARD_NUMBER",
        aliases: &["CREDIT_CARD"],
        name: "card number",
        fits_column: |value| (12..=19).contains(&value.digits) && value.letters == 0,
        fits_keyword: |value| (13..=19).contains(&value.digits),
        ..NUMBER
    };
    IpAddress: EntitySpec { label: "IP_ADDRESS", aliases: &["IP"], name: "IP address", ..NETWORK };
    Secret: EntitySpec { label: "SECRET", name: "key or token", kind: Kind::Secret, ..NETWORK };
    Password: EntitySpec {
        label: "PASSWORD",
        name: "password",
        kind: Kind::Secret,
        plausible: |value| value.chars.len() >= 3,
        fits_column: |value| value.chars.len() >= 3 && !is_blank(value.chars),
        ..NETWORK
    };
    BirthDate: EntitySpec {
        label: "BIRTH_DATE",
        aliases: &["DATE_OF_BIRTH", "DOB"],
        name: "date of birth",
        kind: Kind::Trait,
        plausible: |value| value.numerics() > 0 || value.letters >= 3,
        fits_column: |value| value.digits >= 2 && value.words <= 4,
        fits_keyword: |_| false,
        ..NUMBER
    };
    Age: EntitySpec {
        label: "AGE",
        name: "age",
        kind: Kind::Trait,
        plausible: |value| value.numerics() > 0 || value.letters >= 3,
        fits_column: |value| matches!(value.digits, 1..=3) && value.words <= 3,
        fits_keyword: |_| false,
        repeats: Repeats::Never,
        ..NUMBER
    };
    UserName: EntitySpec {
        label: "USER_NAME",
        aliases: &["USERNAME"],
        name: "user name",
        kind: Kind::Network,
        plausible: |value| value.chars.len() >= 2 && value.letters > 0,
        fits_column: |value| value.letters >= 2 && value.words == 1 && !is_blank(value.chars),
        fits_keyword: |_| false,
        ..NETWORK
    };
    MedicalRecord: EntitySpec {
        label: "MEDICAL_RECORD",
        aliases: &["MEDICAL_RECORD_NUMBER"],
        name: "patient or health insurance number",
        fits_keyword: |value| value.digits >= 4 && value.words <= 4,
        ..NUMBER
    };
    LicensePlate: EntitySpec {
        label: "LICENSE_PLATE",
        name: "license plate",
        plausible: |value| (3..=12).contains(&value.chars.len()),
        fits_column: |value| value.digits > 0 && (4..=12).contains(&value.chars.len()),
        // Without letters it is short.
        fits_keyword: |value| {
            let long = if value.letters > 0 { 12 } else { 7 };
            value.digits > 0 && (4..=long).contains(&value.chars.len())
        },
        ..NUMBER
    };
    Vin: EntitySpec {
        label: "VIN",
        name: "vehicle identification number",
        plausible: |value| value.chars.len() >= 11,
        fits_column: |value| value.chars.len() == 17,
        fits_keyword: |value| value.chars.len() == 17,
        ..NUMBER
    };
    Imei: EntitySpec {
        label: "IMEI",
        name: "device number of a phone",
        plausible: |value| value.numerics() >= 14,
        fits_column: |value| (14..=16).contains(&value.digits),
        fits_keyword: |value| (14..=16).contains(&value.digits) && value.letters == 0,
        ..NUMBER
    };
    Mac: EntitySpec {
        label: "MAC",
        aliases: &["MAC_ADDRESS"],
        name: "hardware address",
        fits_column: |value| (12..=23).contains(&value.chars.len()),
        fits_keyword: |_| false,
        ..NETWORK
    };
    Coordinates: EntitySpec {
        label: "COORDINATES",
        name: "geographic coordinates",
        plausible: |value| value.numerics() >= 4,
        fits_column: |value| value.digits >= 3 && value.chars.contains(&'.'),
        fits_keyword: |_| false,
        repeats: Repeats::Always,
        ..PLACE
    };
    CryptoWallet: EntitySpec {
        label: "CRYPTO_WALLET",
        name: "address of a crypto wallet",
        plausible: |value| value.chars.len() >= 20,
        fits_column: |value| value.chars.len() >= 25 && value.words == 1,
        fits_keyword: |_| false,
        ..NETWORK
    };
    Organization: EntitySpec {
        label: "ORGANIZATION",
        aliases: &["ORG"],
        name: "organization",
        plausible: |value| value.letters > 1,
        fits_column: is_worded,
        fits_keyword: |_| false,
        on_by_default: false,
        ..NAME
    };
    Date: EntitySpec {
        label: "DATE",
        aliases: &["DATE_TIME"],
        name: "date",
        kind: Kind::Trait,
        plausible: |value| value.numerics() > 0 || value.letters >= 3,
        fits_column: |_| false,
        fits_keyword: |_| false,
        repeats: Repeats::Never,
        on_by_default: false,
    };
}

impl Entity {
    /// What is known about the type.
    pub fn spec(self) -> &'static EntitySpec {
        &SPECS[self as usize]
    }

    /// The label in spans and placeholders, e.g. `PHONE_NUMBER`.
    pub fn as_str(self) -> &'static str {
        self.spec().label
    }

    /// The type of a label, also under the names that models use (`PHONE`, `ZIP`, ...).
    pub fn from_label(label: &str) -> Option<Self> {
        let is_called =
            |entity: &Self| entity.spec().label == label || entity.spec().aliases.contains(&label);
        Self::ALL.into_iter().find(is_called)
    }

    /// Whether it is redacted only if the configuration says so: companies and dates, which many texts have that speak of no
    /// person.
    pub(super) fn is_quiet(self) -> bool {
        !self.spec().on_by_default
    }

    /// Whether its values are numbers or codes that identify a person.
    pub(super) fn is_number(self) -> bool {
        self.spec().kind == Kind::Number
    }
}

/// A few words without digits that are no placeholder for a missing value.
fn is_worded(value: &Value) -> bool {
    value.letters >= 2 && value.digits == 0 && value.words <= LONGEST_NAME && !is_blank(value.chars)
}

/// What is written into a cell that holds nothing.
fn is_blank(cell: &[char]) -> bool {
    const BLANK: [&str; 12] =
        ["null", "none", "nil", "n/a", "na", "unknown", "other", "test", "true", "false", "yes", "no"];
    let cell: String = cell.iter().flat_map(|c| c.to_lowercase()).collect();
    BLANK.contains(&cell.as_str())
}

/// Whether a part of a building has a number, or a name that goes without one.
fn is_unit(value: &Value) -> bool {
    let inside: String = value.chars.iter().flat_map(|c| c.to_lowercase()).collect();
    let holds = |word: &str| inside.split(|c: char| !c.is_alphabetic()).any(|own| own == word);
    let short = inside.chars().count() <= 2;
    (value.numerics() > 0 || short || lexicon().units_without_number.iter().any(holds))
        && !lexicon().numbered_things.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole_and_labels_are_unique() {
        let mut labels = std::collections::BTreeSet::new();
        for entity in Entity::ALL {
            let spec = entity.spec();
            assert!(crate::vault::placeholder::is_label(spec.label), "{entity:?}");
            assert!(!spec.name.is_empty(), "{entity:?}");
            for label in spec.aliases.iter().chain([&spec.label]) {
                assert!(labels.insert(*label), "{label} occurs twice");
                assert_eq!(Entity::from_label(label), Some(entity));
            }
        }
        assert_eq!(Entity::from_label(""), None);
    }

    #[test]
    fn forms_are_told_apart() {
        let judge = |entity: Entity, text: &str| {
            let chars: Vec<char> = text.chars().collect();
            let value = Value::new(&chars);
            let spec = entity.spec();
            [(spec.plausible)(&value), (spec.fits_column)(&value), (spec.fits_keyword)(&value)]
        };
        assert_eq!(judge(Entity::PhoneNumber, "030 901820"), [true, true, true]);
        assert_eq!(judge(Entity::PhoneNumber, "12"), [false, false, false]);
        assert_eq!(judge(Entity::RoutingNumber, "20-35-12"), [true, false, true]);
        assert_eq!(judge(Entity::TaxId, "ABCPK1234L"), [true, true, true]);
        assert!(!judge(Entity::City, "n/a")[1]);
        assert!(!judge(Entity::SecondaryAddress, "Seat 9A")[0]);
        assert!(judge(Entity::ZipCode, "SW1A 1AA")[0]);
    }
}
