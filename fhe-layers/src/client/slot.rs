//! One token position: encrypting uses up its pads.

use super::batch::Store;
use super::exact::ExactMode;
use crate::ciphertext::{Body, Reply};
use crate::error::{Error, Result};
use crate::fixed_point::{fixed_point, input_scale};
use crate::params::{BODY_BITS, REPLY_BITS};
use crate::random::noise::NoiseRng;
use crate::switch::Switch;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// One token position of a batch. It owns the pads of all rounds at that position; each encrypts one message, ever.
pub struct Slot {
    store: Arc<Store>,
    t: usize,
    used: Vec<bool>,
}

/// How a result is scaled back.
enum Scale {
    Fixed(f64),
    Exact(u64),
}

/// What decodes one reply: consumed by it.
pub struct PendingReply {
    store: Arc<Store>,
    t: usize,
    round: usize,
    scale: Scale,
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        match &mut self.scale {
            Scale::Fixed(scale) => scale.zeroize(),
            Scale::Exact(delta) => delta.zeroize(),
        }
    }
}

impl Slot {
    pub(super) fn new(store: Arc<Store>, t: usize) -> Self {
        let rounds = store.instance.layout().rounds().len();
        Self { store, t, used: vec![false; rounds] }
    }

    /// Encrypts `x`, `[d_in]`, under this slot's pad of `round`, which is used up whatever follows.
    ///
    /// `max_row_norm`: the published bound on the norms of the round's integer rows. Values that are not finite are
    /// encrypted as 0: the traffic does not tell.
    ///
    /// # Errors
    /// [`Error::PadUsed`] for a second message, [`Error::Forked`], [`Error::Mismatch`] for a wrong length or round.
    pub fn encrypt(
        &mut self,
        round: usize,
        x: &[f32],
        max_row_norm: f64,
        rng: &mut NoiseRng,
    ) -> Result<(Body, PendingReply)> {
        self.claim(round, x.len())?;
        let scale = input_scale(self.store.instance.params(), max_row_norm, x);
        let body = self.encrypt_integers(round, x.iter().map(|&v| fixed_point(v, scale)), rng);
        Ok((body, self.pending(round, Scale::Fixed(scale))))
    }

    /// Encrypts integers; the result is decoded exactly by [`PendingReply::decode_exact`].
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
        self.claim(round, x.len())?;
        let delta = exact.delta();
        let body = self.encrypt_integers(round, x.iter().map(|&v| v.wrapping_mul(delta as i64)), rng);
        Ok((body, self.pending(round, Scale::Exact(delta))))
    }

    /// Marks the pad as used before anything is computed from it.
    fn claim(&mut self, round: usize, len: usize) -> Result<()> {
        let expected = self.store.instance.layout().round(round)?.d_in;
        Error::check("activations", expected, len)?;
        if self.store.process != std::process::id() {
            return Err(Error::Forked);
        }
        if std::mem::replace(&mut self.used[round], true) {
            return Err(Error::PadUsed { round });
        }
        Ok(())
    }

    fn pending(&self, round: usize, scale: Scale) -> PendingReply {
        PendingReply { store: Arc::clone(&self.store), t: self.t, round, scale }
    }

    /// `v_i = round((A s)[f + phi t] + e + X_i, from q to 2^40)`.
    fn encrypt_integers(&self, round: usize, values: impl Iterator<Item = i64>, rng: &mut NoiseRng) -> Body {
        let instance = &self.store.instance;
        let (params, modulus) = (instance.params(), instance.ring().modulus());
        let (n, phi) = (params.n(), params.phi());
        let switch = Switch::new(params.q(), BODY_BITS);
        let d_in = instance.layout().rounds()[round].d_in;
        let mut words = Zeroizing::new(vec![0; d_in]);
        rng.fill_noise(params, &mut words);
        let first_poly = instance.layout().round_polys(round).start;
        let mut values = values;
        for (poly, words) in words.chunks_mut(phi).enumerate() {
            let pads = &self.store.pads[(first_poly + poly) * n + phi * self.t..];
            for ((word, &pad), value) in words.iter_mut().zip(pads).zip(&mut values) {
                let message = modulus.reduce_i64(value);
                *word = switch.down(modulus.add(modulus.add(*word, pad), message));
            }
        }
        Body::new(std::mem::take(&mut *words))
    }
}

impl PendingReply {
    /// Rows of the round.
    pub fn rows(&self) -> usize {
        self.store.instance.layout().round_rows(self.round).len()
    }

    /// `out[j] = (phi u_j + correction_j) / (phi scale)`: the integer rows times `x`, before row scales.
    ///
    /// The result must not travel back to the server in any form: no retry, abort or report may depend on it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when `reply` or `out` has another length than [`PendingReply::rows`].
    pub fn decode(self, reply: &Reply, out: &mut [f32]) -> Result<()> {
        let Scale::Fixed(scale) = self.scale else { return Err(wrong_mode()) };
        Error::check("outputs", self.rows(), out.len())?;
        let factor = 1.0 / (self.store.instance.params().phi() as f64 * scale);
        self.centred(reply, |j, value| out[j] = (value as f64 * factor) as f32)
    }

    /// The exact integers `W x`.
    ///
    /// # Errors
    /// As [`PendingReply::decode`].
    pub fn decode_exact(self, reply: &Reply) -> Result<Vec<i64>> {
        let Scale::Exact(delta) = self.scale else { return Err(wrong_mode()) };
        let mut out = vec![0; self.rows()];
        let step = self.store.instance.params().phi() as i64 * delta as i64;
        self.centred(reply, |j, value| out[j] = (value + step / 2).div_euclid(step))?;
        Ok(out)
    }

    fn centred(&self, reply: &Reply, mut each: impl FnMut(usize, i64)) -> Result<()> {
        let instance = &self.store.instance;
        let rows = instance.layout().round_rows(self.round);
        Error::check("words of a reply", rows.len(), reply.words().len())?;
        let (params, modulus) = (instance.params(), instance.ring().modulus());
        let (n, phi) = (params.n(), params.phi());
        let switch = Switch::new(params.q(), REPLY_BITS);
        let phi_factor = phi as u64;
        let mut j = 0;
        while j < rows.len() {
            let row = rows.start + j;
            let (block, r) = (row / phi, row % phi);
            let run = (phi - r).min(rows.len() - j);
            let corrections = &self.store.corrections[block * n + phi * self.t + r..][..run];
            for (&word, &correction) in reply.words()[j..j + run].iter().zip(corrections) {
                let u = modulus.reduce_u64(phi_factor * switch.up(u64::from(word)));
                each(j, modulus.centred(modulus.add(u, correction)));
                j += 1;
            }
        }
        Ok(())
    }
}

fn wrong_mode() -> Error {
    Error::Malformed { what: "decoding", problem: "exact and fixed-point mode mixed" }
}
