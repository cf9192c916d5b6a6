//! The simulator is the plain product, or the plain product with noise of the documented variance.

mod layer_support;

use fhe_layers::client::input_scale;
use fhe_layers::kernels::Isa;
use fhe_layers::noise::bounds;
use fhe_layers::simulate::{SimulateMode, Simulated};
use fhe_layers::*;
use layer_support::{Model, activations, odd_rounds};

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
        // Fixed point moves an input by no more than half a step, an `f32` rounds the result.
        let scale = input_scale(model.instance.params(), model.max_row_norm(round), &x);
        let step = model.max_row_norm(round) * (spec.d_in as f64).sqrt() / 2.0 / scale;
        for (row, (&y, e)) in y.iter().zip(expected).enumerate() {
            let error = (f64::from(y) - e).abs();
            assert!(error <= step + e.abs() * 2f64.powi(-23), "round {round}, row {row}: off by {error}");
        }
    }
    assert!(matches!(simulated.round(0, &[1.0; 2], 1.0, &mut [0.0]), Err(Error::Mismatch { .. })));
    assert!(matches!(simulated.round(0, &[1.0], 1.0, &mut [0.0; 2]), Err(Error::Mismatch { .. })));
    assert!(matches!(simulated.round(9, &[1.0], 1.0, &mut [0.0]), Err(Error::OutOfRange { .. })));
}

/// Sums of squared errors of the real layer and of the simulator, on the scale of the modulus, and their number.
fn errors(model: &Model, form: WireForm) -> [f64; 3] {
    let max_row_norm = model.max_row_norm(0);
    let (instance, weights) = (model.instance.clone(), model.weights.clone());
    let mut simulated = Simulated::with_form(instance, weights, SimulateMode::Noisy, form).unwrap();
    let tables = model.prepare(TableForm::Compact);
    let mut rng = NoiseRng::from_os().unwrap();
    let mut sums = [0.0; 3];
    let mut run = |t: usize, real: &mut dyn FnMut(&[f32], &mut NoiseRng) -> Vec<f32>| {
        let x = activations(600, t as u64);
        let scale = input_scale(model.instance.params(), max_row_norm, &x);
        let y = real(&x, &mut rng);
        let mut z = vec![0.0; 64];
        simulated.round(0, &x, max_row_norm, &mut z).unwrap();
        for ((want, y), z) in
            model.product(0, &x, |w, x| f64::from(w) * f64::from(x)).into_iter().zip(y).zip(z)
        {
            sums[0] += ((f64::from(y) - want) * scale).powi(2);
            sums[1] += ((f64::from(z) - want) * scale).powi(2);
            sums[2] += 1.0;
        }
    };
    if form == WireForm::Full {
        for (t, mut slot) in model.slots(&tables).into_iter().enumerate() {
            run(t, &mut |x, rng| {
                let (body, pending) = slot.encrypt(0, x, max_row_norm, rng).unwrap();
                let reply = model.weights.answer(0, &[body]).unwrap().remove(0);
                let mut y = vec![0.0; 64];
                pending.decode(&reply, &mut y).unwrap();
                y
            });
        }
    } else {
        let (slots, server) = model.session_slots(&tables, form);
        for (t, mut slot) in slots.into_iter().enumerate() {
            run(t, &mut |x, rng| {
                let (body, pending) = slot.encrypt_words(0, x, max_row_norm, rng).unwrap();
                let reply = server.answer(model, t, 0, &body);
                let mut y = vec![0.0; 64];
                pending.decode_words(&reply, &mut y).unwrap();
                y
            });
        }
    }
    sums
}

#[test]
fn noisy_simulation_and_the_real_layer_have_the_same_noise() {
    for set in Set::ALL {
        let model = Model::of_set(set, 64, Isa::detect(), vec![(600, vec![(64, 0..600)])], 127);
        let lean = WireForm::lean(model.instance.params());
        for form in [WireForm::Full, lean, WireForm::stateless()] {
            let [real, simulation, count] = errors(&model, form);
            // 4096 samples: the estimate of a variance has a deviation of 2.2 %; 15 % is near seven of them.
            let expected = bounds::parts(model.instance.params(), form, model.max_row_norm(0)).total();
            for (name, sum) in [("real", real), ("simulated", simulation)] {
                let ratio = sum / count / expected;
                assert!(
                    (0.85..1.15).contains(&ratio),
                    "{set} {form}, {name}: {ratio:.3} of the documented variance"
                );
            }
        }
    }
}
