//! What is done to logits before a token is chosen, and what is reported about them.

use std::collections::HashMap;

/// Changes of the logits that a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adjustments {
    /// Added to the logits of these tokens; -100 and below excludes one.
    pub bias: Vec<(u32, f32)>,
    /// Subtracted once from the logit of each token that the answer contains.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time that the answer contains it.
    pub frequency_penalty: f32,
}

impl Adjustments {
    /// Changes `logits` after `answer`.
    pub fn apply(&self, logits: &mut [f32], answer: &[u32]) {
        if self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 {
            let mut counts: HashMap<u32, f32> = HashMap::new();
            for &id in answer {
                *counts.entry(id).or_default() += 1.0;
            }
            for (id, count) in counts {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit -= self.presence_penalty + self.frequency_penalty * count;
                }
            }
        }
        for &(id, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if bias <= -100.0 { f32::NEG_INFINITY } else { *logit + bias };
            }
        }
    }
}

/// A chosen token with its probability and those of the likeliest ones, before any adjustment.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens, best first.
    pub top: Vec<(u32, f32)>,
}

/// Log-probabilities of logits, before they are changed.
pub(super) struct LogProbabilities {
    logits: Vec<f32>,
    /// Logarithm of the sum of the exponentials.
    total: f32,
}

impl LogProbabilities {
    pub(super) fn new(logits: &[f32]) -> Self {
        let best = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - best).exp()).sum();
        Self { logits: logits.to_vec(), total: best + sum.ln() as f32 }
    }

    /// The entry for `id` with the `count` likeliest tokens.
    pub(super) fn entry(&self, id: u32, count: usize) -> TokenLogprob {
        let of = |id: u32| self.logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logit - self.total);
        let mut ids: Vec<u32> = (0..self.logits.len() as u32).collect();
        let descending = |a: &u32, b: &u32| of(*b).total_cmp(&of(*a)).then_with(|| a.cmp(b));
        if count > 0 && count < ids.len() {
            ids.select_nth_unstable_by(count - 1, descending);
        }
        ids.truncate(count);
        ids.sort_unstable_by(descending);
        TokenLogprob { id, logprob: of(id), top: ids.into_iter().map(|id| (id, of(id))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_count_the_answer_and_a_bias_excludes() {
        let adjustments =
            Adjustments { bias: vec![(0, -100.0), (3, 2.0)], presence_penalty: 1.0, frequency_penalty: 0.5 };
        let mut logits = [5.0, 5.0, 5.0, 5.0];
        adjustments.apply(&mut logits, &[1, 1, 2]);
        assert_eq!(logits, [f32::NEG_INFINITY, 3.0, 3.5, 7.0]);
        let mut untouched = [1.0, 2.0];
        Adjustments::default().apply(&mut untouched, &[0, 0]);
        assert_eq!(untouched, [1.0, 2.0]);
    }

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_come_first() {
        let all = LogProbabilities::new(&[1.0, 3.0, 2.0, f32::NEG_INFINITY]).entry(2, 4);
        let sum: f32 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(all.top.iter().map(|&(id, _)| id).collect::<Vec<_>>(), [1, 2, 0, 3]);
        assert_eq!(all.logprob, all.top[1].1);
        assert!(LogProbabilities::new(&[0.0; 4]).entry(0, 0).top.is_empty());
    }
}
