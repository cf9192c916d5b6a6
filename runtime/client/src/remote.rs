//! The encrypted backend: one slot per token of a pass, one round trip per round.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use candle_core::Tensor;
use fhe_layers::{NoiseRng, PendingReply, Reply, WireForm, WordReply};
use rayon::prelude::*;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::check_input;
use sotto_models::split::plan::{PlanRound, SplitPlan};

use super::scales::{RoundScales, per_matrix, values};
use crate::accounting::{Accounting, Phase};
use crate::bodies::BodyLink;
use crate::masks::{SlotSource, drop_all_batches};
use crate::slots::{NamedSlot, PrefetchHold};
use crate::{CheckTally, WeightCheck};
use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::wire::SlotRange;

/// How often the slots of one frame are replaced: as many batches as a client keeps may be dead, and those that it makes
/// anew may be evicted at once by a server that is short of memory.
const MAX_REPLACEMENTS: usize = 8;

/// From this many tokens on, encrypting and decoding use all cores.
const PARALLEL_TOKENS: usize = 4;

/// From this many tokens on, a pass has the machine for itself. Passes of drafts and of several conversations are smaller,
/// follow each other at once, and need masks ahead all the time.
const HOLD_FROM: usize = 32;

/// The last body that was sent, as the server saw it.
#[derive(Clone, Debug)]
pub struct LastBody {
    /// Name of the round.
    pub round: String,
    /// Tokens in the frame.
    pub tokens: usize,
    /// The serialized bodies.
    pub bytes: Bytes,
    /// Their wire form.
    pub form: WireForm,
}

/// Runs rounds on a server that sees neither inputs nor outputs.
pub struct RemoteBackend {
    plan: SplitPlan,
    scales: Vec<RoundScales>,
    source: Arc<SlotSource>,
    link: BodyLink,
    /// Slots of the pass under way, one per token.
    slots: Vec<NamedSlot>,
    /// During a pass of many tokens that is not followed by another.
    hold: Option<PrefetchHold>,
    /// Whether another pass follows the next one at once.
    more_to_come: bool,
    rng: NoiseRng,
    accounting: Arc<Accounting>,
    cancelled: Arc<AtomicBool>,
    mask_timeout: Duration,
    last_body: Option<LastBody>,
    /// Checks every reply, when the user asked for it.
    check: Option<Checking>,
}

/// A check under way.
struct Checking {
    vectors: Arc<WeightCheck>,
    tally: CheckTally,
    /// Name of the round in which the server was caught.
    caught: Option<String>,
}

impl RemoteBackend {
    /// A backend for `plan` over `link`, spending slots of `source`. Raising `cancelled` ends a pass
    /// at its next round.
    ///
    /// # Errors
    ///
    /// [`Error::FheLayers`] when the operating system gives no randomness.
    pub(crate) fn new(
        plan: SplitPlan,
        scales: Vec<RoundScales>,
        source: Arc<SlotSource>,
        link: BodyLink,
        options: RemoteBackendOptions,
    ) -> Result<Self> {
        Ok(Self {
            plan,
            scales,
            source,
            link,
            slots: Vec::new(),
            hold: None,
            more_to_come: false,
            rng: NoiseRng::from_os()?,
            accounting: options.accounting,
            cancelled: options.cancelled,
            mask_timeout: options.mask_timeout,
            last_body: None,
            check: None,
        })
    }

    /// The split plan.
    pub fn plan(&self) -> &SplitPlan {
        &self.plan
    }

    /// The last body as the server saw it.
    pub fn last_body(&self) -> Option<&LastBody> {
        self.last_body.as_ref()
    }

    /// Checks every reply from now on: one whose words are not those of the pinned weights ends the pass, and no other
    /// pass is begun; decoded values that do not fit are counted.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] when the vectors are those of another model than the one served.
    pub fn check_weights(&mut self, vectors: Arc<WeightCheck>) -> Result<()> {
        if vectors.digest() != self.link.digest() {
            return Err(Error::Digest {
                what: "this machine's copy of the weights (--model) is not the model that the server names"
                    .to_owned(),
                expected: hex::encode(self.link.digest()),
                got: hex::encode(vectors.digest()),
            });
        }
        if self.link.form().keeps_words() {
            return Err(Error::WireForm {
                wanted: self.link.form().to_string(),
                why: "replies cannot be checked in it; use --wire stateless".to_owned(),
            });
        }
        self.check = Some(Checking { vectors, tally: CheckTally::default(), caught: None });
        Ok(())
    }

    /// What was checked so far, for the local user only; `None` when nothing is.
    pub fn check_tally(&self) -> Option<CheckTally> {
        self.check.as_ref().map(|check| check.tally)
    }

    /// The wire form in use.
    pub fn form(&self) -> WireForm {
        self.link.form()
    }

    /// Tokens per batch of slots.
    pub fn tau(&self) -> usize {
        self.source.pool().tau()
    }

    /// Waits until `count` slots are ready, without taking them.
    ///
    /// # Errors
    ///
    /// As [`SlotPool::take`](crate::slots::SlotPool::take).
    pub fn wait_ready(&self, count: usize) -> Result<()> {
        let cancelled = || self.cancelled.load(Ordering::SeqCst);
        self.source.pool().wait_ready(count, self.mask_timeout, &cancelled)
    }

    /// How many of `remaining` tokens the next pass should carry.
    pub fn pass_tokens(&mut self, remaining: usize) -> usize {
        let tokens = match self.source.pool().ready() {
            // Waiting for one batch is the least that any pass waits; carry as much as it brings.
            0 => remaining.min(self.source.pool().tau()),
            ready => remaining.min(ready),
        };
        self.more_to_come = tokens < remaining;
        tokens
    }

    fn take_slots(&mut self, tokens: usize) -> Result<()> {
        // Said of this pass alone, also when it cannot begin.
        let more_to_come = std::mem::take(&mut self.more_to_come);
        if self.cancelled.load(Ordering::SeqCst) {
            return Err(Error::Cancelled);
        }
        if let Some(round) = self.check.as_ref().and_then(|check| check.caught.clone()) {
            return Err(Error::WrongWeights { round });
        }
        self.link.begin_pass(tokens)?;
        // Masks for what follows at once cannot begin too early.
        self.hold = (tokens >= HOLD_FROM && !more_to_come).then(|| self.source.pool().hold_prefetch());
        let cancelled = || self.cancelled.load(Ordering::SeqCst);
        self.slots = self.source.pool().take(tokens, self.mask_timeout, &cancelled)?;
        Ok(())
    }

    /// The server does not keep a batch of this pass any more: takes other slots for its tokens. They were not used for
    /// this round, and nothing of an earlier round is needed again, so no token is lost.
    fn replace_slots(&mut self, tokens: usize) -> Result<()> {
        // Which of the frame's batches is dead was not said, and does not matter: all of them were made long ago.
        let dead: Vec<BatchId> = self.slots.iter().map(|slot| slot.batch).collect();
        dead.iter().for_each(|batch| self.source.pool().drop_batch(batch));
        self.slots.clear();
        let cancelled = || self.cancelled.load(Ordering::SeqCst);
        self.slots = self.source.pool().take(tokens, self.mask_timeout, &cancelled)?;
        Ok(())
    }

    fn run(&mut self, round: usize, tokens: usize, x: &[f32]) -> Result<Vec<f32>> {
        if self.cancelled.load(Ordering::SeqCst) {
            return Err(Error::Cancelled);
        }
        if self.source.pool().is_alarmed() {
            self.slots.clear();
            return Err(Error::SlotReused);
        }
        if self.slots.len() < tokens {
            return Err(Error::Internal(format!("{tokens} tokens in a pass of {}", self.slots.len())));
        }
        let form = self.link.form();
        let accounting = Arc::clone(&self.accounting);
        let index = u32::try_from(round).map_err(|_| Error::Internal("round number".to_owned()))?;
        let mut replaced = 0;
        let (body, pending, replies) = loop {
            let (spec, scales) = (&self.plan.rounds[round], &self.scales[round]);
            let (body, pending) = accounting.time(Phase::Encrypt, || {
                encrypt(round, spec, scales, form, &mut self.slots[..tokens], x, &mut self.rng)
            })?;
            let named = if form.keeps_words() { ranges(&self.slots[..tokens]) } else { Vec::new() };
            self.last_body = Some(LastBody { round: spec.name.clone(), tokens, bytes: body.clone(), form });
            match self.link.exchange(index, tokens as u32, body.clone(), &named) {
                Ok(replies) => break (body, pending, replies),
                Err(Error::BatchDead) if form.keeps_words() && replaced < MAX_REPLACEMENTS => {
                    drop(pending);
                    replaced += 1;
                    self.replace_slots(tokens)?;
                }
                Err(Error::SlotReused) => {
                    self.slots.clear();
                    drop_all_batches();
                    return Err(Error::SlotReused);
                }
                Err(error) => return Err(error),
            }
        };
        let (spec, scales) = (&self.plan.rounds[round], &self.scales[round]);
        let check = match &mut self.check {
            None => None,
            Some(check) => {
                if !accounting
                    .time(Phase::Decode, || check.vectors.replies_fit(form, round, tokens, &body, &replies))?
                {
                    check.caught = Some(spec.name.clone());
                    return Err(Error::WrongWeights { round: spec.name.clone() });
                }
                Some(ValueCheck { vectors: &check.vectors, form, round, x })
            }
        };
        let (y, wrong_values) =
            accounting.time(Phase::Decode, || decode(spec, scales, form, pending, &replies, check))?;
        if let Some(check) = &mut self.check {
            check.tally.replies += tokens as u64;
            check.tally.wrong_values += wrong_values;
        }
        Ok(y)
    }
}

/// What a [`RemoteBackend`] needs besides its model and connections.
pub(crate) struct RemoteBackendOptions {
    /// Where its costs are counted.
    pub(crate) accounting: Arc<Accounting>,
    /// Ends a pass when raised.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// Longest wait for slots.
    pub(crate) mask_timeout: Duration,
}

/// Encrypts the inputs `x`, `[tokens, d_in]`, each under its own slot; returns the frame and what is
/// needed to decode its reply.
fn encrypt(
    round: usize,
    spec: &PlanRound,
    scales: &RoundScales,
    form: WireForm,
    slots: &mut [NamedSlot],
    x: &[f32],
    rng: &mut NoiseRng,
) -> Result<(Bytes, Vec<PendingReply>)> {
    let body_bytes = form.body_bytes(spec.d_in);
    let each = |slots: &mut [NamedSlot], x: &[f32], frame: &mut [u8], rng: &mut NoiseRng| {
        let mut pending = Vec::with_capacity(slots.len());
        let mut scaled = vec![0.0; spec.d_in];
        let mut packed = Vec::with_capacity(body_bytes);
        let tokens = slots.iter_mut().zip(x.chunks_exact(spec.d_in)).zip(frame.chunks_exact_mut(body_bytes));
        for ((slot, x), bytes) in tokens {
            scales.scale_columns(x, &mut scaled);
            let norm = scales.max_row_norm;
            pending.push(if form == WireForm::Full {
                let (body, reply) = slot.slot.encrypt(round, &scaled, norm, rng)?;
                body.write(bytes);
                reply
            } else {
                let (body, reply) = slot.slot.encrypt_words(round, &scaled, norm, rng)?;
                packed.clear();
                body.write(&mut packed);
                bytes.copy_from_slice(&packed);
                reply
            });
        }
        Ok::<_, fhe_layers::Error>(pending)
    };
    let mut frame = vec![0; slots.len() * body_bytes];
    if slots.len() < PARALLEL_TOKENS {
        let pending = each(slots, x, &mut frame, rng)?;
        return Ok((Bytes::from(frame), pending));
    }
    let chunk = slots.len().div_ceil(rayon::current_num_threads());
    let parts: Vec<_> = slots
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk * spec.d_in))
        .zip(frame.par_chunks_mut(chunk * body_bytes))
        .map(|((slots, x), frame)| each(slots, x, frame, &mut NoiseRng::from_os()?))
        .collect::<std::result::Result<_, _>>()?;
    Ok((Bytes::from(frame), parts.into_iter().flatten().collect()))
}

/// The slots as a frame names them.
fn ranges(slots: &[NamedSlot]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(last) if last.batch_id[..] == slot.batch.0 && last.first + last.count == slot.index => {
                last.count += 1;
            }
            _ => ranges.push(SlotRange {
                batch_id: Bytes::copy_from_slice(&slot.batch.0),
                first: slot.index,
                count: 1,
            }),
        }
    }
    ranges
}

/// What decoded values are checked with: the vectors and the inputs of the frame, `[tokens, d_in]`.
#[derive(Clone, Copy)]
struct ValueCheck<'a> {
    vectors: &'a WeightCheck,
    form: WireForm,
    round: usize,
    x: &'a [f32],
}

impl ValueCheck<'_> {
    /// 1 when the values of `token` are wrong, else 0. Takes as long for either.
    fn wrong(&self, spec: &PlanRound, scales: &RoundScales, token: usize, y: &[f32]) -> Result<u64> {
        let mut scaled = vec![0.0; spec.d_in];
        scales.scale_columns(&self.x[token * spec.d_in..(token + 1) * spec.d_in], &mut scaled);
        Ok(u64::from(!self.vectors.values_fit(self.form, self.round, scales.max_row_norm, &scaled, y)?))
    }
}

/// Decodes a frame of replies into `[tokens, rows]`, row scales applied; with `check`, also counts the tokens whose
/// values are not those of the pinned weights.
///
/// Anomalies in the values (which depend on decrypted data) are not errors here: nothing the server
/// can observe may depend on them.
fn decode(
    spec: &PlanRound,
    scales: &RoundScales,
    form: WireForm,
    pending: Vec<PendingReply>,
    replies: &[u8],
    check: Option<ValueCheck<'_>>,
) -> Result<(Vec<f32>, u64)> {
    let rows = spec.rows();
    let reply_bytes = form.reply_bytes(rows);
    if replies.len() != pending.len() * reply_bytes {
        return Err(Error::Malformed {
            field: "reply of a round",
            expected: format!("{} bytes", pending.len() * reply_bytes),
            got: format!("{} bytes", replies.len()),
        });
    }
    let mut y = vec![0.0_f32; pending.len() * rows];
    let one = |token: usize, pending: PendingReply, bytes: &[u8], y: &mut [f32]| -> Result<u64> {
        match form.widths() {
            None => pending.decode(&Reply::from_bytes(rows, bytes)?, y)?,
            Some(widths) => pending.decode_words(&WordReply::from_bytes(widths, rows, bytes)?, y)?,
        }
        let wrong = check.map_or(Ok(0), |check| check.wrong(spec, scales, token, y))?;
        scales.scale_rows(y);
        Ok(wrong)
    };
    let mut wrong = 0;
    if pending.len() < PARALLEL_TOKENS {
        let replies = replies.chunks_exact(reply_bytes).zip(y.chunks_exact_mut(rows));
        for (token, (pending, (bytes, y))) in pending.into_iter().zip(replies).enumerate() {
            wrong += one(token, pending, bytes, y)?;
        }
    } else {
        wrong = pending
            .into_par_iter()
            .zip(replies.par_chunks_exact(reply_bytes))
            .zip(y.par_chunks_exact_mut(rows))
            .enumerate()
            .map(|(token, ((pending, bytes), y))| one(token, pending, bytes, y))
            .try_reduce(|| 0, |a, b| Ok(a + b))?;
    }
    Ok((y, wrong))
}

impl LinearBackend for RemoteBackend {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        check_input(&self.plan, round, input)?;
        let (tokens, _) = input.dims2()?;
        let x = values(input)?;
        let y = self.run(round, tokens, &x).map_err(sotto_models::Error::backend)?;
        per_matrix(&self.plan.rounds[round], tokens, &y)
    }

    fn more_to_come(&mut self) {
        self.more_to_come = true;
    }

    fn begin_pass(&mut self, tokens: usize) -> sotto_models::Result<()> {
        self.take_slots(tokens).map_err(sotto_models::Error::backend)
    }

    fn end_pass(&mut self) {
        // Whatever the pass did not use is spent all the same: dropping a slot wipes it.
        self.slots.clear();
        self.hold = None;
        self.link.end_pass();
    }
}
