//! The secret test vectors of a whole model, made from one's own copy of its weights.
//!
//! The vectors must come from a copy that the digest binds, and from a draw that the server does not know. Asking the
//! server for `r^T W` would show consistency only, and would tell it `r`. So the maker needs the weights, once; what it
//! keeps is 12 MB for SmolLM2-135M, and it keeps it to itself.

use std::path::Path;

use fhe_layers::client::integrity::RoundCheck;
use fhe_layers::{Body, NoiseRng, Params, Reply, WireForm, WordBody, WordReply};
use rayon::prelude::*;
use sotto_models::split::ServerPart;

use sotto_protocol::binding;
use sotto_protocol::error::{Error, Result};

/// Checks replies of one model; see [`fhe_layers::client::integrity`] for what a check shows.
pub struct WeightCheck {
    digest: [u8; 32],
    params: Params,
    rounds: Vec<RoundCheck>,
}

/// What was checked so far. `wrong_values` depends on decrypted values: for the local user's eyes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckTally {
    /// Replies (one per token and round) whose words fitted.
    pub replies: u64,
    /// Replies among them whose decoded values did not fit.
    pub wrong_values: u64,
}

impl CheckTally {
    /// The verdict on the decoded values, for the local user when the traffic of a turn has ended.
    ///
    /// # Errors
    /// [`Error::WrongMasks`] when any was wrong.
    pub fn verdict(&self) -> Result<()> {
        match self.wrong_values {
            0 => Ok(()),
            wrong => Err(Error::WrongMasks { wrong, replies: self.replies }),
        }
    }
}

impl WeightCheck {
    /// Draws vectors for the split's server part in `directory`, after checking its weights against the hash in its
    /// manifest; on the current rayon pool.
    ///
    /// # Errors
    /// [`Error::Models`] for a missing or damaged file, [`Error::Malformed`] for an unknown parameter set,
    /// [`Error::FheLayers`] when the operating system gives no randomness.
    pub fn of_split(directory: &Path) -> Result<Self> {
        let part = ServerPart::open(directory)?;
        part.verify()?;
        let manifest = part.manifest();
        let instance = binding::instance(&manifest.plan, &manifest.protocol, part.digest().0)?;
        let one = |round: usize| {
            let matrices = part.round(round)?;
            let matrices: Vec<&[i8]> = matrices.iter().map(|matrix| matrix.weights.as_slice()).collect();
            let spec = instance.layout().round(round)?;
            Ok(RoundCheck::new(spec, &matrices, &mut NoiseRng::from_os()?)?)
        };
        let rounds = (0..manifest.plan.rounds.len()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Self { digest: part.digest().0, params: instance.params().clone(), rounds })
    }

    /// Digest of the model that the vectors belong to.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether a frame of replies fits the bodies that it answers; both as they travelled. Depends on nothing decrypted.
    ///
    /// # Errors
    /// [`Error::FheLayers`] when the lengths are not those of `tokens` tokens.
    pub(crate) fn replies_fit(
        &self,
        form: WireForm,
        round: usize,
        tokens: usize,
        bodies: &[u8],
        replies: &[u8],
    ) -> Result<bool> {
        let check = self.round(round)?;
        let (body, reply) = (bodies.len() / tokens.max(1), replies.len() / tokens.max(1));
        if body * reply == 0 {
            return Err(Error::Internal("a frame without bodies or replies".to_owned()));
        }
        let misfits = bodies
            .par_chunks(body)
            .zip(replies.par_chunks(reply))
            .map(|(body, reply)| {
                let Some(widths) = form.widths() else {
                    let body = Body::from_bytes(check.d_in(), body)?;
                    return Ok(check.reply_misfits(&body, &Reply::from_bytes(check.rows(), reply)?)?);
                };
                let body = WordBody::from_bytes(widths, check.d_in(), body)?;
                Ok(check.word_misfits(&body, &WordReply::from_bytes(widths, check.rows(), reply)?, widths)?)
            })
            .collect::<Result<Vec<u32>>>()?;
        // One word for the frame: which token or vector it was stays here.
        Ok(misfits.iter().fold(0, |all, one| all | one) == 0)
    }

    /// Whether one token's decoded values `y`, before row scales, fit its column-scaled input `x`. For the local user
    /// only.
    ///
    /// # Errors
    /// [`Error::FheLayers`] for other lengths.
    pub(crate) fn values_fit(
        &self,
        form: WireForm,
        round: usize,
        max_row_norm: f64,
        x: &[f32],
        y: &[f32],
    ) -> Result<bool> {
        Ok(self.round(round)?.value_misfits_in(form, &self.params, max_row_norm, x, y)? == 0)
    }

    fn round(&self, round: usize) -> Result<&RoundCheck> {
        self.rounds.get(round).ok_or_else(|| Error::Internal(format!("round {round} has no check")))
    }
}
