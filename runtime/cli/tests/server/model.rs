//! The test model's instance and products in plain arithmetic.

use std::sync::Arc;

use crate::server_support::{TAU, plan, weights};
use fhe_layers::{Instance, Params};

pub(crate) fn params() -> Params {
    fhe_layers::params::sets::n2048_q50_tau(TAU).unwrap()
}

pub(crate) fn instance(digest: [u8; 32]) -> Arc<Instance> {
    let binding = sotto_protocol::binding::binding(TAU).unwrap();
    Arc::new(sotto_protocol::binding::instance(&plan(), &binding, digest).unwrap())
}

/// `W x` of a round.
pub(crate) fn product(round: usize, x: &[f32]) -> Vec<f64> {
    let plan = plan();
    let before: usize = plan.rounds[..round].iter().map(|round| round.matrices.len()).sum();
    let mut out = Vec::new();
    for (offset, matrix) in plan.rounds[round].matrices.iter().enumerate() {
        let columns = matrix.columns.clone();
        let rows = weights(before + offset, matrix.rows * columns.len());
        for row in rows.chunks_exact(columns.len()) {
            out.push(row.iter().zip(&x[columns.clone()]).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum());
        }
    }
    out
}
