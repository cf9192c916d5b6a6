//! Vehicle identification numbers: ISO 3779, with the check digit of ISO 3779 annex / 49 CFR 565 (North America, China).

use regex::Regex;

use super::{Candidate, Recognizer, built_in, context, stands_alone};
use crate::detect::Entity;

/// 17 characters without I, O and Q.
const VIN: &str = r"[A-HJ-NPR-Z0-9]{17}";

const CONTEXT: &[&str] = &[
    "vin",
    "chassis",
    "vehicle",
    "car",
    "frame no",
    "fin",
    "fahrgestell",
    "fahrgestellnummer",
    "fahrzeug",
    "fahrzeug-identifizierungsnummer",
    "bastidor",
    "châssis",
    "telaio",
    "chassi",
    "chassisnummer",
    "nadwozia",
    "alvázszám",
    "şasi",
    "кузов",
    "車台番号",
    "车架号",
    "차대번호",
];

/// The recognizer of vehicle identification numbers.
pub struct Vehicle {
    pattern: Regex,
}

impl Vehicle {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pattern: built_in(VIN) }
    }
}

impl Default for Vehicle {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Vehicle {
    fn name(&self) -> &str {
        "vehicle"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.pattern.find_iter(text).filter(|place| stands_alone(text, &place.range())) {
            let value = place.as_str();
            let letters = value.bytes().filter(u8::is_ascii_uppercase).count();
            // The last four are a serial number.
            let serial = value[13..].bytes().all(|byte| byte.is_ascii_digit());
            if !(2..=14).contains(&letters) {
                continue;
            }
            let spoken_of = context::near(text, &place.range(), CONTEXT);
            let (score, reason) = match (is_checked(value), serial, spoken_of) {
                (true, true, _) => (1.0, "vehicle identification number: form and check digit"),
                (_, _, true) => (0.9, "form of a vehicle identification number and words around it"),
                _ => continue,
            };
            found.push(Candidate { range: place.range(), label: Entity::Vin.into(), score, reason });
        }
    }
}

/// Whether the ninth character is the check digit of the others.
fn is_checked(vin: &str) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'H' => u32::from(byte - b'A') + 1,
        b'J'..=b'N' => u32::from(byte - b'J') + 1,
        b'P' => 7,
        b'R' => 9,
        _ => u32::from(byte - b'S') + 2,
    };
    let sum: u32 = vin.bytes().zip(WEIGHTS).map(|(byte, weight)| value(byte) * weight).sum();
    let expected = match sum % 11 {
        10 => b'X',
        digit => b'0' + digit as u8,
    };
    vin.as_bytes()[8] == expected
}
