//! Recognizers: personal data that shows by its form.
//!
//! One file per recognizer, each with its pattern, validator, context words and where the form is defined. All patterns
//! run in time linear in the text (crate `regex`), so a hostile text cannot hold up a scan. Cases are in
//! `testdata/recognizers/*.tsv`.

pub mod announced;
mod broken;
pub mod card;
pub mod context;
pub mod coordinates;
pub mod custom;
pub mod denied;
pub mod device;
pub mod email;
pub mod iban;
pub mod ip;
pub mod itin;
pub mod national;
pub mod password;
pub mod phone;
pub mod secret;
pub mod ssn;
pub mod url;
pub mod vehicle;
pub mod wallet;

use std::borrow::Cow;
use std::ops::Range;

use crate::config::Config;
use crate::detect::context::is_unspaced;
use crate::detect::{Label, Source, Span};
use crate::error::Result;

/// What a recognizer found.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Where, in bytes of the text, on character boundaries.
    pub range: Range<usize>,
    /// What it is.
    pub label: Label,
    /// Confidence, 0 to 1; 1 if a checksum or an unmistakable form confirms it.
    pub score: f32,
    /// Why, in words for people.
    pub reason: &'static str,
}

/// Finds one kind of personal data by its form.
pub trait Recognizer: Send + Sync {
    /// Its name, as spans report it.
    fn name(&self) -> &str;

    /// Adds what it finds in `text` to `found`, in any order.
    fn find(&self, text: &str, found: &mut Vec<Candidate>);
}

/// A span and the reason for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognized {
    /// The span, in code points.
    pub span: Span,
    /// Why, in words for people.
    pub reason: &'static str,
}

/// The recognizers in use.
pub struct Recognizers {
    list: Vec<Box<dyn Recognizer>>,
    /// Those from here on are the configuration's.
    built_in: usize,
    broken: broken::Broken,
}

impl Recognizers {
    /// The built-in recognizers and the custom ones of `config`, without those whose type is switched off.
    ///
    /// # Errors
    /// If a custom pattern is no regular expression or too large.
    pub fn new(config: &Config) -> Result<Self> {
        let mut list: Vec<Box<dyn Recognizer>> = vec![
            Box::new(email::Email::new()),
            Box::new(url::Url::new()),
            Box::new(ip::IpAddress::new()),
            Box::new(card::Card::new()),
            Box::new(iban::IbanNumber::new()),
            Box::new(ssn::Ssn::new()),
            Box::new(itin::Itin::new()),
            Box::new(phone::Phone::new(&config.countries)?),
            Box::new(national::National::new()),
            Box::new(device::Device::new()),
            Box::new(vehicle::Vehicle::new()),
            Box::new(wallet::Wallet::new()),
            Box::new(coordinates::Coordinates::new()),
            Box::new(announced::Announced::new()),
        ];
        if config.secrets {
            list.push(Box::new(secret::Secrets::new()));
            list.push(Box::new(password::Passwords::new()));
        }
        let built_in = list.len();
        for recognizer in &config.recognizers {
            list.push(Box::new(custom::Custom::new(recognizer)?));
        }
        if !config.deny.is_empty() {
            list.push(Box::new(denied::Denied::new(&config.deny)?));
        }
        Ok(Self { list, built_in, broken: broken::Broken::new() })
    }

    /// Everything the recognizers find, in code points, in the order of the text; spans may overlap.
    pub fn scan(&self, text: &str) -> Vec<Span> {
        self.explain(text).into_iter().map(|recognized| recognized.span).collect()
    }

    /// As [`scan`](Self::scan), with reasons.
    pub fn explain(&self, text: &str) -> Vec<Recognized> {
        let mut candidates = find_all(&self.list, text);
        self.broken.find(text, &mut candidates);
        recognized(text, candidates)
    }

    /// What the recognizers and the deny list of the configuration find in a text as it is, for one that is scanned in
    /// another form.
    pub fn scan_as_written(&self, text: &str) -> Vec<Span> {
        let own = &self.list[self.built_in..];
        let found = if own.is_empty() { Vec::new() } else { find_all(own, text) };
        recognized(text, found).into_iter().map(|recognized| recognized.span).collect()
    }
}

/// A candidate and the name of its recognizer.
type Named = (Candidate, Cow<'static, str>);

fn find_all(list: &[Box<dyn Recognizer>], text: &str) -> Vec<Named> {
    let mut candidates: Vec<Named> = Vec::new();
    for recognizer in list {
        let mut found = Vec::new();
        recognizer.find(text, &mut found);
        found.retain(|candidate| candidate.range.start < candidate.range.end);
        candidates.extend(found.into_iter().map(|c| (c, Cow::Owned(recognizer.name().to_owned()))));
    }
    candidates
}

/// Candidates in code points, in the order of the text.
fn recognized(text: &str, mut candidates: Vec<Named>) -> Vec<Recognized> {
    candidates.sort_by_key(|(candidate, _)| (candidate.range.start, candidate.range.end));
    let bounds = candidates.iter().flat_map(|(candidate, _)| [candidate.range.start, candidate.range.end]);
    let places = code_points(text, bounds.collect());
    candidates
        .into_iter()
        .map(|(candidate, name)| Recognized {
            span: Span {
                start: places.at(candidate.range.start),
                end: places.at(candidate.range.end),
                label: candidate.label,
                score: candidate.score,
                source: Source::Recognizer(name),
            },
            reason: candidate.reason,
        })
        .collect()
}

/// Code points of some byte offsets.
struct Places(Vec<(usize, usize)>);

impl Places {
    fn at(&self, byte: usize) -> usize {
        self.0.binary_search_by_key(&byte, |&(byte, _)| byte).map_or(0, |index| self.0[index].1)
    }
}

/// Counts the code points before each of `bytes` in one walk over the text.
fn code_points(text: &str, mut bytes: Vec<usize>) -> Places {
    bytes.sort_unstable();
    bytes.dedup();
    let (mut at, mut count) = (0, 0);
    let places = bytes.into_iter().map(|byte| {
        count += text[at..byte].chars().count();
        at = byte;
        (byte, count)
    });
    Places(places.collect())
}

/// The character before a byte offset.
pub(crate) fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// The character at a byte offset.
pub(crate) fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// Whether neither side of a range continues a word or number.
pub(crate) fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| continues_word(c) || c == '_');
    !joins(before(text, range.start)) && !joins(after(text, range.end))
}

/// Whether a character next to a value makes both one word. In scripts without spaces it does not.
pub(crate) fn continues_word(c: char) -> bool {
    c.is_alphanumeric() && !is_unspaced(c)
}

/// Compiles a pattern of this crate.
///
/// # Panics
/// If the pattern is wrong, which every use of the recognizer would show.
#[expect(clippy::expect_used, reason = "the patterns are constants and every one is compiled in the tests")]
pub(crate) fn built_in(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).expect("a pattern of this crate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    /// Compiling the patterns takes longer than most tests.
    static DEFAULT: LazyLock<Recognizers> = LazyLock::new(|| Recognizers::new(&Config::default()).unwrap());

    /// Lines of a TSV: the text with one space-free mark `«...»` around each expected span, then the label or `-`.
    fn check(name: &str, table: &str) {
        let recognizers = &*DEFAULT;
        let mut cases = 0;
        for (number, line) in table.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (marked, label) = line.split_once('\t').unwrap_or_else(|| panic!("{name}:{}", number + 1));
            let marked = marked.replace("\\n", "\n");
            let mut expected = Vec::new();
            let mut text = String::new();
            for (index, piece) in marked.split(['«', '»']).enumerate() {
                let start = text.chars().count();
                text.push_str(piece);
                if index % 2 == 1 {
                    expected.push((start, text.chars().count(), label.to_owned()));
                }
            }
            let spans = crate::detect::overlap::resolve(recognizers.scan(&text));
            let got: Vec<_> = spans.iter().map(|s| (s.start, s.end, s.label.to_string())).collect();
            assert_eq!(got, expected, "{name}:{}: {text}", number + 1);
            assert_eq!(label == "-", expected.is_empty(), "{name}:{}", number + 1);
            cases += 1;
        }
        assert!(cases >= 6, "{name}: {cases} cases");
    }

    macro_rules! tables {
        ($($name:ident),+) => {
            $(#[test]
            fn $name() {
                let file = concat!(stringify!($name), ".tsv");
                let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/recognizers/", stringify!($name), ".tsv");
                check(file, &std::fs::read_to_string(path).unwrap());
            })+
        };
    }

    tables!(
        announced,
        card,
        coordinates,
        device,
        email,
        iban,
        ip,
        itin,
        national,
        password,
        phone,
        secret,
        ssn,
        url,
        vehicle,
        wallet
    );

    #[test]
    fn offsets_are_code_points() {
        let recognizers = &*DEFAULT;
        let spans = recognizers.scan("é🎉 a@example.com");
        assert_eq!((spans[0].start, spans[0].end), (3, 16));
    }

    #[test]
    fn hostile_texts_are_scanned() {
        let recognizers = &*DEFAULT;
        for unit in [
            "1",
            "1-",
            "a.",
            "a@",
            "::",
            "+1 ",
            "(",
            "GB82",
            "eyJ",
            "[A_1]",
            "http://",
            "\u{301}",
            "-----BEGIN ",
        ] {
            let text = unit.repeat(200_000 / unit.len());
            let length = text.chars().count();
            assert!(recognizers.scan(&text).iter().all(|s| s.start < s.end && s.end <= length), "{unit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn spans_lie_in_any_text(text in "\\PC{0,80}") {
            let recognizers = &*DEFAULT;
            let length = text.chars().count();
            for span in recognizers.scan(&text) {
                proptest::prop_assert!(span.start < span.end && span.end <= length);
            }
        }
    }
}
