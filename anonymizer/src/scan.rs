//! From texts to spans: recognizers, lists and the model together.

use std::sync::Arc;

use crate::config::{Config, Policy};
use crate::detect::overlap::resolve;
use crate::detect::{Detection, Span, Verdict};
use crate::error::{Error, Result};
use crate::recognizers::Recognizers;

/// Finds what the recognizers leave: the model's part of detection.
pub trait TextDetector: Send {
    /// Scans texts. `recognized`: per text, the recognizers' spans; they are part of the answer.
    ///
    /// # Errors
    /// If nothing is known about the texts.
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection>;
}

/// No model: the recognizers alone. For tests and where a model is not wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecognizersOnly;

impl TextDetector for RecognizersOnly {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection> {
        let spans = recognized.iter().map(|spans| resolve(spans.clone())).collect();
        let tokens = texts.iter().map(|text| text.split_whitespace().count()).sum();
        Ok(Detection { spans, tokens, sent: 0, verdict: Verdict::Sound })
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// Per text, in its order, not overlapping.
    pub spans: Vec<Vec<Span>>,
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
        let mut spans = self.recognizers.scan(text);
        self.policy.apply(&text.chars().collect::<Vec<_>>(), &mut spans);
        spans
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

    /// Scans texts; short ones share passes of the model.
    ///
    /// # Errors
    /// If detection fails or cannot be trusted: then nothing may leave.
    pub fn scan(&mut self, texts: &[&str]) -> Result<Scan> {
        let recognized: Vec<Vec<Span>> = texts.iter().map(|text| self.rules.recognize(text)).collect();
        let mut detection = self.model.detect(texts, &recognized)?;
        if detection.verdict != Verdict::Sound {
            return Err(Error::Untrusted);
        }
        if detection.spans.len() != texts.len() {
            return Err(Error::Unavailable);
        }
        for (text, spans) in texts.iter().zip(&mut detection.spans) {
            self.rules.apply(text, spans);
        }
        Ok(Scan { spans: detection.spans, tokens: detection.tokens, sent: detection.sent })
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
