//! What a model's costs follow from.

use sotto_models::families::ModelKind;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::{PlanKind, SplitPlan};

/// Sizes of one plan of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The plan.
    pub plan: PlanKind,
    /// Round trips per pass.
    pub rounds: usize,
    /// Remote weights: multiply-adds of the server per token.
    pub weights: usize,
    /// Rows of all rounds: words of a token's replies.
    pub rows: usize,
    /// Columns of all rounds: words of a token's bodies.
    pub features: usize,
    /// Weights that the client multiplies by in the clear: a tied head.
    pub clear_weights: usize,
    /// Bytes of the client part, some percent of small files apart.
    pub client_bytes: u64,
}

impl Shape {
    /// The sizes of plan `kind` of a model.
    ///
    /// # Errors
    /// If the family has no such plan, or the tokenizer cannot be written.
    pub fn of(source: &ModelSource, kind: PlanKind) -> sotto_models::Result<Self> {
        let plan = source.config.plan(kind)?;
        let (vocab, width) = (source.config.vocab_size, source.config.hidden_size);
        // Int8 blocks of 32 with a two-byte scale each, for encoders f32; scales of rows and columns are f32.
        let embedding = match source.config.kind() {
            ModelKind::Decoder => vocab * width.next_multiple_of(32) / 32 * 34,
            ModelKind::Encoder | ModelKind::Predictor => vocab * width * 4,
        };
        let tokenizer = source.tokenizer.to_json()?.len();
        let clear_weights = source.config.tied_head().map_or(0, |(rows, width)| rows * width);
        let shape = Self::of_plan(&plan, clear_weights, 0);
        let scales = 4 * (shape.rows + shape.features);
        Ok(Self { client_bytes: (embedding + scales + tokenizer) as u64, ..shape })
    }

    /// The sizes of a plan whose client part is known.
    pub fn of_plan(plan: &SplitPlan, clear_weights: usize, client_bytes: u64) -> Self {
        Self {
            plan: plan.kind,
            rounds: plan.rounds.len(),
            weights: plan.weights(),
            rows: plan.rows(),
            features: plan.rounds.iter().map(|round| round.d_in).sum(),
            clear_weights,
            client_bytes,
        }
    }
}
