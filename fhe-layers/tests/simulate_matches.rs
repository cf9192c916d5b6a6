//! The simulator is the plain product, or the plain product with noise of the documented variance.

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::noise::bounds;
use fhe_layers::simulate::{SimulateMode, Simulated};
use fhe_layers::*;
use layer_support::{Model, activations, odd_rounds};

/// What the client's scale keeps `|w| |X|` below.
fn reach(model: &Model) -> f64 {
    let params = model.instance.params();
    params.q() as f64 / 2.0 * (1.0 - 2f64.powi(-5)) / params.phi() as f64
}

#[test]
fn exact_simulation_is_the_plain_product() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let mut simulated =
        Simulated::new(model.instance.clone(), model.weights.clone(), SimulateMode::Exact).unwrap();
    for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
        let x = activations(spec.d_in, round as u64);
        let mut y = vec![0.0; spec.rows()];
        simulated.round(round, &x, model.max_row_norm(round), &mut y).unwrap();
        let expected = model.product(round, &x, |w, x| f64::from(w) * f64::from(x));
        // Fixed point moves an input by half a step at most, an `f32` rounds the result.
        let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let scale = reach(&model) / (model.max_row_norm(round) * norm);
        let step = model.max_row_norm(round) * (spec.d_in as f64).sqrt() / 2.0 / scale;
        for (row, (&y, e)) in y.iter().zip(expected).enumerate() {
            let error = (f64::from(y) - e).abs();
            assert!(error <= step + e.abs() * 2f64.powi(-23), "round {round}, row {row}: off by {error}");
        }
    }
    assert!(matches!(simulated.round(0, &[1.0; 2], 1.0, &mut [0.0]), Err(Error::Mismatch { .. })));
    assert!(matches!(simulated.round(0, &[1.0], 1.0, &mut [0.0; 2]), Err(Error::Mismatch { .. })));
    assert!(matches!(simulated.round(9, &[1.0], 1.0, &mut [0.0]), Err(Error::Mismatch { .. })));
}

#[test]
fn noisy_simulation_and_the_real_layer_have_the_same_noise() {
    let rounds = vec![(600, vec![(64, 0..600)])];
    let model = Model::new(64, Isa::detect(), rounds, 127);
    let max_row_norm = model.max_row_norm(0);
    let mut simulated =
        Simulated::new(model.instance.clone(), model.weights.clone(), SimulateMode::Noisy).unwrap();
    let params = model.instance.params();
    let reach = reach(&model);
    let mut rng = NoiseRng::from_os().unwrap();
    let (mut real, mut simulation, mut count) = (0.0, 0.0, 0.0);
    for (t, mut slot) in model.slots(&model.prepare(TableForm::Compact)).into_iter().enumerate() {
        let x = activations(600, t as u64);
        let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let scale = reach / (max_row_norm * norm);
        let (body, pending) = slot.encrypt(0, &x, max_row_norm, &mut rng).unwrap();
        let reply = model.weights.answer(0, &[body]).unwrap().remove(0);
        let (mut y, mut z) = (vec![0.0; 64], vec![0.0; 64]);
        pending.decode(&reply, &mut y).unwrap();
        simulated.round(0, &x, max_row_norm, &mut z).unwrap();
        for ((want, y), z) in
            model.product(0, &x, |w, x| f64::from(w) * f64::from(x)).into_iter().zip(y).zip(z)
        {
            real += ((f64::from(y) - want) * scale).powi(2);
            simulation += ((f64::from(z) - want) * scale).powi(2);
            count += 1.0;
        }
    }
    // 4096 samples: the estimate of a variance has a deviation of 2.2 %; 15 % is near seven of them.
    let expected = bounds::total_variance(params, max_row_norm);
    for (name, sum) in [("real", real), ("simulated", simulation)] {
        let ratio = sum / count / expected;
        assert!((0.85..1.15).contains(&ratio), "{name}: {ratio:.3} of the documented variance");
    }
}
