//! `--bin llm`: the linear layers of a model's blocks, random weights, client and server in one process on all cores.
//!
//! Nothing but cryptography and products is timed: making a batch, its masks and their decryption, then encryption,
//! product and decoding of every token and round, with all serialized forms in between. The tied head stays on the
//! client and outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use candle_core::{Device, Tensor};
use fhe_layers::{
    Body, Client, ClientOptions, ClientSession, EvaluationKeys, ExpandedKeys, Instance, LeanBatch, MaskBlock,
    MaskJob, MaskWords, NoiseRng, PrepareOptions, PreparedModel, RawMatrix, RawRound, Reply, ServerSession,
    ServerWeights, SessionSeed, Slot, TableForm, Widths, WireForm, WordBody, WordQuery, WordReply, WordsJob,
    body_half, word_half,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};
use sotto_client::WirePreference;
use sotto_engine::backend::Int8Backend;
use sotto_models::linear::LinearBackend;
use sotto_models::split::IntMatrix;
use sotto_models::split::RoundScales;
use sotto_models::split::plan::{PlanKind, PlanRound, SplitPlan};

use crate::accounting::bytes_by_layer;
use crate::check::Checks;
use crate::memory::{forget_peak, peak_bytes, resident_bytes};

/// What to run.
#[derive(Clone, Debug)]
pub struct LlmBench {
    /// `gpt2`, `smollm2-135m` or `llama-3.2-1b`.
    pub shape: String,
    /// Tokens to run.
    pub tokens: usize,
    /// Tokens per batch of masks.
    pub tau: usize,
    /// Wire form.
    pub wire: WirePreference,
}

/// Tables above this size are kept in compact form.
const MAX_NTT_TABLE_BYTES: usize = 8 << 30;

/// Relative error above which a result counts as wrong; the protocol is near 2^-17.
const TOLERANCE: f64 = 1.0 / 4096.0;

/// Rounds of a shape in the plain plan.
///
/// # Errors
/// If the name is unknown.
pub fn plan(shape: &str) -> anyhow::Result<SplitPlan> {
    let rounds = match shape {
        "gpt2" => (0..12).flat_map(|block| gpt2_block(block, 768)).collect(),
        "smollm2-135m" => (0..30).flat_map(|block| llama_block(block, 576, 192, 1536)).collect(),
        "llama-3.2-1b" => (0..16).flat_map(|block| llama_block(block, 2048, 512, 8192)).collect(),
        other => bail!("unknown shape {other:?}; there are gpt2, smollm2-135m and llama-3.2-1b"),
    };
    Ok(SplitPlan { kind: PlanKind::Plain, rounds })
}

fn llama_block(block: usize, hidden: usize, kv: usize, ff: usize) -> [PlanRound; 4] {
    let name = |part: &str| format!("blk.{block}.{part}");
    let whole = |part: &str, rows, d_in| (name(part), rows, 0..d_in);
    [
        PlanRound::new(
            name("qkv"),
            hidden,
            [whole("q", hidden, hidden), whole("k", kv, hidden), whole("v", kv, hidden)],
        ),
        PlanRound::new(name("output"), hidden, [whole("o", hidden, hidden)]),
        PlanRound::new(name("gate_up"), hidden, [whole("gate", ff, hidden), whole("up", ff, hidden)]),
        PlanRound::new(name("ffn"), ff, [whole("down", hidden, ff)]),
    ]
}

fn gpt2_block(block: usize, hidden: usize) -> [PlanRound; 4] {
    let name = |part: &str| format!("blk.{block}.{part}");
    let whole = |part: &str, rows, d_in| (name(part), rows, 0..d_in);
    [
        PlanRound::new(
            name("qkv"),
            hidden,
            [whole("q", hidden, hidden), whole("k", hidden, hidden), whole("v", hidden, hidden)],
        ),
        PlanRound::new(name("output"), hidden, [whole("o", hidden, hidden)]),
        PlanRound::new(name("fc"), hidden, [whole("up", 4 * hidden, hidden)]),
        PlanRound::new(name("ffn"), 4 * hidden, [whole("down", hidden, 4 * hidden)]),
    ]
}

/// Random weights of a round's matrices, the same for every call.
fn matrices(plan: &SplitPlan, round: usize) -> Vec<IntMatrix> {
    let spec = &plan.rounds[round];
    let mut rng = StdRng::seed_from_u64(round as u64);
    spec.matrices
        .iter()
        .map(|matrix| {
            let cols = matrix.columns.len();
            let mut bytes = vec![0_u8; matrix.rows * cols];
            rng.fill_bytes(&mut bytes);
            let weights = bytes.into_iter().map(|byte| byte.cast_signed().max(-127)).collect();
            IntMatrix { rows: matrix.rows, cols, weights }
        })
        .collect()
}

fn largest_norm(matrices: &[IntMatrix]) -> f64 {
    let norms = matrices.iter().flat_map(|matrix| {
        matrix
            .weights
            .chunks_exact(matrix.cols)
            .map(|row| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt())
    });
    norms.fold(0.0, f64::max)
}

/// The server's side.
struct Server {
    weights: Arc<ServerWeights>,
    tables: PreparedModel,
}

impl Server {
    fn new(instance: &Arc<Instance>, plan: &SplitPlan) -> anyhow::Result<Self> {
        let all: Vec<_> = (0..plan.rounds.len()).map(|round| matrices(plan, round)).collect();
        let raw: Vec<_> =
            plan.rounds.iter().zip(&all).map(|(spec, matrices)| raw_round(spec, matrices)).collect();
        let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
        drop(all);
        let ntt_bytes = instance.layout().blocks() * instance.params().phi() * 2 * 8 * instance.params().n();
        let form = if ntt_bytes > MAX_NTT_TABLE_BYTES { TableForm::Compact } else { TableForm::Ntt };
        let progress = |done, all| {
            eprint!("\rpreparing {done} of {all} blocks");
            true
        };
        let options = PrepareOptions { progress: &progress };
        let tables = PreparedModel::prepare(Arc::clone(instance), Arc::clone(&weights), form, &options)?;
        eprintln!();
        Ok(Self { weights, tables })
    }

    /// What a batch of a session sends ahead, one buffer per block, and what is kept of it.
    fn words(&self, session: &ServerSession, keys: &[u8]) -> anyhow::Result<(Vec<Vec<u8>>, LeanBatch)> {
        let instance = self.tables.instance();
        let keys = ExpandedKeys::for_session(instance, &EvaluationKeys::from_bytes(instance.params(), keys)?);
        let jobs = [WordsJob::new(&keys, session)?];
        let blocks = instance.layout().blocks();
        let done = std::sync::Mutex::new(Vec::with_capacity(blocks));
        self.tables.mask_words(&jobs, 0..blocks, &|| true, &|_, block, words| {
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((block, words));
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(block, _)| *block);
        let (mut sent, mut kept) = (Vec::new(), LeanBatch::new(instance));
        for (block, words) in &done {
            if session.form().keeps_words() {
                kept.words.store(*block, words)?;
            } else {
                let mut bytes = Vec::new();
                words.write(&mut bytes);
                sent.push(bytes);
            }
        }
        Ok((sent, kept))
    }

    /// The serialized masks of a batch, one buffer per block.
    fn masks(&self, keys: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
        let instance = self.tables.instance();
        let keys = ExpandedKeys::new(instance, &EvaluationKeys::from_bytes(instance.params(), keys)?);
        let jobs = [MaskJob { keys: &keys, seed: rand::random() }];
        let blocks = instance.layout().blocks();
        let masks: Vec<std::sync::OnceLock<Vec<u8>>> =
            (0..blocks).map(|_| std::sync::OnceLock::new()).collect();
        self.tables.mask_half(&jobs, 0..blocks, &|| true, &|_, block, mask| {
            // Each block is delivered once.
            let _ = masks[block].set(mask.bytes().into_owned());
        })?;
        masks.into_iter().map(|mask| mask.into_inner().context("a mask block is missing")).collect()
    }

    /// The reply to a body of a session form; `kept` and the slot in the lean form.
    fn word_body(
        &self,
        widths: Widths,
        round: usize,
        d_in: usize,
        body: &[u8],
        kept: Option<(&LeanBatch, usize)>,
    ) -> anyhow::Result<Vec<u8>> {
        let layout = self.tables.instance().layout();
        let words = match kept {
            Some((batch, slot)) => Some(batch.claim(layout, slot, round, body)?.1),
            None => None,
        };
        let body = WordBody::from_bytes(widths, d_in, body)?;
        Ok(word_half(&self.weights, round, &[WordQuery { body: &body, words }], widths)?[0].to_bytes())
    }

    fn body(&self, round: usize, d_in: usize, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let replies = body_half(&self.weights, round, &[Body::from_bytes(d_in, body)?])?;
        Ok(replies[0].to_bytes())
    }
}

fn raw_round<'a>(spec: &PlanRound, matrices: &'a [IntMatrix]) -> RawRound<'a> {
    let matrices = spec.matrices.iter().zip(matrices);
    RawRound {
        matrices: matrices
            .map(|(spec, matrix)| RawMatrix { columns: spec.columns.clone(), weights: &matrix.weights })
            .collect(),
    }
}

#[derive(Default)]
struct Cost {
    batch: Duration,
    masks: Duration,
    accept: Duration,
    encrypt: Duration,
    body: Duration,
    decode: Duration,
    up: usize,
    down: usize,
    ahead: usize,
    keys: usize,
    session: usize,
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}

/// Both sides of a session; `None` in the full form.
type Session = Option<(ClientSession, ServerSession)>;

fn open_session(
    client: &Client,
    server: &Server,
    wire: WireForm,
    cost: &mut Cost,
) -> anyhow::Result<Session> {
    if wire == WireForm::Full {
        return Ok(None);
    }
    let instance = client.instance();
    let seed = SessionSeed::from_os()?;
    let serving = ServerSession::new(instance, wire, &rand::random(), b"bench", seed)?;
    let masks = server.tables.shared_masks(&serving, 0..instance.layout().blocks())?.concat();
    cost.session = masks.len();
    Ok(Some((ClientSession::from_masks(Arc::clone(instance), wire, seed, masks, None)?, serving)))
}

/// Makes the slots of one batch, first one last; in the lean form with what the server keeps of it.
fn slots(
    client: &Client,
    server: &Server,
    session: &Session,
    cost: &mut Cost,
) -> anyhow::Result<(Vec<Slot>, Option<LeanBatch>)> {
    let params = client.instance().params();
    if let Some((ours, theirs)) = session {
        let mut batch = timed(&mut cost.batch, || client.new_session_batch(ours))?;
        let keys = batch.keys().to_bytes(params);
        cost.keys += keys.len();
        let (sent, kept) = timed(&mut cost.masks, || server.words(theirs, &keys))?;
        let mut slots = timed(&mut cost.accept, || {
            for (block, bytes) in sent.iter().enumerate() {
                cost.ahead += bytes.len();
                batch.accept_mask_words(block, &MaskWords::read_all(params, ours.form(), bytes)?)?;
            }
            Ok::<_, anyhow::Error>(batch.into_slots()?)
        })?;
        slots.reverse();
        return Ok((slots, ours.form().keeps_words().then_some(kept)));
    }
    let mut batch = timed(&mut cost.batch, || client.new_batch())?;
    let keys = batch.keys().to_bytes(params);
    cost.keys += keys.len();
    let masks = timed(&mut cost.masks, || server.masks(&keys))?;
    timed(&mut cost.accept, || {
        for (block, bytes) in masks.iter().enumerate() {
            cost.ahead += bytes.len();
            batch.accept_masks(block, &MaskBlock::read_all(params, bytes)?)?;
        }
        Ok(batch.into_slots()?)
    })
    .map(|slots| (slots, None))
}

/// Runs the measurement on the current rayon pool.
///
/// # Errors
/// Whatever the layers fail with.
pub fn run(bench: &LlmBench, checks: &mut Checks) -> anyhow::Result<Value> {
    let LlmBench { ref shape, tokens, tau, wire } = *bench;
    let plan = plan(shape)?;
    let binding = sotto_protocol::binding::binding(tau)?;
    let instance = Arc::new(sotto_protocol::binding::instance(&plan, &binding, [7; 32])?);
    let empty = resident_bytes("self").unwrap_or(0);
    let prepare = Instant::now();
    let server = Server::new(&instance, &plan)?;
    let prepare_seconds = prepare.elapsed().as_secs_f64();
    let server_peak = peak_bytes("self").map(|peak| peak.saturating_sub(empty));
    let serving = resident_bytes("self").unwrap_or(0);
    forget_peak("self");
    let norms: Vec<f64> = (0..plan.rounds.len()).map(|round| largest_norm(&matrices(&plan, round))).collect();
    let client = Client::new(Arc::clone(&instance), ClientOptions::default());
    let mut rng = StdRng::seed_from_u64(1);
    let inputs: Vec<Vec<f32>> = plan
        .rounds
        .iter()
        .map(|round| (0..round.d_in).map(|_| rng.random_range(-1.0..1.0)).collect())
        .collect();

    let mut cost = Cost::default();
    let mut noise = NoiseRng::from_os()?;
    let mut worst = 0.0_f64;
    let (mut ready, mut kept) = (Vec::new(), None);
    let wire = wire.on_this_machine(instance.params());
    let session = open_session(&client, &server, wire, &mut cost)?;
    let begin = Instant::now();
    let mut checking = Duration::ZERO;
    for token in 0..tokens {
        if ready.is_empty() {
            (ready, kept) = slots(&client, &server, &session, &mut cost)?;
        }
        let number = tau - ready.len();
        let mut slot = ready.pop().context("a batch has slots")?;
        for (round, spec) in plan.rounds.iter().enumerate() {
            let (x, norm) = (&inputs[round], norms[round]);
            let mut y = vec![0.0; spec.rows()];
            let (body, reply) = if let Some(widths) = wire.widths() {
                let (body, pending) =
                    timed(&mut cost.encrypt, || slot.encrypt_words(round, x, norm, &mut noise))?;
                let body = body.to_bytes();
                let kept = kept.as_ref().map(|batch| (batch, number));
                let reply =
                    timed(&mut cost.body, || server.word_body(widths, round, spec.d_in, &body, kept))?;
                timed(&mut cost.decode, || {
                    pending.decode_words(&WordReply::from_bytes(widths, spec.rows(), &reply)?, &mut y)
                })?;
                (body, reply)
            } else {
                let (body, pending) = timed(&mut cost.encrypt, || slot.encrypt(round, x, norm, &mut noise))?;
                let body = body.to_bytes();
                let reply = timed(&mut cost.body, || server.body(round, spec.d_in, &body))?;
                timed(&mut cost.decode, || pending.decode(&Reply::from_bytes(spec.rows(), &reply)?, &mut y))?;
                (body, reply)
            };
            cost.up += body.len();
            cost.down += reply.len();
            if token == 0 {
                let start = Instant::now();
                worst = worst.max(relative_error(&matrices(&plan, round), spec, &inputs[round], &y));
                checking += start.elapsed();
            }
        }
    }
    let seconds = (begin.elapsed() - checking).as_secs_f64() / tokens as f64;
    let client_peak = peak_bytes("self").map(|peak| peak.saturating_sub(serving));
    checks.at_most("relative error of the results", worst, TOLERANCE);
    let table_bytes = server.tables.table_bytes();
    let (form, weight_bytes) = (server.tables.form(), server.weights.bytes());
    drop((server, client, ready));
    let clear = clear_int8(&plan, &norms, &inputs, tokens)?;
    let per = |bytes: usize| bytes as f64 / tokens as f64;
    // Masks come in whole batches; a run of another length would count tokens that were not run.
    let batches = tokens.div_ceil(tau) * tau;
    let ahead = |bytes: usize| bytes as f64 / batches as f64;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3 / tokens as f64;
    Ok(json!({
        "shape": shape,
        "tokens": tokens,
        "tokens_per_batch": tau,
        "weights": plan.weights(),
        "rows": plan.rows(),
        "tables": format!("{form:?}").to_lowercase(),
        "prepare_seconds": prepare_seconds,
        "encrypted_seconds_per_token": seconds,
        "clear_int8_seconds_per_token": clear,
        "bytes_per_token": {
            "up": per(cost.up),
            "down": per(cost.down),
            "ahead": ahead(cost.ahead),
            "keys": ahead(cost.keys),
            "total": per(cost.up) + per(cost.down) + ahead(cost.ahead) + ahead(cost.keys),
        },
        "bytes_by_layer": bytes_by_layer(&plan, wire),
        "wire": wire.to_string(),
        "session_bytes": cost.session,
        "ms_per_token": {
            "new_batch": ms(cost.batch),
            "mask_half": ms(cost.masks),
            "accept_masks": ms(cost.accept),
            "encrypt": ms(cost.encrypt),
            "body_half": ms(cost.body),
            "decode": ms(cost.decode),
        },
        "peak_bytes": { "server": server_peak, "client": client_peak },
        "server_bytes": { "weights": weight_bytes, "tables": table_bytes },
        "relative_error": worst,
    }))
}

/// Root mean square of the error against products in f64, relative to the results'.
fn relative_error(matrices: &[IntMatrix], spec: &PlanRound, x: &[f32], y: &[f32]) -> f64 {
    let (mut error, mut size, mut row) = (0.0, 0.0, 0);
    for (matrix, columns) in matrices.iter().zip(spec.matrices.iter().map(|matrix| matrix.columns.clone())) {
        let x = &x[columns];
        for weights in matrix.weights.chunks_exact(matrix.cols) {
            let exact: f64 = weights.iter().zip(x).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum();
            error += (f64::from(y[row]) - exact).powi(2);
            size += exact.powi(2);
            row += 1;
        }
    }
    (error / size).sqrt()
}

/// Seconds per token of the same products in clear int8.
fn clear_int8(plan: &SplitPlan, norms: &[f64], inputs: &[Vec<f32>], tokens: usize) -> anyhow::Result<f64> {
    let scales: Vec<_> = plan
        .rounds
        .iter()
        .zip(norms)
        .map(|(round, &max_row_norm)| RoundScales {
            column_scale: vec![1.0; round.d_in],
            row_scale: round.matrices.iter().map(|matrix| vec![1.0; matrix.rows]).collect(),
            max_row_norm,
        })
        .collect();
    let mut backend = Int8Backend::from_rounds(plan, &scales, |round| Ok(matrices(plan, round)))?;
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|x| Tensor::from_slice(x, (1, x.len()), &Device::Cpu))
        .collect::<candle_core::Result<_>>()?;
    let mut pass = || inputs.iter().enumerate().try_for_each(|(round, x)| backend.round(round, x).map(drop));
    pass()?;
    let begin = Instant::now();
    for _ in 0..tokens {
        pass()?;
    }
    Ok(begin.elapsed().as_secs_f64() / tokens as f64)
}
