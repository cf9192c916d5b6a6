//! Honest traffic: a client that does what every client does, and keeps its inputs and results.

use candle_core::Tensor;
use fhe_layers::noise::bounds;
use fhe_layers::{Client, ClientOptions, NoiseRng, Params, Reply};
use sotto_models::generate::sampler::{Sampler, SamplerConfig};
use sotto_models::linear::LinearBackend;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::model::CausalModel;
use sotto_models::split::{ClientPart, RoundScales, ServerPart};
use sotto_models::tokenizer::Tokenizer;

use super::layer::LayerServer;
use super::least_squares::{NormalEquations, Score};
use crate::backend::{Int8Backend, backend_error};
use crate::session::MAX_PASS_TOKENS;
use sotto_protocol::error::{Error, Result};
use sotto_storage::FetchProgress;

/// Tokens of text that the model reads in one context.
const CONTEXT: usize = 1024;

/// Tokens of one answer at most.
const ANSWER_TOKENS: usize = 200;

/// Shares of `d_in` after which the weights are computed.
const POINTS: [f64; 8] = [0.5, 0.75, 1.0, 1.0625, 1.125, 1.25, 1.5, 2.0];

/// Inputs and decoded results of one layer, by column, each token divided by its input's norm: then every token's noise is
/// alike.
pub(super) struct Observed {
    /// `[d_in][tokens]`
    x: Vec<Vec<f64>>,
    /// `[rows][tokens]`
    y: Vec<Vec<f64>>,
    /// Variance of the noise of one result over that of one weight.
    ridge: f64,
}

/// Inputs of round `round`, `tokens` of them, `[tokens, d_in]`, before column scales: while the model reads `text`, or
/// without one while it answers `prompts`.
///
/// # Errors
/// [`Error::Usage`] when the text has fewer tokens; what running the model fails with.
pub(super) fn inputs(
    part: &ClientPart,
    server: &ServerPart,
    round: usize,
    tokens: usize,
    source: &Source<'_>,
    progress: &dyn FetchProgress,
) -> Result<Vec<f32>> {
    let mut reader = Reader {
        model: part.causal_model(HeadPrecision::default())?,
        recorder: Recorder { inner: Int8Backend::new(server, &part.scales)?, round, inputs: Vec::new() },
        wanted: tokens * server.plan().rounds[round].d_in,
        tokenizer: &part.tokenizer,
    };
    match source {
        Source::Text(text) => reader.read(text, tokens, progress)?,
        Source::Prompts(prompts) => reader.converse(prompts, progress)?,
    }
    reader.recorder.inputs.truncate(reader.wanted);
    Ok(reader.recorder.inputs)
}

/// Where honest tokens come from.
pub(super) enum Source<'a> {
    /// The model reads this.
    Text(&'a str),
    /// The model answers these, over and over with other seeds.
    Prompts(&'a [&'a str]),
}

/// A model that computes in clear, like any client's but for the recorder.
struct Reader<'a> {
    model: Box<dyn CausalModel>,
    recorder: Recorder,
    /// Values to record.
    wanted: usize,
    tokenizer: &'a Tokenizer,
}

impl Reader<'_> {
    fn read(&mut self, text: &str, tokens: usize, progress: &dyn FetchProgress) -> Result<()> {
        let ids = self.tokenizer.encode(text)?;
        if ids.len() < tokens {
            let got = ids.len();
            return Err(Error::Usage(format!(
                "the text has {got} tokens, {tokens} are needed; give a longer one with --text or fewer with --tokens"
            )));
        }
        let context = CONTEXT.min(self.model.context_length());
        for context in ids[..tokens].chunks(context) {
            self.model.clear();
            for pass in context.chunks(MAX_PASS_TOKENS) {
                let model = &mut self.model;
                let run = |backend: &mut dyn LinearBackend| model.forward_all(pass, backend);
                sotto_models::linear::run_pass(&mut self.recorder, pass.len(), run).map_err(backend_error)?;
                progress.position(self.recorder.inputs.len() as u64);
            }
        }
        Ok(())
    }

    fn converse(&mut self, prompts: &[&str], progress: &dyn FetchProgress) -> Result<()> {
        let config = SamplerConfig { temperature: 1.0, ..SamplerConfig::default() };
        for (seed, prompt) in (0..).zip(prompts.iter().cycle()) {
            let mut sampler = Sampler::new(config.clone(), seed)?;
            let mut ids = self.tokenizer.encode(prompt)?;
            let mut next = ids.clone();
            self.model.clear();
            for _ in 0..ANSWER_TOKENS {
                let model = &mut self.model;
                let run = |backend: &mut dyn LinearBackend| model.forward(&next, backend);
                let logits = sotto_models::linear::run_pass(&mut self.recorder, next.len(), run);
                let mut logits = logits.map_err(backend_error)?.to_vec1::<f32>()?;
                progress.position(self.recorder.inputs.len() as u64);
                if self.recorder.inputs.len() >= self.wanted {
                    return Ok(());
                }
                let id = sampler.sample(&mut logits, &ids);
                if self.tokenizer.special().eos.contains(&id) {
                    break;
                }
                ids.push(id);
                next = vec![id];
            }
        }
        Err(Error::Internal("no prompts".to_owned()))
    }
}

/// Computes in clear and keeps one round's inputs.
struct Recorder {
    inner: Int8Backend,
    round: usize,
    inputs: Vec<f32>,
}

impl LinearBackend for Recorder {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        if round == self.round {
            self.inputs.extend(input.flatten_all()?.to_vec1::<f32>()?);
        }
        self.inner.round(round, input)
    }

    fn begin_pass(&mut self, tokens: usize) -> sotto_models::Result<()> {
        self.inner.begin_pass(tokens)
    }

    fn end_pass(&mut self) {
        self.inner.end_pass();
    }
}

/// Sends every input through the encrypted layer, one slot per token, and keeps what decoding gives.
///
/// # Errors
/// Of the layer.
pub(super) fn observe(
    server: &LayerServer,
    scales: &RoundScales,
    inputs: &[f32],
    progress: &dyn FetchProgress,
) -> Result<Observed> {
    let instance = server.instance();
    let round = instance.layout().round(0)?;
    let (d_in, rows, params) = (round.d_in, round.rows(), instance.params());
    let client = Client::new(std::sync::Arc::clone(instance), ClientOptions::default());
    let mut rng = NoiseRng::from_os()?;
    let ridge = ridge(params, d_in, scales.max_row_norm);
    let mut observed = Observed { x: vec![Vec::new(); d_in], y: vec![Vec::new(); rows], ridge };
    let mut done = 0;
    for tokens in inputs.chunks(d_in * params.tau()) {
        let mut batch = client.new_batch()?;
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        batch.accept_masks(0, &server.masks(&batch.keys().to_bytes(params), seed)?)?;
        let (mut bodies, mut pending) = (Vec::new(), Vec::new());
        for (mut slot, x) in batch.into_slots()?.into_iter().zip(tokens.chunks_exact(d_in)) {
            let x: Vec<f32> = x.iter().zip(&scales.column_scale).map(|(x, scale)| x * scale).collect();
            let (body, reply) = slot.encrypt(0, &x, scales.max_row_norm, &mut rng)?;
            bodies.extend(body.to_bytes());
            pending.push((reply, x));
        }
        let replies = server.answer(&bodies)?;
        let mut y = vec![0.0; rows];
        for ((reply, x), bytes) in
            pending.into_iter().zip(replies.chunks_exact(rows * fhe_layers::ciphertext::REPLY_WORD_BYTES))
        {
            reply.decode(&Reply::from_bytes(rows, bytes)?, &mut y)?;
            // The unit of the result's noise.
            let unit = scales.max_row_norm.max(1.0) * norm(&x);
            if unit > 0.0 {
                let divide = |(column, &value): (&mut Vec<f64>, &f32)| column.push(f64::from(value) / unit);
                observed.x.iter_mut().zip(&x).for_each(divide);
                observed.y.iter_mut().zip(&y).for_each(divide);
            }
        }
        done += tokens.len() / d_in;
        progress.position(done as u64);
    }
    Ok(observed)
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Variance of the documented noise of a result over `max_row_norm |x|`, divided by that of weights that share a row of
/// norm `max_row_norm` evenly.
fn ridge(params: &Params, d_in: usize, max_row_norm: f64) -> f64 {
    let reach = bounds::reach(params);
    let row_norm = max_row_norm.max(1.0);
    bounds::total_variance(params, row_norm) / (reach * reach) * d_in as f64 / (row_norm * row_norm)
}

/// What least squares makes of the first `tokens` tokens.
pub(super) struct Point {
    pub(super) tokens: usize,
    pub(super) score: Score,
}

impl Observed {
    /// Tokens in it.
    fn tokens(&self) -> usize {
        self.x.first().map_or(0, Vec::len)
    }

    /// Solves after growing numbers of tokens. `truth`: per matrix its columns and weights, `[rows, columns.len()]`.
    pub(super) fn points(
        &self,
        truth: &[(std::ops::Range<usize>, &[i8])],
        progress: &dyn FetchProgress,
    ) -> Vec<Point> {
        let d_in = self.x.len();
        let mut ends: Vec<usize> = POINTS.iter().map(|share| (share * d_in as f64) as usize).collect();
        ends.retain(|&end| end > 0 && end < self.tokens());
        ends.push(self.tokens());
        let mut equations: Vec<NormalEquations> = truth
            .iter()
            .map(|(columns, weights)| NormalEquations::new(columns.len(), weights.len() / columns.len()))
            .collect();
        let mut points = Vec::new();
        let mut start = 0;
        for (index, end) in ends.into_iter().enumerate() {
            let mut first_row = 0;
            let mut score = Score::default();
            for ((columns, weights), equations) in truth.iter().zip(&mut equations) {
                let rows = weights.len() / columns.len();
                let part = |all: &[Vec<f64>]| -> Vec<Vec<f64>> {
                    all.iter().map(|column| column[start..end].to_vec()).collect()
                };
                equations.add(&part(&self.x[columns.clone()]), &part(&self.y[first_row..first_row + rows]));
                score = score.and(equations.score(self.ridge, weights));
                first_row += rows;
            }
            points.push(Point { tokens: end, score });
            start = end;
            progress.position(index as u64 + 1);
        }
        points
    }
}
