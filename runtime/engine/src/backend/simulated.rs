//! The encrypted path without ciphertexts: exact products plus noise of the documented variance.

use std::sync::Arc;

use candle_core::Tensor;
use fhe_layers::simulate::{SimulateMode, Simulated};
use fhe_layers::{Instance, RawMatrix, RawRound, ServerWeights, WireForm};
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::check_input;
use sotto_models::split::ServerPart;
use sotto_models::split::plan::SplitPlan;

use sotto_client::scales::{RoundScales, per_matrix, values};
use sotto_protocol::error::Result;

/// Clear products with simulated noise.
pub struct SimulatedBackend {
    plan: SplitPlan,
    scales: Vec<RoundScales>,
    simulated: Simulated,
}

impl SimulatedBackend {
    /// A simulator of `instance` with the weights of `server`, the scales of the client part and the noise of `form`.
    ///
    /// # Errors
    ///
    /// A damaged weights file, or shapes that do not fit each other.
    pub fn new(
        instance: Arc<Instance>,
        server: &ServerPart,
        scales: &[sotto_models::split::RoundScales],
        form: WireForm,
    ) -> Result<Self> {
        let plan = server.plan().clone();
        let scales = RoundScales::of_plan(&plan, scales)?;
        let matrices = (0..plan.rounds.len())
            .map(|round| server.round(round))
            .collect::<sotto_models::Result<Vec<_>>>()?;
        let rounds: Vec<_> = plan
            .rounds
            .iter()
            .zip(&matrices)
            .map(|(round, matrices)| RawRound {
                matrices: round
                    .matrices
                    .iter()
                    .zip(matrices)
                    .map(|(spec, matrix)| RawMatrix {
                        columns: spec.columns.clone(),
                        weights: &matrix.weights,
                    })
                    .collect(),
            })
            .collect();
        let weights = Arc::new(ServerWeights::new(instance.layout(), &rounds)?);
        Ok(Self {
            plan,
            scales,
            simulated: Simulated::with_form(instance, weights, SimulateMode::Noisy, form)?,
        })
    }

    fn products(&mut self, round: usize, x: &[f32]) -> Result<Vec<f32>> {
        let spec = &self.plan.rounds[round];
        let scales = &self.scales[round];
        let rows = spec.rows();
        let mut scaled = vec![0.0; spec.d_in];
        let mut y = vec![0.0; x.len() / spec.d_in * rows];
        for (x, y) in x.chunks_exact(spec.d_in).zip(y.chunks_exact_mut(rows)) {
            scales.scale_columns(x, &mut scaled);
            self.simulated.round(round, &scaled, scales.max_row_norm, y)?;
            scales.scale_rows(y);
        }
        Ok(y)
    }
}

impl LinearBackend for SimulatedBackend {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        check_input(&self.plan, round, input)?;
        let (tokens, _) = input.dims2()?;
        let y = self.products(round, &values(input)?).map_err(sotto_models::Error::backend)?;
        per_matrix(&self.plan.rounds[round], tokens, &y)
    }

    fn begin_pass(&mut self, _tokens: usize) -> sotto_models::Result<()> {
        Ok(())
    }

    fn end_pass(&mut self) {}
}
