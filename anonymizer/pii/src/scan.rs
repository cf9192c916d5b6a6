//! From texts to spans: recognizers, lists and the model together.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{Config, Policy};
use crate::detect::corroborate::retain_links;
use crate::detect::overlap::resolve;
use crate::detect::rules::Because;
use crate::detect::{Detection, Entity, Span, Verdict};
use crate::error::{Error, Result};
use crate::recognizers::{Recognized, Recognizers};
use crate::view::View;

/// Finds what the recognizers leave: the model's part of detection.
pub trait TextDetector: Send {
    /// Scans texts. `recognized`: per text, the recognizers' spans; they are part of the answer.
    ///
    /// # Errors
    /// If nothing is known about the texts.
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection>;

    /// As [`detect`](Self::detect), in steps; between them, `between` may have other texts scanned. A detector that has
    /// no steps need not do that.
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    fn detect_in_turns(
        &mut self,
        texts: &[&str],
        recognized: &[Vec<Span>],
        between: &mut dyn FnMut(&mut DetectNow<'_>),
    ) -> Result<Detection> {
        let _ = between;
        self.detect(texts, recognized)
    }

    /// Letters of a text in which the detector can find nothing, because it does not know their script.
    ///
    /// # Errors
    /// If the text cannot be read.
    fn unknown_letters(&mut self, text: &str) -> Result<usize> {
        let _ = text;
        Ok(0)
    }

    /// Whether what the detector needs answers, for callers that wait for a scan. It may take its time: it is called on a
    /// thread of its own. `None` if there is nothing to ask.
    fn health(&self) -> Option<Health> {
        None
    }
}

/// Asks whether a detector can go on.
pub type Health = Arc<dyn Fn() -> bool + Send + Sync>;

/// Scans texts while a longer scan is under way.
pub type DetectNow<'a> = dyn FnMut(&[&str], &[Vec<Span>]) -> Result<Detection> + 'a;

/// As [`DetectNow`], with rules.
pub type ScanNow<'a> = dyn FnMut(&[&str]) -> Result<Scan> + 'a;

/// No model: the recognizers alone. For tests and where a model is not wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecognizersOnly;

impl TextDetector for RecognizersOnly {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection> {
        let spans = recognized.iter().map(|spans| resolve(spans.clone())).collect();
        let tokens = texts.iter().map(|text| text.split_whitespace().count()).sum();
        Ok(Detection::of_spans(spans, tokens))
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// Per text, in its order, not overlapping.
    pub spans: Vec<Vec<Span>>,
    /// Per text, the rules that decided about spans.
    pub because: Vec<Vec<Because>>,
    /// Tokens of the texts.
    pub tokens: usize,
    /// Tokens that were sent to the server, canaries and overlaps included.
    pub sent: usize,
}

/// The rules of a scan: recognizers, lists, switches.
pub struct Rules {
    recognizers: Recognizers,
    policy: Policy,
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// If a custom recognizer is wrong.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self { recognizers: Recognizers::new(config)?, policy: config.policy() })
    }

    /// The recognizers.
    pub fn recognizers(&self) -> &Recognizers {
        &self.recognizers
    }

    /// What the recognizers find in a text and the lists let stand; spans may overlap.
    pub fn recognize(&self, text: &str) -> Vec<Span> {
        let view = View::of(text);
        let mut spans = view.map_spans(self.recognize_view(&view));
        self.add_as_written(&view, text, &mut spans);
        spans
    }

    /// What the recognizers find in a text, with their reasons, whatever the lists say.
    pub fn explain(&self, text: &str) -> Vec<Recognized> {
        let view = View::of(text);
        let map = |found: Recognized| {
            let Range { start, end } = view.original(found.span.start..found.span.end);
            Recognized { span: Span { start, end, ..found.span }, ..found }
        };
        self.recognizers.explain(view.text()).into_iter().map(map).collect()
    }

    /// As [`recognize`](Self::recognize), in code points of the view.
    fn recognize_view(&self, view: &View) -> Vec<Span> {
        let mut spans = self.recognizers.scan(view.text());
        self.apply(view.text(), &mut spans);
        spans
    }

    /// Adds what the configuration's recognizers and deny list find in the original of a view.
    fn add_as_written(&self, view: &View, text: &str, spans: &mut Vec<Span>) {
        if view.is_plain() {
            return;
        }
        let found = self.recognizers.scan_as_written(text);
        if !found.is_empty() {
            spans.extend(found);
            *spans = resolve(std::mem::take(spans));
        }
        self.apply(text, spans);
    }

    /// Drops spans that do not count.
    pub fn apply(&self, text: &str, spans: &mut Vec<Span>) {
        self.policy.apply(&text.chars().collect::<Vec<_>>(), spans);
    }
}

/// Scans texts.
pub struct Scanner {
    rules: Arc<Rules>,
    model: Box<dyn TextDetector>,
}

impl Scanner {
    /// A scanner of these rules and this model.
    pub fn new(rules: Arc<Rules>, model: Box<dyn TextDetector>) -> Self {
        Self { rules, model }
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether the model can go on; see [`TextDetector::health`].
    pub fn health(&self) -> Option<Health> {
        self.model.health()
    }

    /// Letters of texts in which the model can find nothing; see [`TextDetector::unknown_letters`].
    ///
    /// # Errors
    /// If a text cannot be read.
    pub fn unknown_letters(&mut self, texts: &[&str]) -> Result<usize> {
        texts.iter().map(|text| self.model.unknown_letters(text)).sum()
    }

    /// Scans texts; short ones share passes of the model.
    ///
    /// # Errors
    /// If detection fails or cannot be trusted: then nothing may leave.
    pub fn scan(&mut self, texts: &[&str]) -> Result<Scan> {
        self.scan_in_turns(texts, &mut |_| {})
    }

    /// As [`scan`](Self::scan); `between` is called now and then and may have other texts scanned.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_in_turns(
        &mut self,
        texts: &[&str],
        between: &mut dyn FnMut(&mut ScanNow<'_>),
    ) -> Result<Scan> {
        let rules = Arc::clone(&self.rules);
        let seen = Seen::new(&rules, texts);
        let mut between_steps = |detect: &mut DetectNow<'_>| {
            between(&mut |texts| {
                let seen = Seen::new(&rules, texts);
                rules.judge(texts, &seen, detect(&seen.texts(), &seen.recognized)?)
            });
        };
        let detection = self.model.detect_in_turns(&seen.texts(), &seen.recognized, &mut between_steps)?;
        self.rules.judge(texts, &seen, detection)
    }
}

/// Texts as a reader sees them, and what the recognizers find there.
struct Seen {
    views: Vec<View>,
    recognized: Vec<Vec<Span>>,
}

impl Seen {
    fn new(rules: &Rules, texts: &[&str]) -> Self {
        let views: Vec<View> = texts.iter().map(|text| View::of(text)).collect();
        let recognized = views.iter().map(|view| rules.recognize_view(view)).collect();
        Self { views, recognized }
    }

    fn texts(&self) -> Vec<&str> {
        self.views.iter().map(View::text).collect()
    }
}

impl Rules {
    /// What of a detection counts, in code points of the original texts.
    fn judge(&self, texts: &[&str], seen: &Seen, mut detection: Detection) -> Result<Scan> {
        if detection.verdict != Verdict::Sound {
            return Err(Error::Untrusted);
        }
        if detection.spans.len() != texts.len() {
            return Err(Error::Unavailable);
        }
        for ((text, view), spans) in texts.iter().zip(&seen.views).zip(&mut detection.spans) {
            self.apply(view.text(), spans);
            if spans.iter().any(|span| span.label.as_str() == Entity::Url.as_str()) {
                retain_links(&view.text().chars().collect::<Vec<_>>(), spans);
            }
            *spans = view.map_spans(std::mem::take(spans));
            self.add_as_written(view, text, spans);
        }
        let because = detection
            .because
            .into_iter()
            .zip(&seen.views)
            .map(|(reasons, view)| view.map_reasons(reasons))
            .collect();
        Ok(Scan { spans: detection.spans, because, tokens: detection.tokens, sent: detection.sent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Entity, Source};

    struct Fixed(Verdict);

    impl TextDetector for Fixed {
        fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection> {
            let mut detection = RecognizersOnly.detect(texts, recognized)?;
            detection.verdict = self.0;
            let city =
                Span { start: 0, end: 4, label: Entity::City.into(), score: 0.6, source: Source::Model };
            detection.spans.iter_mut().for_each(|spans| spans.insert(0, city.clone()));
            Ok(detection)
        }
    }

    #[test]
    fn lists_and_switches_hold_for_model_and_recognizers() {
        let config = Config::parse("allow = ['rome', 'info@example.org']\n[types]\nURL = false").unwrap();
        let mut scanner =
            Scanner::new(Arc::new(Rules::new(&config).unwrap()), Box::new(Fixed(Verdict::Sound)));
        let text = "Rome, info@example.org, ann@example.org, https://example.org/ann";
        let scan = scanner.scan(&[text]).unwrap();
        let found: Vec<_> = scan.spans[0].iter().map(|span| (span.start, span.label.to_string())).collect();
        assert_eq!(found, [(24, "EMAIL".to_owned())]);
    }

    #[test]
    fn an_untrusted_detection_lets_nothing_through() {
        let rules = Arc::new(Rules::new(&Config::default()).unwrap());
        let mut scanner = Scanner::new(rules, Box::new(Fixed(Verdict::CanaryFailed)));
        assert!(matches!(scanner.scan(&["Rome"]), Err(Error::Untrusted)));
    }
}
