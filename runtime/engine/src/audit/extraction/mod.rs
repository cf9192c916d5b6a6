//! How few tokens give a layer's weights away: both known attacks, run against a real layer.
//!
//! Every scheme that returns `W x` discloses `W` to a client that asks long enough. *Chosen bodies* ask for four int8
//! weights of every row at a time, `d_in / 4` tokens; *honest traffic* is what any client sends, and about `d_in` tokens
//! of it are as many equations as unknowns. A server can tell neither from a conversation.
//!
//! Both run against the layer's real weights, tables and ciphertexts at the split's parameters, client and server in this
//! process.

mod chosen;
mod chosen_words;
mod honest;
mod layer;
mod least_squares;

use fhe_layers::{Widths, WireForm};
use serde::Serialize;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::{PlanKind, PlanRound, SplitPlan};
use sotto_models::split::{ClientPart, ServerPart};

use self::honest::Source;
use self::layer::LayerServer;
use crate::embedded::LocalModel;
use sotto_protocol::error::{Error, Result};
use sotto_storage::FetchProgress;

/// What to attack, and with what.
#[derive(Clone, Debug)]
pub struct ExtractionOptions {
    /// Name of a round or of one of its matrices.
    pub layer: String,
    /// Honest tokens; twice the layer's inputs when absent.
    pub tokens: Option<usize>,
    /// What the honest client reads; it answers `prompts` when absent.
    pub text: Option<String>,
    /// What the honest client answers.
    pub prompts: Vec<String>,
}

/// What both attacks found.
#[derive(Clone, Debug, Serialize)]
pub struct Extraction {
    /// Name of the model.
    pub model: String,
    /// Round plan.
    pub plan: String,
    /// Name of the round.
    pub layer: String,
    /// Parameter set.
    pub params: String,
    /// Its security in bits, classical.
    pub security_bits: u32,
    /// Inputs of the layer.
    pub d_in: usize,
    /// Outputs of all its matrices.
    pub rows: usize,
    /// Int8 weights of all its matrices.
    pub weights: usize,
    /// Chosen bodies in the full form.
    pub chosen: Chosen,
    /// Chosen bodies in the other wire forms.
    pub chosen_by_form: Vec<ChosenInForm>,
    /// Honest traffic, after growing numbers of tokens.
    pub honest: Vec<Honest>,
    /// Honest tokens after which every weight was known, the first of those tried; `null` when none was.
    pub honest_tokens: Option<usize>,
    /// What the whole model takes, per plan.
    pub whole_model: Vec<WholeModel>,
}

/// The outcome of chosen bodies.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// Body tokens used; no mask slot.
    pub tokens: usize,
    /// Weights recovered exactly.
    pub recovered: usize,
    /// Share of all weights.
    pub fraction: f64,
}

/// The outcome of chosen bodies in one wire form.
#[derive(Clone, Debug, Serialize)]
pub struct ChosenInForm {
    /// The form with its widths.
    pub wire: String,
    /// What they gave; in the lean form each body token is a mask slot as well.
    #[serde(flatten)]
    pub chosen: Chosen,
}

/// What least squares over honest traffic knew.
#[derive(Clone, Debug, Serialize)]
pub struct Honest {
    /// Tokens observed: as many mask slots and body tokens.
    pub tokens: usize,
    /// Root of the mean square error over that of the weights, before rounding.
    pub relative_error: f64,
    /// Weights that rounding gives exactly.
    pub recovered: usize,
    /// Share of all weights.
    pub fraction: f64,
}

/// Tokens that the whole model takes: its rounds are asked side by side, so the widest counts.
#[derive(Clone, Debug, Serialize)]
pub struct WholeModel {
    /// Round plan.
    pub plan: String,
    /// Inputs of the widest round.
    pub widest: usize,
    /// Tokens of chosen bodies in the full form.
    pub chosen_tokens: usize,
    /// The same in the lean and stateless forms: slots.
    pub chosen_slots: usize,
}

/// Runs both attacks against one layer of `local`.
///
/// # Errors
/// [`Error::Usage`] for an unknown layer or too short a text; what reading the split or running the layer fails with.
pub fn extraction(
    local: &LocalModel,
    options: &ExtractionOptions,
    progress: &dyn FetchProgress,
) -> Result<Extraction> {
    let server_part = ServerPart::open(local.server_directory())?;
    let client_part = ClientPart::load(local.client_directory())?.part;
    let plan = server_part.plan();
    let round = find_round(plan, &options.layer)?;
    let spec = &plan.rounds[round];
    let matrices = server_part.round(round)?;

    progress.begin("preparing the layer", None, false);
    let server = LayerServer::new(&server_part, round)?;
    progress.end();
    progress.begin("chosen bodies", None, false);
    let (chosen_tokens, found) = chosen::recover(&server)?;
    progress.end();
    let recovered = exact(spec, &matrices, &found);
    let mut chosen_by_form = Vec::new();
    for form in [WireForm::Lean(Widths::DEFAULT), WireForm::stateless()] {
        let Some(widths) = form.widths() else { continue };
        progress.begin(&format!("chosen bodies, {} form", form.name()), None, false);
        let (tokens, found) = chosen_words::recover(&server, form, widths)?;
        progress.end();
        let recovered = exact(spec, &matrices, &found);
        let fraction = recovered as f64 / spec.weights() as f64;
        chosen_by_form
            .push(ChosenInForm { wire: form.to_string(), chosen: Chosen { tokens, recovered, fraction } });
    }

    let tokens = options.tokens.unwrap_or(2 * spec.d_in);
    let prompts: Vec<&str> = options.prompts.iter().map(String::as_str).collect();
    let source = options.text.as_deref().map_or(Source::Prompts(&prompts), Source::Text);
    progress.begin("honest traffic", Some((tokens * spec.d_in) as u64), false);
    let inputs = honest::inputs(&client_part, &server_part, round, tokens, &source, progress)?;
    progress.end();
    progress.begin("honest traffic, encrypted", Some(tokens as u64), false);
    let observed = honest::observe(&server, &client_part.scales[round], &inputs, progress)?;
    progress.end();
    progress.begin("least squares", None, false);
    let truth: Vec<_> = spec.matrices.iter().zip(&matrices).collect();
    let truth: Vec<_> =
        truth.iter().map(|(spec, matrix)| (spec.columns.clone(), matrix.weights.as_slice())).collect();
    let honest: Vec<Honest> = observed.points(&truth, progress).into_iter().map(Honest::from).collect();
    progress.end();

    let params = sotto_protocol::binding::params(&server_part.manifest().protocol)?;
    Ok(Extraction {
        model: local.name.clone(),
        plan: plan.kind.to_string(),
        layer: spec.name.clone(),
        params: params.id().to_owned(),
        security_bits: params.security_bits(),
        d_in: spec.d_in,
        rows: spec.rows(),
        weights: spec.weights(),
        chosen: Chosen {
            tokens: chosen_tokens,
            recovered,
            fraction: recovered as f64 / spec.weights() as f64,
        },
        chosen_by_form,
        honest_tokens: honest
            .iter()
            .find(|point| point.recovered == spec.weights())
            .map(|point| point.tokens),
        honest,
        whole_model: whole_model(local, plan)?,
    })
}

/// The round of that name, or the one that holds the matrix of that name.
fn find_round(plan: &SplitPlan, layer: &str) -> Result<usize> {
    let named =
        |round: &PlanRound| round.name == layer || round.matrices.iter().any(|matrix| matrix.name == layer);
    plan.rounds.iter().position(named).ok_or_else(|| {
        let some: Vec<&str> = plan.rounds.iter().take(4).map(|round| round.name.as_str()).collect();
        Error::Usage(format!(
            "no layer {layer:?} among the {} rounds of the {} plan: they are called {}, ...",
            plan.rounds.len(),
            plan.kind,
            some.join(", ")
        ))
    })
}

/// How many of the weights `found`, `[rows, d_in]`, are those of the matrices.
fn exact(spec: &PlanRound, matrices: &[sotto_models::split::IntMatrix], found: &[i8]) -> usize {
    let mut rows = found.chunks_exact(spec.d_in);
    let mut count = 0;
    for (spec, matrix) in spec.matrices.iter().zip(matrices) {
        for (truth, found) in matrix.weights.chunks_exact(matrix.cols).zip(rows.by_ref()) {
            count += truth.iter().zip(&found[spec.columns.clone()]).filter(|(a, b)| a == b).count();
        }
    }
    count
}

impl From<honest::Point> for Honest {
    fn from(point: honest::Point) -> Self {
        let score = point.score;
        Self {
            tokens: point.tokens,
            relative_error: (score.square_error / score.square.max(1.0)).sqrt(),
            recovered: score.rounded,
            fraction: score.rounded as f64 / score.weights.max(1) as f64,
        }
    }
}

/// What this plan and the other one take, where the family has it.
fn whole_model(local: &LocalModel, plan: &SplitPlan) -> Result<Vec<WholeModel>> {
    let source = ModelSource::open(&local.source)?;
    let family = &source.config;
    let of = |plan: &SplitPlan| {
        let widest = plan.rounds.iter().map(|round| round.d_in).max().unwrap_or(0);
        WholeModel {
            plan: plan.kind.to_string(),
            widest,
            chosen_tokens: chosen::queries(widest),
            chosen_slots: chosen_words::queries(widest),
        }
    };
    let mut plans = vec![of(plan)];
    let other = if plan.kind == PlanKind::Plain { PlanKind::Fused } else { PlanKind::Plain };
    // A family without the other plan has one line.
    plans.extend(family.plan(other).ok().as_ref().map(of));
    plans.sort_by_key(|plan| plan.chosen_tokens);
    Ok(plans)
}
