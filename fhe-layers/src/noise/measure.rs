//! Test only: the formulas of [`super::bounds`] against the noise of real ciphertexts, and the numbers that
//! `docs/parameters.md` states.

use super::{bounds, failure};
use crate::client::{Client, ClientOptions, ExactMode};
use crate::params::sets::n2048_q50_tau;
use crate::params::{Params, security};
use crate::random::noise::NoiseRng;
use crate::server::{
    ExpandedKeys, MaskJob, PrepareOptions, PreparedModel, RawMatrix, RawRound, ServerWeights, TableForm,
    body_half,
};
use crate::{Error, Instance, MatrixSpec, ModelDigest, RoundSpec};
use std::sync::{Arc, Mutex};

/// Inputs of the measured layer.
const D_IN: usize = 1024;

/// Results of zero inputs for every token, `[tokens][rows]`: noise alone, on the scale of `u`.
fn noise_of_zeros(tau: usize, weights: &[i8], rows: usize) -> Vec<Vec<f32>> {
    let spec = RoundSpec { d_in: D_IN, matrices: vec![MatrixSpec { rows, columns: 0..D_IN }] };
    let params = n2048_q50_tau(tau).unwrap();
    let instance = Arc::new(Instance::new(params, vec![spec], ModelDigest([3; 32]), "plain").unwrap());
    let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..D_IN, weights }] }];
    let weights = Arc::new(ServerWeights::new(instance.layout(), &raw).unwrap());
    let options = PrepareOptions::default();
    let tables =
        PreparedModel::prepare(Arc::clone(&instance), Arc::clone(&weights), TableForm::Compact, &options)
            .unwrap();
    let mut batch = Client::new(Arc::clone(&instance), ClientOptions::default()).new_batch_seeded(11);
    let keys = ExpandedKeys::new(&instance, batch.keys());
    let masks = Mutex::new(Vec::new());
    let job = MaskJob { keys: &keys, seed: [2; 32] };
    tables
        .mask_half(&[job], 0..instance.layout().blocks(), &|| true, &|_, block, mask| {
            masks.lock().unwrap().push((block, mask));
        })
        .unwrap();
    for (block, mask) in masks.into_inner().unwrap() {
        batch.accept_masks(block, &[mask]).unwrap();
    }
    let mut rng = NoiseRng::from_seed(12);
    let decode = |mut slot: crate::Slot| {
        let (body, pending) = slot.encrypt(0, &[0.0; D_IN], 1.0, &mut rng).unwrap();
        let reply = body_half(&weights, 0, &[body]).unwrap().remove(0);
        let mut out = vec![0.0; rows];
        pending.decode(&reply, &mut out).unwrap();
        out
    };
    batch.into_slots().unwrap().into_iter().map(decode).collect()
}

/// Mean and variance of the chosen rows over all tokens.
fn moments(results: &[Vec<f32>], rows: impl Fn(usize) -> bool) -> (f64, f64) {
    let values: Vec<f64> = results
        .iter()
        .flat_map(|token| token.iter().enumerate().filter(|&(row, _)| rows(row)).map(|(_, &v)| f64::from(v)))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

#[test]
fn measured_noise_matches_the_formulas() {
    // Even rows are zero: no body noise. Odd rows are all +-127: norm 4064.
    let row_norm = 127.0 * (D_IN as f64).sqrt();
    for (tau, rows) in [(8, 512), (64, 64), (256, 32)] {
        let weight =
            |i: usize| if (i / D_IN).is_multiple_of(2) { 0 } else { 127 * (1 - 2 * (i * 7 % 13 % 2) as i8) };
        let weights: Vec<i8> = (0..rows * D_IN).map(weight).collect();
        let results = noise_of_zeros(tau, &weights, rows);
        let params = n2048_q50_tau(tau).unwrap();
        for (parity, norm) in [(0, 0.0), (1, row_norm)] {
            let (mean, variance) = moments(&results, |row| row % 2 == parity);
            let expected = bounds::total_variance(&params, norm);
            // 2048 samples and more: the estimate's deviation is about 3 %.
            let bits = (variance / expected).log2() / 2.0;
            assert!(bits.abs() < 0.1, "tau {tau}, norm {norm}: off by {bits:.3} bits");
            assert!(mean.abs() < 5.0 * (expected / 2048.0).sqrt(), "tau {tau}, norm {norm}: mean {mean:.0}");
        }
    }
}

/// Rms of int8 weights whose largest of a row of Gaussians is 127.
const RMS_WEIGHT: f64 = 37.0;

#[test]
fn documented_precision_holds() {
    for (tau, bits) in [(8, 19.9), (64, 21.3), (256, 22.2)] {
        let params = n2048_q50_tau(tau).unwrap();
        let rms = bounds::total_variance(&params, RMS_WEIGHT * 576f64.sqrt()).log2() / 2.0;
        assert!((rms - bits).abs() < 0.1, "tau {tau}: noise 2^{rms:.2}, documented 2^{bits}");
    }
    let params = n2048_q50_tau(64).unwrap();
    for (d_in, bits) in [(576, 18.1), (2048, 17.1)] {
        let snr = bounds::snr_bits(&params, d_in, RMS_WEIGHT);
        assert!((snr - bits).abs() < 0.1, "d_in {d_in}: {snr:.2} bits, documented {bits}");
    }
    // No tau, width and weights make an output wrap.
    for tau in [8, 16, 32, 64, 128, 256] {
        let params = n2048_q50_tau(tau).unwrap();
        let worst = failure::log2_wrap(&params, 127.0 * 32768f64.sqrt());
        assert!(worst < -1000.0, "tau {tau}: 2^{worst}");
    }
}

#[test]
fn exact_mode_states_its_limit_and_failure() {
    let spec = RoundSpec { d_in: 2048, matrices: vec![MatrixSpec { rows: 1, columns: 0..2048 }] };
    let params = n2048_q50_tau(64).unwrap();
    let instance = Instance::new(params.clone(), vec![spec], ModelDigest([3; 32]), "plain").unwrap();
    let norm = 37.0 * 2048f64.sqrt();
    let exact = ExactMode::new(&instance, 0, norm, (1 << 18) - 1).unwrap();
    assert_eq!((exact.delta(), exact.limit()), (1 << 26, 1 << 18));
    assert!(failure::log2_exact(&params, norm, exact.delta()) < -100.0);
    let refused = ExactMode::new(&instance, 0, norm, 1 << 18);
    assert_eq!(refused.err(), Some(Error::ExactOverflow { got: 1 << 18, limit: 1 << 18 }));
}

/// The table of estimator runs in the document: `| n | q | noise | classical | quantum |`.
#[test]
fn the_document_records_the_estimates() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/parameters.md");
    let text = std::fs::read_to_string(path).unwrap();
    for run in security::ESTIMATES {
        let row = format!(
            "| {} | {} | TUniform({}) | {} | {} |",
            run.n, run.q, run.noise_bound, run.classical_bits, run.quantum_bits
        );
        assert!(text.contains(&row), "docs/parameters.md lacks the row {row}");
    }
    assert!(Params::n2048_q50(64).unwrap().security_bits() >= 140);
    for (n, q, bound) in
        [(1024, 1125899906826241, 5), (2048, 1125899906826241, 4), (2048, 1125899906629633, 5)]
    {
        let refused = Params::checked(n, q, 64, bound, "other");
        assert!(matches!(refused, Err(crate::ParamsError::Insecure { .. })), "{n} {q} {bound}");
    }
}
