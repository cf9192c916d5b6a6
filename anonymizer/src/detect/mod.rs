//! Detection by the token classifier: text to spans.
//!
//! The [`Detector`] tokenizes, lays texts out in windows and passes, runs the encoder over any backend of its linear
//! layers (in the clear or encrypted), and decodes the answer to spans ([`decode`]). Recognizers run before it; their
//! spans are given to it, so that the model's do not contradict them, and [`overlap::resolve`] joins both.

mod address;
mod brands;
mod canary;
mod columns;
mod common_words;
mod context;
mod corroborate;
pub mod decode;
pub mod error;
mod fields;
mod keywords;
mod mentions;
mod names;
pub mod overlap;
mod postal;
mod postcodes;
mod regions;
pub mod span;
mod tables;
mod windows;
pub mod words;

pub use error::DetectError;
pub use span::{Entity, Label, Source, Span};

use self::canary::{CANARIES, Canary};
use self::windows::{Window, centrality, pack, plan};
use self::words::{Tagset, Token};
use models::bert::Bert;
use models::linear::{LinearBackend, run_pass};
use models::split::client_part::ClientPart;
use rand::RngExt;
use std::collections::BTreeSet;

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
            alone: false,
        }
    }
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Per text, spans in its order that do not overlap; recognizers' spans included.
    pub spans: Vec<Vec<Span>>,
    /// Tokens of the texts; those in two windows count once.
    pub tokens: usize,
    /// Tokens that were sent: windows, special tokens and canaries.
    pub sent: usize,
    /// What the canaries say about the server.
    pub verdict: Verdict,
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

/// The token classifier with its tokenizer. Its linear layers are elsewhere.
pub struct Detector {
    encoder: Bert,
    tokenizer: tokenizers::Tokenizer,
    tagset: Tagset,
    cls: u32,
    sep: u32,
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
        Self::from_model(part.encoder()?, part.tokenizer.inner().clone(), options)
    }

    /// The detector of an encoder and its tokenizer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_model(
        encoder: Bert,
        mut tokenizer: tokenizers::Tokenizer,
        options: DetectOptions,
    ) -> Result<Self, DetectError> {
        let unsuitable = |field, expected: &str, got: String| DetectError::Unsuitable {
            field,
            expected: expected.to_owned(),
            got,
        };
        if !encoder.config().classifies() {
            return Err(unsuitable("classifier", "a token classifier", "an encoder".to_owned()));
        }
        let tagset = Tagset::new(&encoder.config().labels)
            .map_err(|label| unsuitable("labels", "O, or B- or I- with a known type", label))?;
        // "[SEP]" in a text is text.
        tokenizer.set_encode_special_tokens(true);
        let special = |text: &str| {
            tokenizer
                .token_to_id(text)
                .ok_or_else(|| unsuitable("tokenizer", text, "no such token".to_owned()))
        };
        let (cls, sep) = (special("[CLS]")?, special("[SEP]")?);
        let mut canaries = Vec::new();
        if options.canary {
            for canary in CANARIES {
                canaries.push(Prepared { canary, tokens: tokenize(&tokenizer, canary.text)? });
            }
        }
        let longest_canary =
            canaries.iter().map(|canary| canary.tokens.ids.len() + SPECIAL).max().unwrap_or(0);
        let detector = Self { encoder, tokenizer, tagset, cls, sep, canaries, longest_canary, options };
        detector.check_options()?;
        Ok(detector)
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
        let positions = self.encoder.config().max_positions;
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
        assert_eq!(texts.len(), recognized.len(), "one list of recognized spans per text");
        let texts =
            texts.iter().map(|text| tokenize(&self.tokenizer, text)).collect::<Result<Vec<_>, _>>()?;
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
        }
        let spans = texts
            .iter()
            .zip(scan.probabilities)
            .zip(recognized)
            .map(|((text, probabilities), recognized)| {
                let probabilities = probabilities.into_iter().map(|(_, values)| values);
                self.spans(text, probabilities, recognized)
            })
            .collect();
        Ok(Detection { spans, tokens: lengths.iter().sum(), sent: scan.sent, verdict: scan.verdict })
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
                    if !canary.holds(&self.decoded(tokens, rows, &[])) {
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

    fn decoded(
        &self,
        text: &Tokenized,
        probabilities: impl Iterator<Item = Vec<f32>>,
        recognized: &[Span],
    ) -> Vec<Span> {
        let tokens: Vec<Token> = text
            .places
            .iter()
            .zip(probabilities)
            .map(|(&(start, end, word), probabilities)| Token { start, end, word, probabilities })
            .collect();
        decode::decode(&text.chars, &self.tagset, &tokens, recognized, self.options.threshold)
    }

    fn spans(
        &self,
        text: &Tokenized,
        probabilities: impl Iterator<Item = Vec<f32>>,
        recognized: &[Span],
    ) -> Vec<Span> {
        let mut spans = overlap::resolve(self.decoded(text, probabilities, recognized));
        if !self.options.alone {
            corroborate::retain(&mut spans, self.options.threshold);
        }
        spans.retain(|span| !self.options.disabled.contains(&span.label));
        spans
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
    let places = encoding
        .get_offsets()
        .iter()
        .zip(encoding.get_word_ids())
        .enumerate()
        .map(|(index, (&(start, end), word))| (start, end, word.unwrap_or(u32::MAX - index as u32)))
        .collect();
    Ok(Tokenized { chars: text.chars().collect(), ids: encoding.get_ids().to_vec(), places })
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
