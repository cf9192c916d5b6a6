//! One token position: encrypting uses up its pads.

use super::encrypt::{decode_words, encrypt_words, word_step};
use super::exact::ExactMode;
use super::scale::Fixed;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::form::WireForm;
use crate::guard::{ForkGuard, Freshness};
use crate::instance::Instance;
use crate::random::noise::NoiseRng;
use crate::secret::{SecretHalves, SecretWords};
use crate::words::{WordBody, WordReply};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroize;

/// What one slot owns for one round: it leaves the slot, whole and once, when a message is encrypted.
pub(crate) struct RoundSecrets {
    /// Coefficients of `A s`, `[polys * phi]`: the words of feature `i` at index `i`.
    pub(crate) pads: SecretWords,
    /// What decoding adds to a reply word, on the scale of 32-bit words, `[rows]`: `-(H_row s)[phi t]` plus noise, less what
    /// the server adds itself.
    pub(crate) corrections: SecretHalves,
}

/// What detects that a slot is a copy.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) process: ForkGuard,
    pub(super) made: Freshness,
}

impl Origin {
    /// # Errors
    /// [`Error::Entropy`].
    pub(super) fn here() -> Result<Self> {
        Ok(Self { process: ForkGuard::new()?, made: Freshness::now() })
    }

    fn check(&self, rng: &NoiseRng) -> Result<()> {
        self.process.check()?;
        rng.check_process()?;
        self.made.check()
    }
}

/// One token position of a batch. It owns the pads of all rounds at that position; each encrypts one message, ever.
///
/// Pads leave the slot by value: what was used is gone, and is wiped once the body exists. A slot whose process was forked,
/// or whose machine was restored from a snapshot, encrypts nothing.
pub struct Slot {
    instance: Arc<Instance>,
    form: WireForm,
    /// `None` once used.
    rounds: Vec<Option<RoundSecrets>>,
    origin: Origin,
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
    form: WireForm,
    corrections: SecretHalves,
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
    pub(super) fn new(
        instance: Arc<Instance>,
        form: WireForm,
        origin: Origin,
        rounds: Vec<Option<RoundSecrets>>,
    ) -> Self {
        Self { instance, form, rounds, origin }
    }

    /// The wire form of its bodies and replies.
    pub fn form(&self) -> WireForm {
        self.form
    }

    /// Time since its batch was made.
    pub fn age(&self) -> Duration {
        self.origin.made.age()
    }

    /// Encrypts `x`, `[d_in]`, under this slot's pad of `round` in the full form. See [`Slot::encrypt_words`].
    ///
    /// # Errors
    /// As [`Slot::encrypt_words`]; [`Error::WrongForm`] for a slot of a session form.
    pub fn encrypt(
        &mut self,
        round: usize,
        x: &[f32],
        max_row_norm: f64,
        rng: &mut NoiseRng,
    ) -> Result<(Body, PendingReply)> {
        self.require_full()?;
        let (words, pending) = self.encrypt_fixed(round, x, max_row_norm, rng)?;
        Ok((Body::new(words.publish()), pending))
    }

    /// Encrypts `x`, `[d_in]`, under this slot's pad of `round`, which is used up whatever follows.
    ///
    /// `max_row_norm`: the published bound on the norms of the round's integer rows. When a value is not finite, zeros
    /// are encrypted and decoding gives NaN.
    ///
    /// # Errors
    /// [`Error::PadUsed`] for a second message, [`Error::Forked`], [`Error::Expired`], [`Error::Mismatch`] for a wrong length,
    /// [`Error::OutOfRange`] for an unknown round, [`Error::NotANorm`], [`Error::WrongForm`] for a slot of the full form.
    pub fn encrypt_words(
        &mut self,
        round: usize,
        x: &[f32],
        max_row_norm: f64,
        rng: &mut NoiseRng,
    ) -> Result<(WordBody, PendingReply)> {
        self.form.session_widths()?;
        let (words, pending) = self.encrypt_fixed(round, x, max_row_norm, rng)?;
        Ok((self.word_body(&words)?, pending))
    }

    /// Encrypts integers in the full form; the result is decoded exactly by [`PendingReply::decode_exact`].
    ///
    /// # Errors
    /// As [`Slot::encrypt_exact_words`]; [`Error::WrongForm`] for a slot of a session form.
    pub fn encrypt_exact(
        &mut self,
        round: usize,
        x: &[i64],
        exact: &ExactMode,
        rng: &mut NoiseRng,
    ) -> Result<(Body, PendingReply)> {
        self.require_full()?;
        let (words, pending) = self.encrypt_integers(round, x, exact, rng)?;
        Ok((Body::new(words.publish()), pending))
    }

    /// Encrypts integers; the result is decoded exactly by [`PendingReply::decode_exact_words`].
    ///
    /// `exact` must have been made for this slot's form. When a value alone is beyond what it holds, zeros are encrypted and
    /// decoding fails.
    ///
    /// # Errors
    /// As [`Slot::encrypt_words`].
    pub fn encrypt_exact_words(
        &mut self,
        round: usize,
        x: &[i64],
        exact: &ExactMode,
        rng: &mut NoiseRng,
    ) -> Result<(WordBody, PendingReply)> {
        self.form.session_widths()?;
        let (words, pending) = self.encrypt_integers(round, x, exact, rng)?;
        Ok((self.word_body(&words)?, pending))
    }

    fn encrypt_fixed(
        &mut self,
        round: usize,
        x: &[f32],
        max_row_norm: f64,
        rng: &mut NoiseRng,
    ) -> Result<(SecretWords, PendingReply)> {
        if !(max_row_norm.is_finite() && max_row_norm >= 0.0) {
            return Err(Error::NotANorm);
        }
        let secrets = self.take(round, x.len(), rng)?;
        let fixed = Fixed::new(self.instance.params(), max_row_norm, x);
        let message = x.iter().map(|&value| fixed.encode(value));
        let words = encrypt_words(&self.instance, self.form, &secrets.pads, message, rng);
        Ok((words, self.pending(secrets, Scale::Fixed(fixed.scale()), !fixed.is_finite())))
    }

    fn encrypt_integers(
        &mut self,
        round: usize,
        x: &[i64],
        exact: &ExactMode,
        rng: &mut NoiseRng,
    ) -> Result<(SecretWords, PendingReply)> {
        let secrets = self.take(round, x.len(), rng)?;
        let fits = x.iter().fold(true, |fits, value| fits & (value.unsigned_abs() < exact.limit()));
        let keep = -i64::from(fits);
        let message = x.iter().map(|&value| (value & keep) * exact.delta() as i64);
        let words = encrypt_words(&self.instance, self.form, &secrets.pads, message, rng);
        Ok((words, self.pending(secrets, Scale::Exact(exact.delta()), !fits)))
    }

    fn require_full(&self) -> Result<()> {
        match self.form {
            WireForm::Full => Ok(()),
            form => Err(Error::WrongForm { expected: "full", got: form.name() }),
        }
    }

    /// The ciphertext words, left-aligned.
    fn word_body(&self, words: &[u64]) -> Result<WordBody> {
        let widths = self.form.session_widths()?;
        let shift = crate::form::WORD_BITS - widths.body();
        Ok(WordBody::new(words.iter().map(|&word| (word as u32) << shift).collect(), widths))
    }

    /// Takes the round's secrets out before anything is computed from them.
    fn take(&mut self, round: usize, len: usize, rng: &NoiseRng) -> Result<RoundSecrets> {
        Error::check("activations", self.instance.layout().round(round)?.d_in, len)?;
        self.origin.check(rng)?;
        self.rounds[round].take().ok_or(Error::PadUsed { round })
    }

    #[cfg(test)]
    pub(crate) fn secrets(&mut self, round: usize) -> RoundSecrets {
        self.rounds[round].take().expect("an unused round")
    }

    fn pending(&self, secrets: RoundSecrets, scale: Scale, poisoned: bool) -> PendingReply {
        let RoundSecrets { corrections, .. } = secrets;
        PendingReply { instance: Arc::clone(&self.instance), form: self.form, corrections, scale, poisoned }
    }
}

impl PendingReply {
    /// Rows of the round.
    pub fn rows(&self) -> usize {
        self.corrections.len()
    }

    /// The wire form of the reply.
    pub fn form(&self) -> WireForm {
        self.form
    }

    /// As [`PendingReply::decode_words`] for a reply in the full form.
    ///
    /// # Errors
    /// As [`PendingReply::decode_words`].
    pub fn decode(self, reply: &Reply, out: &mut [f32]) -> Result<()> {
        self.decode_fixed(reply.words(), out)
    }

    /// `out[j] = (reply_j + correction_j) / scale`: the integer rows times `x`, before row scales.
    ///
    /// The result must not travel back to the server in any form: no retry, abort or report may depend on it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when `reply` or `out` has another length than [`PendingReply::rows`], [`Error::Malformed`] for
    /// a reply in exact mode.
    pub fn decode_words(self, reply: &WordReply, out: &mut [f32]) -> Result<()> {
        self.decode_fixed(reply.words(), out)
    }

    /// As [`PendingReply::decode_exact_words`] for a reply in the full form.
    ///
    /// # Errors
    /// As [`PendingReply::decode_exact_words`].
    pub fn decode_exact(self, reply: &Reply) -> Result<Vec<i64>> {
        self.decode_integers(reply.words())
    }

    /// The exact integers `W x`.
    ///
    /// # Errors
    /// As [`PendingReply::decode_words`]; [`Error::ExactInput`] when an encrypted value was out of range.
    pub fn decode_exact_words(self, reply: &WordReply) -> Result<Vec<i64>> {
        self.decode_integers(reply.words())
    }

    fn decode_fixed(self, reply: &[u32], out: &mut [f32]) -> Result<()> {
        let Scale::Fixed(scale) = self.scale else { return Err(wrong_mode()) };
        Error::check("outputs", self.rows(), out.len())?;
        Error::check("words of a reply", self.rows(), reply.len())?;
        let factor = word_step(&self.instance) / scale;
        let factor = if self.poisoned { f64::NAN } else { factor };
        for (out, value) in out.iter_mut().zip(decode_words(reply, &self.corrections)) {
            *out = (f64::from(value) * factor) as f32;
        }
        Ok(())
    }

    fn decode_integers(self, reply: &[u32]) -> Result<Vec<i64>> {
        let Scale::Exact(delta) = self.scale else { return Err(wrong_mode()) };
        Error::check("words of a reply", self.rows(), reply.len())?;
        if self.poisoned {
            return Err(Error::ExactInput);
        }
        let factor = word_step(&self.instance) / delta as f64;
        let values = decode_words(reply, &self.corrections);
        Ok(values.map(|value| (f64::from(value) * factor).round() as i64).collect())
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
    fn a_pad_encrypts_one_message_and_a_copy_none() {
        let instance = Arc::new(testing::toy_instance(5, 6));
        let mut rng = NoiseRng::from_seed(1);
        let mut slots = testing::slots_without_masks(&instance, 2);
        let mut slot = slots.remove(0);
        assert!(matches!(slot.encrypt(1, &[0.0; 5], 9.0, &mut rng), Err(Error::OutOfRange { .. })));
        assert!(matches!(slot.encrypt(0, &[0.0; 4], 9.0, &mut rng), Err(Error::Mismatch { .. })));
        assert!(matches!(slot.encrypt(0, &[0.0; 5], f64::NAN, &mut rng), Err(Error::NotANorm)));
        assert!(matches!(slot.encrypt_words(0, &[0.0; 5], 9.0, &mut rng), Err(Error::WrongForm { .. })));
        slot.encrypt(0, &[0.0; 5], 9.0, &mut rng).unwrap();
        let again = slot.encrypt(0, &[0.0; 5], 9.0, &mut rng);
        assert!(matches!(again, Err(Error::PadUsed { round: 0 })));
        let mut copied = slots.remove(0);
        copied.origin.process = copied.origin.process.of_a_copy();
        assert!(matches!(copied.encrypt(0, &[0.0; 5], 9.0, &mut rng), Err(Error::Forked)));
        let mut restored = slots.remove(0);
        restored.origin.made = restored.origin.made.restored_after(Duration::from_secs(60));
        assert!(matches!(restored.encrypt(0, &[0.0; 5], 9.0, &mut rng), Err(Error::Expired)));
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
