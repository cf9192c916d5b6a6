//! Geographic coordinates: decimal degrees (ISO 6709, `geo:` of RFC 5870) and degrees, minutes, seconds.

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context, continues_word};
use crate::detect::Entity;

/// Latitude and longitude.
const PAIR: &str = r"[-+\u{2212}]?\d{1,3}\.\d{3,15}°?(?: ?[NSns])?(?:,\s{0,2}|\s{1,2}|;\s?|%2C|/)[-+\u{2212}]?\d{1,3}\.\d{3,15}°?(?: ?[EWOewo]\b)?";
/// `52°31'12.2"N`, perhaps twice.
const DEGREES: &str = r#"[NSEWO]? ?\d{1,3} ?[°º] ?\d{1,2}(?:\.\d+)? ?['′’](?: ?\d{1,2}(?:[.,]\d+)? ?(?:["″”]|''|′′))? ?[NSEWO]?(?:[,;]?\s{1,2}[NSEWO]? ?\d{1,3} ?[°º] ?\d{1,2}(?:\.\d+)? ?['′’](?: ?\d{1,2}(?:[.,]\d+)? ?(?:["″”]|''|′′))? ?[NSEWO]?)?"#;
/// One of the two after its name.
const NAMED: &str = r#"(?i)\b(?:lat|latitude|lng|lon|long|longitude|breitengrad|längengrad|latitud|longitud|latitudine|longitudine|szerokość|długość|широта|долгота|纬度|经度|緯度|経度|위도|경도)\b["']?\s{0,2}[:=：]\s{0,2}["']?([-+]?\d{1,3}\.\d{2,15})"#;

const CONTEXT: &[&str] = &[
    "gps",
    "lat",
    "latitude",
    "lng",
    "lon",
    "longitude",
    "coord",
    "coords",
    "coordinates",
    "location",
    "located",
    "position",
    "geo",
    "map",
    "maps",
    "pin",
    "dropped pin",
    "standort",
    "koordinaten",
    "position gps",
    "coordonnées",
    "coordenadas",
    "ubicación",
    "coordinate",
    "coördinaten",
    "współrzędne",
    "координаты",
    "坐标",
    "位置",
    "座標",
    "좌표",
    "الموقع",
    "koordinat",
    "meet",
    "home",
    "house",
    "lives at",
    "parked",
    "tracker",
    "last seen",
];

/// The recognizer of coordinates.
pub struct Coordinates {
    pair: Regex,
    degrees: Regex,
    named: Regex,
}

impl Coordinates {
    /// The recognizer.
    pub fn new() -> Self {
        Self { pair: built_in(PAIR), degrees: built_in(DEGREES), named: built_in(NAMED) }
    }
}

impl Default for Coordinates {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Coordinates {
    fn name(&self) -> &str {
        "coordinates"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let mut push = |range, score, reason| {
            found.push(Candidate { range, label: Entity::Coordinates.into(), score, reason });
        };
        for place in self.pair.find_iter(text) {
            let joined = before(text, place.start())
                .is_some_and(|c| continues_word(c) || matches!(c, '.' | '_'))
                || after(text, place.end()).is_some_and(|c| continues_word(c) || c == '_');
            if joined || in_list(text, &place.range()) {
                continue;
            }
            let Some(decimals) = decimals_of_place(place.as_str()) else { continue };
            let hemispheres = place.as_str().contains(['°', 'N', 'S', 'E', 'W']);
            let spoken_of =
                context::near(text, &place.range(), CONTEXT) || text[..place.start()].ends_with(['@', ':']);
            match (spoken_of || hemispheres, decimals) {
                (true, _) => push(place.range(), 0.95, "pair of coordinates and words around it"),
                (false, 5..) => push(place.range(), 0.8, "form of a pair of coordinates"),
                _ => {}
            }
        }
        for place in self.degrees.find_iter(text) {
            // An angle has no hemisphere.
            if place.as_str().contains(['N', 'S', 'E', 'W', 'O']) {
                let trimmed = place.as_str().trim();
                let start = place.start() + (place.as_str().len() - place.as_str().trim_start().len());
                push(start..start + trimmed.len(), 0.95, "degrees, minutes and hemisphere");
            }
        }
        for place in self.named.captures_iter(text).filter_map(|groups| groups.get(1)) {
            push(place.range(), 0.9, "number after latitude or longitude");
        }
    }
}

/// The smaller number of decimals of a pair that can be a place; `None` if it cannot.
fn decimals_of_place(pair: &str) -> Option<usize> {
    let plain = pair.replace('\u{2212}', "-").replace("%2C", ",");
    let mut numbers = plain
        .split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .filter(|part| part.contains('.'));
    let (latitude, longitude) = (numbers.next()?, numbers.next()?);
    let value = |text: &str| text.trim_start_matches('+').parse::<f64>().ok();
    let (north, east) = (value(latitude)?, value(longitude)?);
    let decimals = |text: &str| text.split('.').nth(1).map_or(0, str::len);
    let small = north.abs() < 1.0 && east.abs() < 1.0;
    (north.abs() <= 90.0 && east.abs() <= 180.0 && !small)
        .then(|| decimals(latitude).min(decimals(longitude)))
}

/// Whether a pair is part of a longer list of numbers.
fn in_list(text: &str, range: &std::ops::Range<usize>) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    let before = text[..range.start].trim_end_matches([' ', '\n', '\t', '-']);
    let after = text[range.end..].trim_start_matches([' ', '\n', '\t']);
    let came_from = before.strip_suffix(',').is_some_and(|rest| rest.ends_with(digit));
    let goes_on = after
        .strip_prefix(',')
        .is_some_and(|rest| rest.trim_start_matches([' ', '\n', '-']).starts_with(digit));
    came_from || goes_on
}
