//! One token position: encrypting uses up its pads.

use super::encrypt::{Fixed, decode_centred, encrypt_words};
use super::exact::ExactMode;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::random::noise::NoiseRng;
use crate::secret::SecretWords;
use std::sync::Arc;
use zeroize::Zeroize;

/// What one slot owns for one round: it leaves the slot, whole and once, when a message is encrypted.
pub(crate) struct RoundSecrets {
    /// Coefficients of `A s`, `[polys * phi]`: the words of feature `i` at index `i`.
    pub(crate) pads: SecretWords,
    /// `-phi (H_row s)[phi t]` plus noise, `[rows]`.
    pub(crate) corrections: SecretWords,
}

/// One token position of a batch. It owns the pads of all rounds at that position; each encrypts one message, ever.
///
/// Pads leave the slot by value: what was used is not there any more, and is wiped once the body exists.
pub struct Slot {
    instance: Arc<Instance>,
    /// `None` once used.
    rounds: Vec<Option<RoundSecrets>>,
    process: u32,
}

/// How a result is scaled back.
enum Scale {
    Fixed(f64),
    Exact(u64),
}

/// What decodes one reply: consumed by it.
///
/// When the activations were not all finite (or not in range, in exact mode), the body was that of zeros, and only
/// decoding tells: the traffic does not depend on it.
pub struct PendingReply {
    instance: Arc<Instance>,
    corrections: SecretWords,
    scale: Scale,
    /// What was sent is not what was given.
    poisoned: bool,
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        match &mut self.scale {
            Scale::Fixed(scale) => scale.zeroize(),
            Scale::Exact(delta) => delta.zeroize(),
        }
        self.poisoned.zeroize();
    }
}

impl Slot {
    pub(super) fn new(instance: Arc<Instance>, process: u32, rounds: Vec<Option<RoundSecrets>>) -> Self {
        Self { instance, rounds, process }
    }

    /// Encrypts `x`, `[d_in]`, under this slot's pad of `round`, which is used up whatever follows.
    ///
    /// `max_row_norm`: the published bound on the norms of the round's integer rows. When a value is not finite, zeros
    /// are encrypted and decoding gives NaN.
    ///
    /// # Errors
    /// [`Error::PadUsed`] for a second message, [`Error::Forked`], [`Error::Mismatch`] for a wrong length or round,
    /// [`Error::NotANorm`].
    pub fn encrypt(
        &mut self,
        round: usize,
        x: &[f32],
        max_row_norm: f64,
        rng: &mut NoiseRng,
    ) -> Result<(Body, PendingReply)> {
        if !(max_row_norm.is_finite() && max_row_norm >= 0.0) {
            return Err(Error::NotANorm);
        }
        let secrets = self.take(round, x.len(), rng)?;
        let fixed = Fixed::new(self.instance.params(), max_row_norm, x);
        let message = x.iter().map(|&value| fixed.encode(value));
        let body = encrypt_words(&self.instance, &secrets.pads, message, rng);
        Ok((Body::new(body), self.pending(secrets, Scale::Fixed(fixed.scale()), !fixed.is_finite())))
    }

    /// Encrypts integers; the result is decoded exactly by [`PendingReply::decode_exact`].
    ///
    /// When a value alone is beyond what `exact` holds, zeros are encrypted and decoding fails.
    ///
    /// # Errors
    /// As [`Slot::encrypt`].
    pub fn encrypt_exact(
        &mut self,
        round: usize,
        x: &[i64],
        exact: &ExactMode,
        rng: &mut NoiseRng,
    ) -> Result<(Body, PendingReply)> {
        let secrets = self.take(round, x.len(), rng)?;
        let fits = x.iter().fold(true, |fits, value| fits & (value.unsigned_abs() < exact.limit()));
        let keep = -i64::from(fits);
        let message = x.iter().map(|&value| (value & keep) * exact.delta() as i64);
        let body = encrypt_words(&self.instance, &secrets.pads, message, rng);
        Ok((Body::new(body), self.pending(secrets, Scale::Exact(exact.delta()), !fits)))
    }

    /// Takes the round's secrets out before anything is computed from them.
    fn take(&mut self, round: usize, len: usize, rng: &NoiseRng) -> Result<RoundSecrets> {
        Error::check("activations", self.instance.layout().round(round)?.d_in, len)?;
        let process = std::process::id();
        if self.process != process || !rng.belongs_to(process) {
            return Err(Error::Forked);
        }
        self.rounds[round].take().ok_or(Error::PadUsed { round })
    }

    #[cfg(test)]
    pub(crate) fn secrets(&mut self, round: usize) -> RoundSecrets {
        self.rounds[round].take().expect("an unused round")
    }

    fn pending(&self, secrets: RoundSecrets, scale: Scale, poisoned: bool) -> PendingReply {
        let RoundSecrets { corrections, .. } = secrets;
        PendingReply { instance: Arc::clone(&self.instance), corrections, scale, poisoned }
    }
}

impl PendingReply {
    /// Rows of the round.
    pub fn rows(&self) -> usize {
        self.corrections.len()
    }

    /// `out[j] = (phi u_j + correction_j) / (phi scale)`: the integer rows times `x`, before row scales.
    ///
    /// The result must not travel back to the server in any form: no retry, abort or report may depend on it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when `reply` or `out` has another length than [`PendingReply::rows`], [`Error::Malformed`] for
    /// a reply in exact mode.
    pub fn decode(mut self, reply: &Reply, out: &mut [f32]) -> Result<()> {
        let Scale::Fixed(scale) = self.scale else { return Err(wrong_mode()) };
        Error::check("outputs", self.rows(), out.len())?;
        Error::check("words of a reply", self.rows(), reply.words().len())?;
        let factor = 1.0 / (self.instance.params().phi() as f64 * scale);
        let factor = if self.poisoned { f64::NAN } else { factor };
        let values = decode_centred(&self.instance, &mut self.corrections, reply);
        for (out, value) in out.iter_mut().zip(values) {
            *out = (value as f64 * factor) as f32;
        }
        Ok(())
    }

    /// The exact integers `W x`.
    ///
    /// # Errors
    /// As [`PendingReply::decode`]; [`Error::ExactInput`] when a value given to [`Slot::encrypt_exact`] was out of range.
    pub fn decode_exact(mut self, reply: &Reply) -> Result<Vec<i64>> {
        let Scale::Exact(delta) = self.scale else { return Err(wrong_mode()) };
        Error::check("words of a reply", self.rows(), reply.words().len())?;
        if self.poisoned {
            return Err(Error::ExactInput);
        }
        let step = self.instance.params().phi() as i64 * delta as i64;
        let values = decode_centred(&self.instance, &mut self.corrections, reply);
        Ok(values.map(|value| (value + step / 2).div_euclid(step)).collect())
    }
}

fn wrong_mode() -> Error {
    Error::Malformed { what: "decoding", problem: "exact and fixed-point mode mixed" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_pad_encrypts_one_message_and_a_fork_none() {
        let instance = Arc::new(testing::toy_instance(5, 6));
        let mut rng = NoiseRng::from_seed(1);
        let mut slots = testing::slots_without_masks(&instance, 2);
        let mut slot = slots.remove(0);
        assert!(matches!(slot.encrypt(1, &[0.0; 5], 9.0, &mut rng), Err(Error::Mismatch { .. })));
        assert!(matches!(slot.encrypt(0, &[0.0; 4], 9.0, &mut rng), Err(Error::Mismatch { .. })));
        assert!(matches!(slot.encrypt(0, &[0.0; 5], f64::NAN, &mut rng), Err(Error::NotANorm)));
        slot.encrypt(0, &[0.0; 5], 9.0, &mut rng).unwrap();
        let again = slot.encrypt(0, &[0.0; 5], 9.0, &mut rng);
        assert!(matches!(again, Err(Error::PadUsed { round: 0 })));
        let mut copied = slots.remove(0);
        copied.process ^= 1;
        assert!(matches!(copied.encrypt(0, &[0.0; 5], 9.0, &mut rng), Err(Error::Forked)));
    }

    #[test]
    fn values_that_are_not_finite_show_up_only_in_decoding() {
        let instance = Arc::new(testing::toy_instance(5, 6));
        let mut slots = testing::slots_without_masks(&instance, 3).into_iter();
        let mut send = |x: &[f32]| {
            let (mut slot, mut rng) = (slots.next().unwrap(), NoiseRng::from_seed(1));
            slot.encrypt(0, x, 9.0, &mut rng).unwrap()
        };
        for bad in [f32::NAN, f32::INFINITY] {
            let (body, pending) = send(&[1.0, bad, 0.0, 2.0, 3.0]);
            assert!(body.words().iter().all(|word| word >> 40 == 0));
            let mut out = [0.0; 6];
            pending.decode(&Reply::from_words(vec![0; 6]), &mut out).unwrap();
            assert!(out.iter().all(|value| value.is_nan()));
        }
        let (_, pending) = send(&[0.0; 5]);
        let mut out = [0.0; 6];
        pending.decode(&Reply::from_words(vec![0; 6]), &mut out).unwrap();
        assert!(out.iter().all(|value| value.is_finite()));
    }
}
