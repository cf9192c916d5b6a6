//! Choice of the next token.

use crate::{Error, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerConfig {
    /// Divides the logits; 0 always takes the most likely token. 0 to 100.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability, 0 < `top_p` <= 1.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one, 0 to 1.
    pub min_p: f32,
    /// Divides the positive logits of recent tokens, multiplies the negative ones; 1 for none. Above 0, up to 10.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty regards.
    pub repeat_window: usize,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, repeat_window: 64 }
    }
}

/// Repeat penalty if no temperature is given: with the likeliest token alone small models repeat themselves.
const DEFAULT_REPEAT_PENALTY: f32 = 1.1;

impl SamplerConfig {
    /// Parameters for an optional temperature and repeat penalty; the rest are defaults.
    ///
    /// Without a temperature: the likeliest token, with a repeat penalty of 1.1. With one: that temperature and no penalty,
    /// so that a temperature of 0 gives what other runtimes call greedy. An explicit penalty always applies.
    #[must_use]
    pub fn from_options(temperature: Option<f32>, repeat_penalty: Option<f32>) -> Self {
        let default_penalty = if temperature.is_some() { 1.0 } else { DEFAULT_REPEAT_PENALTY };
        Self {
            temperature: temperature.unwrap_or(0.0),
            repeat_penalty: repeat_penalty.unwrap_or(default_penalty),
            ..Self::default()
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If a parameter is out of range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "0 to 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty <= 10.0,
                "above 0 and at most 10",
            ),
        ];
        for (field, got, holds, expected) in checks {
            if !holds {
                return Err(Error::Sampling { field, expected, got: got.into() });
            }
        }
        Ok(())
    }
}

/// Chooses tokens; the same seed and logits give the same choices.
pub struct Sampler {
    config: SamplerConfig,
    rng: StdRng,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// If a parameter is out of range.
    pub fn new(config: SamplerConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, rng: StdRng::seed_from_u64(seed) })
    }

    /// The parameters.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Chooses the token after `history` from `logits`, one per vocabulary entry, which it changes.
    ///
    /// Non-finite logits are never chosen, unless all are, and then token 0 is.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> u32 {
        self.penalize(logits, history);
        if self.config.temperature == 0.0 {
            return argmax(logits);
        }
        let mut candidates = self.candidates(logits);
        self.keep_top_p(&mut candidates);
        self.draw(&candidates)
    }

    fn penalize(&self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.config.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = &history[history.len().saturating_sub(self.config.repeat_window)..];
        let mut seen = recent.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Finite candidates that pass top-k and min-p, with their probabilities relative to the best, best first.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let best = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let temperature = f64::from(self.config.temperature);
        let mut candidates: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .filter(|(_, logit)| logit.is_finite())
            .map(|(id, &logit)| (id as u32, ((f64::from(logit) - f64::from(best)) / temperature).exp()))
            .filter(|&(_, p)| p >= f64::from(self.config.min_p))
            .collect();
        let descending = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        let k = self.config.top_k;
        if k > 0 && k < candidates.len() {
            candidates.select_nth_unstable_by(k - 1, descending);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(descending);
        candidates
    }

    /// Keeps the shortest prefix that reaches `top_p` of the total.
    fn keep_top_p(&self, candidates: &mut Vec<(u32, f64)>) {
        if self.config.top_p >= 1.0 {
            return;
        }
        let wanted = candidates.iter().map(|(_, p)| p).sum::<f64>() * f64::from(self.config.top_p);
        let mut sum = 0.0;
        let keep = candidates.iter().position(|(_, p)| {
            sum += p;
            sum >= wanted
        });
        candidates.truncate(keep.map_or(candidates.len(), |last| last + 1));
    }

    fn draw(&mut self, candidates: &[(u32, f64)]) -> u32 {
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = self.rng.random::<f64>() * total;
        for &(id, p) in candidates {
            if left < p {
                return id;
            }
            left -= p;
        }
        candidates.first().map_or(0, |&(id, _)| id)
    }
}

/// Index of the largest finite logit, the first of equals; 0 if there is none.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 && logit.is_finite() {
            best = (id, logit);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_asked_for_brings_no_penalty_along() {
        let chosen = |temperature, penalty| {
            let config = SamplerConfig::from_options(temperature, penalty);
            (config.temperature, config.repeat_penalty)
        };
        assert_eq!(chosen(None, None), (0.0, DEFAULT_REPEAT_PENALTY));
        assert_eq!(chosen(Some(0.0), None), (0.0, 1.0));
        assert_eq!(chosen(Some(0.7), None), (0.7, 1.0));
        assert_eq!(chosen(None, Some(1.0)), (0.0, 1.0));
        assert_eq!(chosen(Some(0.0), Some(1.3)), (0.0, 1.3));
    }

    fn sampler(config: SamplerConfig) -> Sampler {
        Sampler::new(config, 7).unwrap()
    }

    fn drawn(config: SamplerConfig, logits: &[f32]) -> Vec<usize> {
        let mut sampler = sampler(config);
        let mut counts = vec![0; logits.len()];
        for _ in 0..4000 {
            counts[sampler.sample(&mut logits.to_vec(), &[]) as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_largest_finite_logit() {
        let mut logits = [1.0, f32::NAN, 3.0, 3.0, f32::INFINITY];
        assert_eq!(sampler(SamplerConfig::default()).sample(&mut logits, &[]), 2);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let counts = drawn(SamplerConfig { temperature: 1.0, ..Default::default() }, &[0.0, 2f32.ln(), 0.0]);
        // Expected 1000, 2000, 1000; standard deviation at most 32: six of them.
        assert!(counts[0].abs_diff(1000) < 190 && counts[1].abs_diff(2000) < 190, "{counts:?}");
    }

    #[test]
    fn cuts_leave_only_what_they_say() {
        let logits = [3.0, 2.0, 1.0, 0.0];
        let hot = SamplerConfig { temperature: 50.0, ..Default::default() };
        let used = |config| drawn(config, &logits).iter().filter(|&&count| count > 0).count();
        assert_eq!(used(hot.clone()), 4);
        assert_eq!(used(SamplerConfig { top_k: 2, ..hot.clone() }), 2);
        assert_eq!(used(SamplerConfig { top_p: 0.6, ..hot.clone() }), 3);
        assert_eq!(used(SamplerConfig { min_p: 0.97, ..hot }), 2);
    }

    #[test]
    fn the_penalty_works_on_both_signs_and_only_in_the_window() {
        let config = SamplerConfig { repeat_penalty: 2.0, repeat_window: 2, ..Default::default() };
        let mut logits = [4.0, -1.0, 3.0];
        assert_eq!(sampler(config.clone()).sample(&mut logits, &[2, 0, 1]), 2);
        assert_eq!(logits, [2.0, -2.0, 3.0]);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for config in [
            SamplerConfig { temperature: -1.0, ..Default::default() },
            SamplerConfig { temperature: f32::NAN, ..Default::default() },
            SamplerConfig { top_p: 0.0, ..Default::default() },
            SamplerConfig { min_p: 1.5, ..Default::default() },
            SamplerConfig { repeat_penalty: 0.0, ..Default::default() },
        ] {
            assert!(Sampler::new(config, 0).is_err());
        }
    }

    #[test]
    fn a_seed_fixes_the_choices() {
        let config = SamplerConfig { temperature: 1.0, ..Default::default() };
        let run = |seed| {
            let mut sampler = Sampler::new(config.clone(), seed).unwrap();
            (0..50).map(|_| sampler.sample(&mut [0.0; 9], &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
