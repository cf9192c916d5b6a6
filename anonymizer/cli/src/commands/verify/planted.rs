//! Values of every type in sentences, made up.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::detect::Entity;

/// A made-up value in a text.
pub(super) struct Planted {
    pub(super) entity: Entity,
    pub(super) language: &'static str,
    pub(super) value: String,
    pub(super) text: String,
}

const GIVEN: &[&str] = &[
    "Marisol",
    "Thandiwe",
    "Oluwaseun",
    "Beatriz",
    "Jonathan",
    "Priya",
    "Caroline",
    "Mateusz",
    "Yasmin",
    "Rebecca",
];
const FAMILY: &[&str] = &[
    "Kowalski",
    "Okonkwo",
    "Castellanos",
    "Lindqvist",
    "Yamamoto",
    "Fitzgerald",
    "Haddad",
    "Brennan",
    "Rosenberg",
    "Petrov",
];
const CITIES: &[&str] = &[
    "Savannah",
    "Leeds",
    "Rotterdam",
    "Milwaukee",
    "Zaragoza",
    "Brisbane",
    "Tucson",
    "Bristol",
    "Leipzig",
    "Denver",
];
const STATES: &[&str] = &[
    "Wisconsin",
    "Texas",
    "Colorado",
    "Georgia",
    "Arizona",
    "Ohio",
    "Oregon",
    "Nevada",
    "Vermont",
    "Kansas",
];
const STREETS: &[&str] =
    &["Maple Street", "Harbour Road", "Wisteria Lane", "Juniper Drive", "Chestnut Avenue", "Orchard Way"];
const HOSTS: &[&str] = &["example.com", "example.org", "mail.example.net"];

/// The language with values of all types.
pub(super) const ENGLISH: &str = "en";

/// Names and sentences of a language.
#[derive(Deserialize)]
struct Language {
    given: [String; 2],
    surname: [String; 2],
    city: [String; 2],
    sentences: Sentences,
}

#[derive(Deserialize)]
struct Sentences {
    given: String,
    surname: String,
    city: String,
    phone: String,
    birth: String,
    password: String,
}

/// The languages beside English.
static LANGUAGES: LazyLock<BTreeMap<String, Language>> = LazyLock::new(|| {
    // A test reads it; a file that cannot be read would be a mistake of this program.
    toml::from_str(include_str!("languages.toml")).unwrap_or_default()
});

/// All languages that values can be planted in.
pub(super) fn languages() -> impl Iterator<Item = &'static str> {
    std::iter::once(ENGLISH).chain(LANGUAGES.keys().map(String::as_str))
}

/// `count` English values, the types in turn, and two of each of six types in every other language; the same for the same
/// seed.
pub(super) fn planted(count: usize, seed: u64, languages: &[String]) -> Vec<Planted> {
    let mut rng = StdRng::seed_from_u64(seed);
    let on: Vec<Entity> = Entity::ALL.into_iter().filter(|entity| entity.spec().on_by_default).collect();
    let wanted = |name: &str| languages.iter().any(|language| language == name);
    let english = if wanted(ENGLISH) { count } else { 0 };
    let mut all: Vec<Planted> = (0..english).map(|index| one(on[index % on.len()], &mut rng)).collect();
    for (name, language) in LANGUAGES.iter().filter(|(name, _)| wanted(name)) {
        let sentences = &language.sentences;
        for round in 0..2 {
            let values = [
                (Entity::GivenName, &sentences.given, language.given[round].clone()),
                (Entity::Surname, &sentences.surname, language.surname[round].clone()),
                (Entity::City, &sentences.city, language.city[round].clone()),
                (Entity::PhoneNumber, &sentences.phone, value(Entity::PhoneNumber, &mut rng)),
                (Entity::BirthDate, &sentences.birth, value(Entity::BirthDate, &mut rng)),
                (Entity::Password, &sentences.password, value(Entity::Password, &mut rng)),
            ];
            all.extend(values.into_iter().map(|(entity, sentence, value)| Planted {
                entity,
                language: name,
                text: sentence.replace("{}", &value),
                value,
            }));
        }
    }
    all
}

fn one(entity: Entity, rng: &mut StdRng) -> Planted {
    let value = value(entity, rng);
    let text = sentence(entity, rng).replace("{}", &value);
    Planted { entity, language: ENGLISH, value, text }
}

fn pick<'a>(rng: &mut StdRng, list: &[&'a str]) -> &'a str {
    list.choose(rng).copied().unwrap_or_default()
}

fn digits(rng: &mut StdRng, count: usize) -> String {
    (0..count).map(|place| char::from(b'0' + rng.random_range(u8::from(place == 0)..10))).collect()
}

fn characters(rng: &mut StdRng, count: usize, from: &[u8]) -> String {
    (0..count).map(|_| char::from(from[rng.random_range(0..from.len())])).collect()
}

fn value(entity: Entity, rng: &mut StdRng) -> String {
    let capitals = b"ABCDEFGHJKLMNPRSTUVWXYZ";
    match entity {
        Entity::GivenName => pick(rng, GIVEN).to_owned(),
        Entity::Surname => pick(rng, FAMILY).to_owned(),
        Entity::Email => {
            format!("{}.{}{}@{}", pick(rng, GIVEN), pick(rng, FAMILY), digits(rng, 2), pick(rng, HOSTS))
                .to_lowercase()
        }
        Entity::PhoneNumber => match rng.random_range(0..3) {
            0 => format!("+1 {}{} 555 01{}", rng.random_range(2..9), digits(rng, 2), digits(rng, 2)),
            1 => format!("({}{}) 555-01{}", rng.random_range(2..9), digits(rng, 2), digits(rng, 2)),
            _ => format!("+44 7700 900{}", digits(rng, 3)),
        },
        Entity::Url => {
            format!("https://{}/in/{}{}", pick(rng, HOSTS), pick(rng, FAMILY).to_lowercase(), digits(rng, 3))
        }
        Entity::TaxId => format!("{}-{}", digits(rng, 2), digits(rng, 7)),
        Entity::BankAccount => match rng.random_range(0..2) {
            0 => iban(rng),
            _ => digits(rng, 10),
        },
        Entity::RoutingNumber => digits(rng, 9),
        Entity::GovernmentId => format!("{}{}", characters(rng, 2, capitals), digits(rng, 7)),
        Entity::Passport => format!("{}{}", characters(rng, 1, capitals), digits(rng, 8)),
        Entity::DriversLicense => format!("{}{}", characters(rng, 1, capitals), digits(rng, 12)),
        Entity::BuildingNumber => digits(rng, 3),
        Entity::StreetName => pick(rng, STREETS).to_owned(),
        Entity::SecondaryAddress => format!("Apt {}{}", rng.random_range(1..40), characters(rng, 1, b"ABCD")),
        Entity::City => pick(rng, CITIES).to_owned(),
        Entity::State => pick(rng, STATES).to_owned(),
        Entity::ZipCode => digits(rng, 5),
        Entity::Ssn => {
            format!("{}-{}-{}", rng.random_range(101..650), rng.random_range(10..99), digits(rng, 4))
        }
        Entity::CreditCardNumber => card(rng),
        Entity::IpAddress => match rng.random_range(0..2) {
            0 => format!("203.0.113.{}", rng.random_range(1..255)),
            _ => format!("2001:db8::{:x}:{:x}", rng.random_range(1..0xffff), rng.random_range(1..0xffff)),
        },
        Entity::Secret => match rng.random_range(0..2) {
            0 => format!("AKIA{}", characters(rng, 16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
            _ => format!("ghp_{}", characters(rng, 36, b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH")),
        },
        Entity::Password => {
            format!("{}-{}-{}", pick(rng, GIVEN), digits(rng, 3), characters(rng, 4, b"abcdefgh!?"))
        }
        Entity::BirthDate | Entity::Date => format!(
            "{}-{:02}-{:02}",
            rng.random_range(1940..2006),
            rng.random_range(1..13),
            rng.random_range(1..29)
        ),
        Entity::Age => rng.random_range(18..95).to_string(),
        Entity::UserName => format!("{}_{}", pick(rng, FAMILY).to_lowercase(), digits(rng, 3)),
        Entity::MedicalRecord => digits(rng, 8),
        Entity::LicensePlate => format!("{} {}", characters(rng, 3, capitals), digits(rng, 4)),
        Entity::Vin => format!("WVW{}{}", characters(rng, 7, capitals), digits(rng, 7)),
        Entity::Imei => imei(rng),
        Entity::Mac => {
            let octets: Vec<String> = (0..6).map(|_| format!("{:02x}", rng.random_range(0..256))).collect();
            octets.join(":")
        }
        Entity::Coordinates => {
            format!(
                "{}.{}, -{}.{}",
                rng.random_range(31..48),
                digits(rng, 5),
                rng.random_range(70..120),
                digits(rng, 5)
            )
        }
        Entity::CryptoWallet => format!("0x{}", characters(rng, 40, b"0123456789abcdef")),
        Entity::Organization => format!("{} Holdings", pick(rng, FAMILY)),
    }
}

fn sentence(entity: Entity, rng: &mut StdRng) -> String {
    let name = format!("{} {}", pick(rng, GIVEN), pick(rng, FAMILY));
    let street = pick(rng, STREETS);
    let city = pick(rng, CITIES);
    match entity {
        Entity::GivenName => "My sister {} will pick up the documents tomorrow.".to_owned(),
        Entity::Surname => "Please address the letter to Mrs. {} at the front desk.".to_owned(),
        Entity::Email => "You can write to {} if anything is missing.".to_owned(),
        Entity::PhoneNumber => "Call me back on {} after lunch.".to_owned(),
        Entity::Url => "My profile is at {} and is up to date.".to_owned(),
        Entity::TaxId => "The company's tax ID is {} on every invoice.".to_owned(),
        Entity::BankAccount => "Transfer the deposit to account number {} by Friday.".to_owned(),
        Entity::RoutingNumber => "The routing number is {} for domestic wires.".to_owned(),
        Entity::GovernmentId => format!("{name} has the national ID number {{}} on file."),
        Entity::Passport => "His passport number {} expires next year.".to_owned(),
        Entity::DriversLicense => "The driver's license number {} was checked at the counter.".to_owned(),
        Entity::BuildingNumber => format!("We moved to {{}} {street} in {city} last month."),
        Entity::StreetName => format!("The parcel goes to 42 {{}}, {city}."),
        Entity::SecondaryAddress => format!("She lives at 18 {street}, {{}}, {city}."),
        Entity::City => "I have lived in {} since I was a child.".to_owned(),
        Entity::State => "He grew up on a farm in {} with two brothers.".to_owned(),
        Entity::ZipCode => format!("Send it to 77 {street}, {city}, {} {{}}.", pick(rng, STATES)),
        Entity::Ssn => "Her social security number is {} as far as I know.".to_owned(),
        Entity::CreditCardNumber => "Charge it to my card {} please.".to_owned(),
        Entity::IpAddress => "The login came from {} late at night.".to_owned(),
        Entity::Secret => "Use the key {} to reach the bucket.".to_owned(),
        Entity::Password => "The password for the router is {} until Monday.".to_owned(),
        Entity::BirthDate => format!("{name} was born on {{}} in {city}."),
        Entity::Age => format!("{name} is {{}} years old and lives alone."),
        Entity::UserName => "I sign in with the username: {} on that site.".to_owned(),
        Entity::MedicalRecord => "Her medical record number is {} at the clinic.".to_owned(),
        Entity::LicensePlate => "The other car had the license plate {} on it.".to_owned(),
        Entity::Vin => "My insurer needs the VIN {} of the car.".to_owned(),
        Entity::Imei => "The stolen phone has the IMEI {} on its box.".to_owned(),
        Entity::Mac => "The laptop with the MAC address {} keeps failing.".to_owned(),
        Entity::Coordinates => "The cabin is at the coordinates {} by the lake.".to_owned(),
        Entity::CryptoWallet => "Send it to my wallet {} when you can.".to_owned(),
        Entity::Organization => "I work for {} since May.".to_owned(),
        Entity::Date => "The meeting was on {} after lunch.".to_owned(),
    }
}

/// A card number with its check digit.
fn card(rng: &mut StdRng) -> String {
    let front = format!("4{}", digits(rng, 14));
    let check = (0..10).find(|check| {
        let all: Vec<u8> = format!("{front}{check}").bytes().map(|byte| byte - b'0').collect();
        crate::recognizers::card::luhn(&all)
    });
    let all = format!("{front}{}", check.unwrap_or_default());
    format!("{} {} {} {}", &all[..4], &all[4..8], &all[8..12], &all[12..])
}

/// A device number with its check digit.
fn imei(rng: &mut StdRng) -> String {
    let front = format!("35{}", digits(rng, 12));
    let fits = |check: &u8| {
        let all: Vec<u8> = format!("{front}{check}").bytes().map(|byte| byte - b'0').collect();
        crate::recognizers::card::luhn(&all)
    };
    format!("{front}{}", (0..10).find(fits).unwrap_or_default())
}

/// A German IBAN with its check digits.
fn iban(rng: &mut StdRng) -> String {
    let account = digits(rng, 18);
    // DE00 moved to the end, letters as numbers: D = 13, E = 14.
    let moved = format!("{account}131400");
    let remainder = moved.bytes().fold(0u32, |rest, byte| (10 * rest + u32::from(byte - b'0')) % 97);
    format!("DE{:02}{account}", 98 - remainder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::recognizers::Recognizers;

    #[test]
    fn every_language_is_planted() {
        let all: Vec<String> = languages().map(str::to_owned).collect();
        assert_eq!(all.len(), 16);
        let planted = planted(3, 1, &all);
        assert_eq!(planted.len(), 3 + 15 * 12);
        assert!(
            planted
                .iter()
                .all(|planted| planted.text.contains(&planted.value) && !planted.text.contains("{}"))
        );
    }

    #[test]
    fn every_type_is_planted_and_checked_types_are_recognized() {
        let recognizers = Recognizers::new(&Config::default()).unwrap();
        for planted in planted(210, 7, &[ENGLISH.to_owned()]) {
            assert!(planted.text.contains(&planted.value));
            let checked = [
                Entity::Email,
                Entity::Url,
                Entity::CreditCardNumber,
                Entity::IpAddress,
                Entity::Secret,
                Entity::Ssn,
                Entity::Password,
                Entity::BirthDate,
                Entity::Age,
                Entity::UserName,
                Entity::LicensePlate,
                Entity::Vin,
                Entity::Imei,
                Entity::Mac,
                Entity::Coordinates,
                Entity::CryptoWallet,
            ];
            if checked.contains(&planted.entity) {
                let labels: Vec<String> =
                    recognizers.scan(&planted.text).iter().map(|span| span.label.to_string()).collect();
                assert!(
                    labels.iter().any(|label| label == planted.entity.as_str()),
                    "{} {labels:?}",
                    planted.text
                );
            }
        }
    }
}
