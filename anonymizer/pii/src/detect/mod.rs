//! Detection by the token classifier: text to spans.
//!
//! The [`Detector`] tokenizes, lays texts out in windows and passes, runs the encoder over any backend of its linear
//! layers (in the clear or encrypted), and decodes the answer to spans ([`decode`]). Recognizers run before it; their
//! spans are given to it, so that the model's do not contradict them, and [`overlap::resolve`] joins both.

mod address;
mod canary;
pub(crate) mod context;
pub(crate) mod corroborate;
pub mod decode;
pub mod entity;
pub mod error;
mod fields;
mod language;
mod mentions;
mod names;
pub mod overlap;
mod postal;
mod postcodes;
mod regions;
pub mod route;
pub mod rules;
pub mod span;
mod sparse;
mod tables;
mod windows;
pub mod words;

pub use entity::{Entity, EntitySpec, Kind};
pub use error::DetectError;
pub use span::{Label, Source, Span};

use self::canary::{CANARIES, Canary};
use self::decode::Decoded;
use self::route::Route;
pub use self::rules::Because;
use self::windows::{Window, centrality, pack, plan};
use self::words::{Tagset, Token, Word};
use rand::RngExt;
use sotto_models::families::Encoder;
use sotto_models::linear::{LinearBackend, run_pass};
use sotto_models::split::client_part::ClientPart;
use std::collections::BTreeSet;
use std::ops::Range;

/// Tokens of `[CLS]` and `[SEP]`.
const SPECIAL: usize = 2;

/// How texts are scanned.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectOptions {
    /// Probability of being personal from which a word counts, 0 to 1; names and places count from less.
    pub threshold: f32,
    /// Tokens of a pass, special tokens and canary included.
    pub pass_tokens: usize,
    /// Tokens that neighbouring windows of a long text share.
    pub overlap: usize,
    /// Whether every pass carries a canary.
    pub canary: bool,
    /// Labels that are not reported.
    pub disabled: BTreeSet<Label>,
    /// Rules ([`rules::STAGES`]) that are not applied, by name.
    pub disabled_rules: BTreeSet<String>,
    /// Whether bare numbers and rare words count also in a text where nothing else is surely personal: for texts that are
    /// parts of something, as the messages and fields of a request are.
    pub alone: bool,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self {
            threshold: 0.4,
            pass_tokens: 256,
            overlap: 32,
            canary: true,
            disabled: BTreeSet::new(),
            disabled_rules: BTreeSet::new(),
            alone: false,
        }
    }
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Per text, spans in its order that do not overlap; recognizers' spans included.
    pub spans: Vec<Vec<Span>>,
    /// Per text, the rules that decided about spans.
    pub because: Vec<Vec<Because>>,
    /// Tokens of the texts; those in two windows count once.
    pub tokens: usize,
    /// Tokens that were sent: windows, special tokens and canaries.
    pub sent: usize,
    /// What the canaries say about the server.
    pub verdict: Verdict,
}

impl Detection {
    /// What is known without a model: these spans.
    pub fn of_spans(spans: Vec<Vec<Span>>, tokens: usize) -> Self {
        let because = vec![Vec::new(); spans.len()];
        Self { spans, because, tokens, sent: 0, verdict: Verdict::Sound }
    }
}

/// Whether a scan can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The canaries of all passes had their labels, or there were none.
    Sound,
    /// A canary came back with wrong labels, or an answer was not a number: nothing may be forwarded on the strength of
    /// this scan.
    CanaryFailed,
}

/// What a model thinks of the words of texts, before any rule.
#[derive(Clone, Debug)]
pub struct Reading {
    words: Vec<Vec<Word>>,
    tokens: usize,
    sent: usize,
    verdict: Verdict,
}

impl Reading {
    /// This reading together with one by the second detector of the parts that `routes` give it.
    ///
    /// # Panics
    /// If the readings and routes are not of the same number of texts.
    #[must_use]
    pub fn merge(self, second: Self, texts: &[&str], routes: &[Option<Route>]) -> Self {
        let lengths = [self.words.len(), second.words.len(), routes.len()];
        assert_eq!(lengths, [texts.len(); 3], "readings and routes of the same texts");
        let words = self.words.into_iter().zip(second.words).zip(texts.iter().zip(routes));
        let words = words.map(|((first, second), (text, route))| match route {
            Some(route) => route.merge(&text.chars().collect::<Vec<_>>(), first, second),
            None => first,
        });
        let verdict = if self.verdict == Verdict::Sound { second.verdict } else { self.verdict };
        Self {
            words: words.collect(),
            tokens: self.tokens + second.tokens,
            sent: self.sent + second.sent,
            verdict,
        }
    }
}

/// The token classifier with its tokenizer. Its linear layers are elsewhere.
pub struct Detector {
    encoder: Encoder,
    tokenizer: tokenizers::Tokenizer,
    tagset: Tagset,
    cls: u32,
    sep: u32,
    unknown: Option<u32>,
    canaries: Vec<Prepared>,
    longest_canary: usize,
    options: DetectOptions,
}

/// A canary as tokens.
struct Prepared {
    canary: Canary,
    tokens: Tokenized,
}

/// A text as tokens; offsets in code points.
struct Tokenized {
    chars: Vec<char>,
    ids: Vec<u32>,
    places: Vec<(usize, usize, u32)>,
}

impl Tokenized {
    /// The tokens of a plan.
    fn read(&self, plan: Option<&sparse::Plan>) -> Self {
        let Some(plan) = plan else {
            return Self { chars: Vec::new(), ids: self.ids.clone(), places: Vec::new() };
        };
        Self {
            chars: Vec::new(),
            ids: plan.read.iter().map(|&token| self.ids[token]).collect(),
            places: Vec::new(),
        }
    }
}

/// A sequence of a pass.
enum Sequence {
    Window(usize),
    Canary(usize),
}

impl Detector {
    /// The detector of a client part that holds a token classifier.
    ///
    /// # Errors
    /// If the model is no token classifier with known labels, or the options are out of range.
    pub fn new(part: &ClientPart, options: DetectOptions) -> Result<Self, DetectError> {
        Self::from_model(part.encoder()?, part.tokenizer.text_tokenizer(), options)
    }

    /// The detector of an encoder and its tokenizer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_model(
        encoder: Encoder,
        mut tokenizer: tokenizers::Tokenizer,
        options: DetectOptions,
    ) -> Result<Self, DetectError> {
        let unsuitable = |field, expected: &str, got: String| DetectError::Unsuitable {
            field,
            expected: expected.to_owned(),
            got,
        };
        if !encoder.classifies() {
            return Err(unsuitable("classifier", "a token classifier", "an encoder".to_owned()));
        }
        let tagset = Tagset::new(encoder.labels())
            .map_err(|label| unsuitable("labels", "O, or B- or I- with a known type", label))?;
        // "[SEP]" in a text is text.
        tokenizer.set_encode_special_tokens(true);
        let special = |text: &str| {
            tokenizer
                .token_to_id(text)
                .ok_or_else(|| unsuitable("tokenizer", text, "no such token".to_owned()))
        };
        let (cls, sep) = (special("[CLS]")?, special("[SEP]")?);
        let unknown = tokenizer.token_to_id("[UNK]");
        let mut canaries = Vec::new();
        if options.canary {
            for canary in CANARIES {
                canaries.push(Prepared { canary, tokens: tokenize(&tokenizer, canary.text)? });
            }
        }
        let longest_canary =
            canaries.iter().map(|canary| canary.tokens.ids.len() + SPECIAL).max().unwrap_or(0);
        let detector =
            Self { encoder, tokenizer, tagset, cls, sep, unknown, canaries, longest_canary, options };
        detector.check_options()?;
        Ok(detector)
    }

    /// Letters of a text that the model's vocabulary lacks, mostly those of scripts it was not trained for: nothing can be found
    /// there.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn unknown_letters(&self, text: &str) -> Result<usize, DetectError> {
        let Tokenized { chars, ids, places } = tokenize(&self.tokenizer, text)?;
        let unknown = ids.iter().zip(&places).filter(|(id, _)| Some(**id) == self.unknown);
        Ok(unknown
            .map(|(_, &(start, end, _))| chars[start..end].iter().filter(|c| c.is_alphabetic()).count())
            .sum())
    }

    /// The options.
    pub fn options(&self) -> &DetectOptions {
        &self.options
    }

    fn check_options(&self) -> Result<(), DetectError> {
        let out_of_range =
            |field, expected: String, got: String| DetectError::Options { field, expected, got };
        let Some(size) = self.window().filter(|size| *size > self.options.overlap) else {
            return Err(out_of_range(
                "pass_tokens",
                format!("more than {}", self.longest_canary + SPECIAL + self.options.overlap),
                self.options.pass_tokens.to_string(),
            ));
        };
        let positions = self.encoder.max_positions();
        if size + SPECIAL > positions {
            return Err(out_of_range(
                "pass_tokens",
                format!("at most {}", positions + self.longest_canary),
                self.options.pass_tokens.to_string(),
            ));
        }
        if !(0.0..=1.0).contains(&self.options.threshold) {
            return Err(out_of_range("threshold", "0 to 1".to_owned(), self.options.threshold.to_string()));
        }
        Ok(())
    }

    /// Tokens of the largest window, without special tokens.
    fn window(&self) -> Option<usize> {
        self.options.pass_tokens.checked_sub(self.longest_canary + SPECIAL)
    }

    /// Scans texts. Short texts share passes.
    ///
    /// `recognized`: per text, the recognizers' spans, in code points of the text; they are part of the answer (see
    /// [`decode::decode`] for the exceptions), and the model's spans yield to them. Every pass is finished whatever its canary says.
    ///
    /// # Errors
    /// If the tokenizer refuses a text or the backend fails; nothing is known about the texts then.
    ///
    /// # Panics
    /// If there are not as many lists of recognized spans as texts.
    pub fn detect(
        &self,
        texts: &[&str],
        recognized: &[Vec<Span>],
        backend: &mut dyn LinearBackend,
    ) -> Result<Detection, DetectError> {
        self.detect_in_turns(texts, recognized, backend, &mut |_, _| {})
    }

    /// As [`detect`](Self::detect). Between passes, `between` may use the detector and the backend for other texts.
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    ///
    /// # Panics
    /// As [`detect`](Self::detect).
    pub fn detect_in_turns(
        &self,
        texts: &[&str],
        recognized: &[Vec<Span>],
        backend: &mut dyn LinearBackend,
        between: &mut dyn FnMut(&Self, &mut dyn LinearBackend),
    ) -> Result<Detection, DetectError> {
        let reading = self.read(texts, None, backend, between)?;
        Ok(self.judge(texts, recognized, reading))
    }

    /// Reads texts, or with `parts` the given ranges (code points) of each. What comes of it, [`judge`](Self::judge) says.
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    ///
    /// # Panics
    /// If there are not as many lists of parts as texts.
    pub fn read(
        &self,
        texts: &[&str],
        parts: Option<&[Vec<Range<usize>>]>,
        backend: &mut dyn LinearBackend,
        between: &mut dyn FnMut(&Self, &mut dyn LinearBackend),
    ) -> Result<Reading, DetectError> {
        assert!(parts.is_none_or(|parts| parts.len() == texts.len()), "one list of parts per text");
        let part = |(index, text): (usize, &&str)| match parts {
            Some(parts) => tokenize_parts(&self.tokenizer, text, &parts[index]),
            None => tokenize(&self.tokenizer, text),
        };
        let full = texts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?;
        let plans: Vec<Option<sparse::Plan>> =
            full.iter().map(|text| sparse::plan(&text.chars, &text.places)).collect();
        let texts: Vec<Tokenized> =
            full.iter().zip(&plans).map(|(text, plan)| text.read(plan.as_ref())).collect();
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let size = self.window().unwrap_or(1);
        let windows = plan(&lengths, size, self.options.overlap);
        let sizes: Vec<usize> = windows.iter().map(|window| window.tokens.len() + SPECIAL).collect();
        let mut scan = Scan {
            probabilities: lengths.iter().map(|&length| vec![(0, Vec::new()); length]).collect(),
            sent: 0,
            verdict: Verdict::Sound,
        };
        let mut passes = pack(&sizes, size + SPECIAL).into_iter().peekable();
        while let Some(pass) = passes.next() {
            if passes.peek().is_some() {
                backend.more_to_come();
            }
            self.run_pass(&texts, &windows, &pass, backend, &mut scan)?;
            if passes.peek().is_some() {
                between(self, backend);
            }
        }
        let words = full.iter().zip(plans).zip(scan.probabilities).map(|((text, plan), probabilities)| {
            let read: Vec<Vec<f32>> = probabilities.into_iter().map(|(_, values)| values).collect();
            let probabilities = match plan {
                Some(plan) => plan.spread(text.ids.len(), &read),
                None => read,
            };
            self.words(text, probabilities.into_iter())
        });
        let words = words.collect();
        let tokens = full.iter().map(|text| text.ids.len()).sum();
        Ok(Reading { words, tokens, sent: scan.sent, verdict: scan.verdict })
    }

    /// What a reading of texts comes to, with the recognizers' spans.
    ///
    /// # Panics
    /// If there are not as many lists of recognized spans as texts.
    pub fn judge(&self, texts: &[&str], recognized: &[Vec<Span>], reading: Reading) -> Detection {
        assert_eq!(texts.len(), recognized.len(), "one list of recognized spans per text");
        let Reading { words, tokens, sent, verdict } = reading;
        let judged = texts.iter().zip(words).zip(recognized);
        let (spans, because) = judged
            .map(|((text, words), recognized)| {
                self.spans(&text.chars().collect::<Vec<_>>(), words, recognized)
            })
            .unzip();
        Detection { spans, because, tokens, sent, verdict }
    }

    fn run_pass(
        &self,
        texts: &[Tokenized],
        windows: &[Window],
        pass: &[usize],
        backend: &mut dyn LinearBackend,
        scan: &mut Scan,
    ) -> Result<(), DetectError> {
        let mut order: Vec<Sequence> = pass.iter().map(|&window| Sequence::Window(window)).collect();
        if !self.canaries.is_empty() {
            let mut rng = rand::rng();
            let canary = rng.random_range(0..self.canaries.len());
            order.insert(rng.random_range(0..=order.len()), Sequence::Canary(canary));
        }
        let sequences: Vec<Vec<u32>> = order
            .iter()
            .map(|sequence| match sequence {
                Sequence::Window(window) => {
                    let Window { text, tokens } = &windows[*window];
                    self.framed(&texts[*text].ids[tokens.clone()])
                }
                Sequence::Canary(canary) => self.framed(&self.canaries[*canary].tokens.ids),
            })
            .collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let count = sequences.iter().map(|ids| ids.len()).sum();
        let logits = run_pass(backend, count, |backend| self.encoder.classify(&sequences, backend))?;
        scan.sent += count;
        let logits = logits.to_vec2::<f32>()?;
        if logits.iter().flatten().any(|value| !value.is_finite()) {
            scan.verdict = Verdict::CanaryFailed;
        }
        let mut rows = logits.into_iter().map(softmax);
        for (sequence, ids) in order.iter().zip(&sequences) {
            let mut rows: Vec<Vec<f32>> = rows.by_ref().take(ids.len()).collect();
            rows.pop();
            let rows = rows.into_iter().skip(1);
            match sequence {
                Sequence::Window(window) => scan.take(&windows[*window], rows),
                Sequence::Canary(canary) => {
                    let Prepared { canary, tokens } = &self.canaries[*canary];
                    let words = self.words(tokens, rows);
                    if !canary.holds(&self.decoded(&tokens.chars, words, &[]).spans) {
                        scan.verdict = Verdict::CanaryFailed;
                    }
                }
            }
        }
        Ok(())
    }

    fn framed(&self, ids: &[u32]) -> Vec<u32> {
        let mut framed = Vec::with_capacity(ids.len() + SPECIAL);
        framed.push(self.cls);
        framed.extend_from_slice(ids);
        framed.push(self.sep);
        framed
    }

    fn words(&self, text: &Tokenized, probabilities: impl Iterator<Item = Vec<f32>>) -> Vec<Word> {
        let tokens: Vec<Token> = text
            .places
            .iter()
            .zip(probabilities)
            .filter(|((start, end, _), _)| start < end)
            .map(|(&(start, end, word), probabilities)| Token { start, end, word, probabilities })
            .collect();
        words::words(&text.chars, &self.tagset, &tokens)
    }

    fn decoded(&self, text: &[char], words: Vec<Word>, recognized: &[Span]) -> Decoded {
        let DetectOptions { threshold, disabled_rules, .. } = &self.options;
        decode::decode_words(text, words, recognized, *threshold, disabled_rules)
    }

    fn spans(&self, text: &[char], words: Vec<Word>, recognized: &[Span]) -> (Vec<Span>, Vec<Because>) {
        let Decoded { spans, because } = self.decoded(text, words, recognized);
        let mut spans = overlap::resolve(spans);
        if !self.options.alone {
            corroborate::retain(text, &mut spans, self.options.threshold);
        }
        spans.retain(|span| !self.options.disabled.contains(&span.label));
        (spans, because)
    }
}

/// What has been gathered of a scan.
struct Scan {
    /// Per text and token: how central the token was in the window its probabilities are from, and these.
    probabilities: Vec<Vec<(usize, Vec<f32>)>>,
    sent: usize,
    verdict: Verdict,
}

impl Scan {
    /// Keeps a window's answer for the tokens that are more central in it than in others.
    fn take(&mut self, window: &Window, rows: impl Iterator<Item = Vec<f32>>) {
        let kept = &mut self.probabilities[window.text];
        let length = kept.len();
        for (token, row) in window.tokens.clone().zip(rows) {
            let central = centrality(&window.tokens, length, token);
            let (best, values) = &mut kept[token];
            if values.is_empty() || central > *best {
                (*best, *values) = (central, row);
            }
        }
    }
}

fn tokenize(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Tokenized, DetectError> {
    let encoding = tokenizer
        .encode_char_offsets(text, false)
        .map_err(|source| DetectError::Tokenizer(source.to_string()))?;
    let chars: Vec<char> = text.chars().collect();
    let places = places(&chars, encoding.get_offsets(), encoding.get_word_ids());
    Ok(Tokenized { chars, ids: encoding.get_ids().to_vec(), places })
}

/// As [`tokenize`], of parts of a text; offsets in code points of the text.
fn tokenize_parts(
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
    parts: &[Range<usize>],
) -> Result<Tokenized, DetectError> {
    let chars: Vec<char> = text.chars().collect();
    let whole = 0..chars.len();
    if parts == [whole] {
        return tokenize(tokenizer, text);
    }
    let (mut ids, mut places): (Vec<u32>, Vec<(usize, usize, u32)>) = (Vec::new(), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        let piece: String = chars[part.clone()].iter().collect();
        let read = tokenize(tokenizer, &piece)?;
        ids.extend(read.ids);
        // Words of different parts are different words.
        let shift = (index as u32) << 20;
        places.extend(
            read.places
                .into_iter()
                .map(|(start, end, word)| (start + part.start, end + part.start, word.wrapping_add(shift))),
        );
    }
    Ok(Tokenized { chars, ids, places })
}

/// Where tokens are: start, end, and the tokenizer's word. Tokens that hold the space before them lose it, and those that
/// stand for nothing else have no characters. In a script without spaces each token is a word.
fn places(text: &[char], offsets: &[(usize, usize)], words: &[Option<u32>]) -> Vec<(usize, usize, u32)> {
    let place = |(index, (&(mut start, mut end), word)): (usize, (&(usize, usize), &Option<u32>))| {
        if let Some(&(next, _)) = offsets.get(index + 1) {
            end = end.min(next).max(start);
        }
        while start < end && text[start].is_whitespace() {
            start += 1;
        }
        while start < end && text[end - 1].is_whitespace() {
            end -= 1;
        }
        let alone = u32::MAX - index as u32;
        let apart = text[start..end].iter().copied().any(words::is_unspaced);
        (start, end, if apart { alone } else { word.unwrap_or(alone) })
    };
    offsets.iter().zip(words).enumerate().map(place).collect()
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in &mut logits {
        *value = (*value - highest).exp();
        sum += *value;
    }
    logits.iter_mut().for_each(|value| *value /= sum);
    logits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lose_the_space_that_they_hold() {
        let text: Vec<char> = "Ann  Lee\n李明".chars().collect();
        let offsets = [(0, 3), (4, 8), (8, 9), (9, 10), (9, 10), (10, 11)];
        let words = [Some(0), Some(1), Some(2), Some(3), Some(3), Some(3)];
        let places = places(&text, &offsets, &words);
        let ranges: Vec<_> = places.iter().map(|&(start, end, _)| (start, end)).collect();
        assert_eq!(ranges, [(0, 3), (5, 8), (9, 9), (9, 9), (9, 10), (10, 11)]);
        assert_eq!(places[1].2, 1);
        assert_ne!(places[4].2, places[5].2, "no spaces, so no words of several characters");
    }
}
