//! Whether a text in Latin script is English, for the choice of the detector.

use std::sync::LazyLock;

use whatlang::{Detector, Lang};

/// Bytes of a text that are looked at.
const MAX_BYTES: usize = 4000;
/// Words that do not begin with a capital from which the others, among them all names, are left out.
const PLAIN_WORDS: usize = 5;

/// Share of words among what stands between spaces from which a text is prose, not code or a table, in percent.
const MOSTLY_WORDS: usize = 65;

/// Languages in Latin script that are told apart: those of the second detector, and their neighbours.
static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    use Lang::{
        Cat, Ces, Dan, Deu, Eng, Est, Fin, Fra, Hrv, Hun, Ind, Ita, Lav, Lit, Nld, Nob, Pol, Por, Ron, Slk,
        Slv, Spa, Swe, Tur, Vie,
    };
    Detector::with_allowlist(vec![
        Cat, Ces, Dan, Deu, Eng, Est, Fin, Fra, Hrv, Hun, Ind, Ita, Lav, Lit, Nld, Nob, Pol, Por, Ron, Slk,
        Slv, Spa, Swe, Tur, Vie,
    ])
});

/// What the language of a text seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Other,
    /// Not English by a few words.
    Perhaps,
    /// Too short, or of too few words: code, tables, lists of names.
    Unsure,
}

/// The language of a text in Latin script.
pub(super) fn language(text: &str) -> Language {
    let (mut all, mut plain, mut count, mut tokens) = (String::new(), String::new(), 0, 0);
    let mut in_words = 0;
    for token in text.split_whitespace() {
        tokens += 1;
        let word = token.trim_matches(|c: char| !c.is_alphabetic());
        let is_word = word.chars().all(|c| c.is_alphabetic() || matches!(c, '\'' | '-' | '’'));
        if word.is_empty() || !is_word {
            continue;
        }
        in_words += 1;
        let lower = word.to_lowercase();
        if word.starts_with(char::is_lowercase) {
            plain.push_str(&lower);
            plain.push(' ');
            count += 1;
        }
        all.push_str(&lower);
        all.push(' ');
        if all.len() > MAX_BYTES {
            break;
        }
    }
    let is_prose = count >= PLAIN_WORDS;
    match DETECTOR.detect(if is_prose { &plain } else { &all }) {
        Some(found) if found.lang() == Lang::Eng => {
            if found.is_reliable() {
                Language::English
            } else {
                Language::Unsure
            }
        }
        Some(found) if found.is_reliable() => Language::Other,
        Some(_) if is_prose && in_words * 100 >= tokens * MOSTLY_WORDS => Language::Perhaps,
        _ => Language::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart_and_doubt_is_said() {
        let english =
            "Please let me know whether you can come to the meeting on Thursday with your colleagues.";
        assert_eq!(language(english), Language::English);
        for other in [
            "Sehr geehrte Damen und Herren, hiermit kündige ich den Vertrag zum nächstmöglichen Zeitpunkt.",
            "Bonjour, je vous écris parce que je n'ai pas encore reçu la facture du mois de mars.",
            "Merhaba, kira sözleşmesini bugün imzalamak için size uğrayacağım, lütfen bekleyin.",
        ] {
            assert_eq!(language(other), Language::Other, "{other}");
        }
        for unsure in ["", "x = 1", "Ann Lee"] {
            assert_eq!(language(unsure), Language::Unsure, "{unsure}");
        }
    }
}
