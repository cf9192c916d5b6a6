//! Recognizers that people write in the configuration.

use iban::Iban;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::{Candidate, Recognizer, card, context};
use crate::detect::Label;
use crate::error::{Error, Result};

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// A checksum that a match has to pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Validator {
    /// None.
    #[default]
    None,
    /// The digits pass the Luhn check.
    Luhn,
    /// Letters and digits are an IBAN.
    Iban,
    /// Letters and digits have remainder 1 by ISO/IEC 7064 mod 97-10.
    Mod97,
}

/// A recognizer in the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomRecognizer {
    /// Its name, as spans report it.
    pub name: String,
    /// The label of what it finds: capital letters, digits and underscores.
    pub label: String,
    /// Regular expression; if it has a group, the first group is the value.
    pub pattern: String,
    /// Checksum.
    #[serde(default)]
    pub validator: Validator,
    /// Words of which one must stand close to a match; none means that none need be there.
    #[serde(default)]
    pub context: Vec<String>,
    /// Confidence, 0 to 1.
    #[serde(default = "default_score")]
    pub score: f32,
}

fn default_score() -> f32 {
    0.9
}

/// A compiled custom recognizer.
pub struct Custom {
    name: String,
    label: Label,
    pattern: Regex,
    validator: Validator,
    context: Vec<String>,
    score: f32,
}

impl Custom {
    /// Compiles a recognizer.
    ///
    /// # Errors
    /// If its pattern is no regular expression or too large.
    pub fn new(written: &CustomRecognizer) -> Result<Self> {
        let pattern = RegexBuilder::new(&written.pattern).size_limit(PATTERN_BYTES).build();
        let pattern = pattern.map_err(|error| Error::Config {
            field: format!("recognizer {}: pattern", written.name),
            expected: format!("a regular expression of at most {PATTERN_BYTES} bytes"),
            got: error.to_string(),
        })?;
        Ok(Self {
            name: written.name.clone(),
            label: Label::new(written.label.clone()),
            pattern,
            validator: written.validator,
            context: written.context.iter().map(|word| word.to_lowercase()).collect(),
            score: written.score,
        })
    }

    fn accepts(&self, value: &str) -> bool {
        let compact: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        match self.validator {
            Validator::None => true,
            Validator::Luhn => {
                let digits: Vec<u8> =
                    value.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect();
                digits.len() > 1 && card::luhn(&digits)
            }
            Validator::Iban => compact.to_ascii_uppercase().parse::<Iban>().is_ok(),
            Validator::Mod97 => remainder_97(&compact) == Some(1),
        }
    }
}

impl Recognizer for Custom {
    fn name(&self) -> &str {
        &self.name
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let words: Vec<&str> = self.context.iter().map(String::as_str).collect();
        for groups in self.pattern.captures_iter(text) {
            let Some(place) = groups.get(1).or_else(|| groups.get(0)) else { continue };
            let spoken_of = words.is_empty() || context::near(text, &place.range(), &words);
            if spoken_of && self.accepts(place.as_str()) {
                found.push(Candidate {
                    range: place.range(),
                    label: self.label.clone(),
                    score: self.score,
                    reason: "pattern of the configuration",
                });
            }
        }
    }
}

/// The number that letters (A = 10) and digits write, modulo 97; `None` if there are none.
fn remainder_97(compact: &str) -> Option<u32> {
    let mut digits = compact.chars().map(|c| c.to_digit(36));
    digits
        .try_fold(None, |sum: Option<u32>, digit| {
            let digit = digit?;
            let shifted = sum.unwrap_or(0) * if digit < 10 { 10 } else { 100 };
            Some(Some((shifted + digit) % 97))
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(recognizer: &CustomRecognizer, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        Custom::new(recognizer).unwrap().find(text, &mut found);
        found.into_iter().map(|candidate| text[candidate.range].to_owned()).collect()
    }

    fn written(pattern: &str) -> CustomRecognizer {
        CustomRecognizer {
            name: "staff".to_owned(),
            label: "STAFF_ID".to_owned(),
            pattern: pattern.to_owned(),
            validator: Validator::None,
            context: Vec::new(),
            score: 0.9,
        }
    }

    #[test]
    fn patterns_groups_context_and_checksums() {
        assert_eq!(found(&written(r"E-\d{4}"), "E-1234, E-12"), ["E-1234"]);
        assert_eq!(found(&written(r"id=(\d+)"), "id=77"), ["77"]);
        let context = CustomRecognizer { context: vec!["Staff".to_owned()], ..written(r"\d{4}") };
        assert_eq!(found(&context, "staff 1234"), ["1234"]);
        assert!(found(&context, "year 1234").is_empty());
        let luhn = CustomRecognizer { validator: Validator::Luhn, ..written(r"\d{4}") };
        assert_eq!(found(&luhn, "1234 1230"), ["1230"]);
        let mod97 = CustomRecognizer { validator: Validator::Mod97, ..written(r"\w+") };
        assert_eq!(
            found(&mod97, "98 99 3214282912345698765432161182"),
            ["98", "3214282912345698765432161182"]
        );
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert!(Custom::new(&written("(")).is_err());
        assert!(Custom::new(&written(r"\w{1000}{1000}")).is_err());
    }
}
