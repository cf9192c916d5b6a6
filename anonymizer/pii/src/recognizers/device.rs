//! Numbers of devices: hardware addresses (IEEE 802, EUI-48 and EUI-64) and IMEI (3GPP TS 23.003, with the Luhn check).

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, card, context, continues_word};
use crate::detect::Entity;

/// Six or eight octets with colons or hyphens, or three groups of four digits.
const MAC: &str = r"(?i)(?:[0-9a-f]{2}:){5}(?:[0-9a-f]{2}:[0-9a-f]{2}:)?[0-9a-f]{2}|(?:[0-9a-f]{2}-){5}(?:[0-9a-f]{2}-[0-9a-f]{2}-)?[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}";
/// 15 digits, in groups perhaps, or 16 with the software version.
const IMEI: &str = r"\d{2}[ -]?\d{4}[ -]?\d{2}[ -]?\d{6}[ -]?\d{1,2}";

const IMEI_CONTEXT: &[&str] = &["imei", "imeisv", "meid", "handset", "*#06#"];

/// The recognizer of hardware addresses and IMEI.
pub struct Device {
    mac: Regex,
    imei: Regex,
}

impl Device {
    /// The recognizer.
    pub fn new() -> Self {
        Self { mac: built_in(MAC), imei: built_in(IMEI) }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Device {
    fn name(&self) -> &str {
        "device"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.mac.find_iter(text) {
            // A fingerprint has more octets of the same form.
            let joins = |c: Option<char>| c.is_some_and(|c| continues_word(c) || matches!(c, ':' | '_'));
            let tail = &text[place.end()..];
            let goes_on =
                tail.starts_with(['-', '.']) && after(tail, 1).is_some_and(|c| c.is_ascii_hexdigit());
            let came_from = text[..place.start()].ends_with(['-', '.']);
            let digits: Vec<u8> = place.as_str().bytes().filter(u8::is_ascii_hexdigit).collect();
            // All zeros and all ones are no device's.
            let uniform = digits.iter().all(|digit| digit == &digits[0]);
            if !joins(before(text, place.start()))
                && !joins(after(text, place.end()))
                && !goes_on
                && !came_from
                && !uniform
            {
                found.push(Candidate {
                    range: place.range(),
                    label: Entity::Mac.into(),
                    score: 1.0,
                    reason: "form of a hardware address",
                });
            }
        }
        for place in self.imei.find_iter(text) {
            let range = place.range();
            let digits: Vec<u8> =
                place.as_str().bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect();
            let joins = |c: Option<char>| c.is_some_and(|c| continues_word(c) || c == '_');
            if joins(before(text, range.start)) || joins(after(text, range.end)) {
                continue;
            }
            let spoken_of = context::near(text, &range, IMEI_CONTEXT);
            let valid = digits.len() == 16 || card::luhn(&digits);
            if spoken_of {
                let (score, reason) = if valid {
                    (1.0, "IMEI: check digit and words around it")
                } else {
                    (0.8, "form of an IMEI and words around it")
                };
                found.push(Candidate { range, label: Entity::Imei.into(), score, reason });
            }
        }
    }
}
