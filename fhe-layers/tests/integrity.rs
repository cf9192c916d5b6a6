//! Freivalds' check at secure parameters: honest servers are never flagged, one changed weight is, in either half.

mod layer_support;

use fhe_layers::client::integrity::{RoundCheck, VECTORS};
use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::{Model, activations, odd_rounds};
use std::sync::Arc;

const TAU: usize = 64;

fn check(model: &Model, round: usize, seed: u128) -> RoundCheck {
    let matrices: Vec<&[i8]> = model.raw[round].iter().map(Vec::as_slice).collect();
    let spec = &model.instance.layout().rounds()[round];
    RoundCheck::new(spec, &matrices, &mut NoiseRng::from_seed(seed)).unwrap()
}

/// The model with `delta` added to one weight of the first matrix of a round.
fn with_changed_weight(mut model: Model, round: usize, index: usize, delta: i8) -> Model {
    model.raw[round][0][index] += delta;
    let rounds = model.instance.layout().rounds().iter().zip(&model.raw);
    let rounds: Vec<RawRound<'_>> = rounds
        .map(|(spec, raw)| RawRound {
            matrices: spec
                .matrices
                .iter()
                .zip(raw)
                .map(|(matrix, weights)| RawMatrix { columns: matrix.columns.clone(), weights })
                .collect(),
        })
        .collect();
    model.weights = Arc::new(ServerWeights::new(model.instance.layout(), &rounds).unwrap());
    model
}

/// `(misfitting words, misfitting values)` of one token of `round`, sent to `body_half` under masks of `slot`.
fn run(slot: &mut Slot, honest: &Model, check: &RoundCheck, server: &Model, round: usize) -> (u32, u32) {
    let x = activations(check.d_in(), 3);
    let norm = honest.max_row_norm(round);
    let (body, pending) = slot.encrypt(round, &x, norm, &mut NoiseRng::from_os().unwrap()).unwrap();
    let reply = server.weights.answer(round, std::slice::from_ref(&body)).unwrap().remove(0);
    let mut y = vec![0.0; check.rows()];
    pending.decode(&reply, &mut y).unwrap();
    let words = check.reply_misfits(&body, &reply).unwrap();
    (words, check.value_misfits(honest.instance.params(), norm, &x, &y).unwrap())
}

fn model() -> Model {
    // At most 126, so that a weight may be changed by one and still be a weight.
    Model::new(TAU, Isa::active().unwrap(), odd_rounds(), 126)
}

#[test]
fn an_honest_server_is_never_flagged() {
    let model = model();
    let checks: Vec<RoundCheck> = (0..4).map(|round| check(&model, round, 11 + round as u128)).collect();
    for mut slot in model.slots(&model.prepare(TableForm::Ntt)) {
        for (round, check) in checks.iter().enumerate() {
            assert_eq!(run(&mut slot, &model, check, &model, round), (0, 0), "round {round}");
        }
    }
}

#[test]
fn one_weight_off_by_one_is_seen_by_half_of_the_vectors_in_every_token() {
    let (honest, round) = (model(), 2);
    let lying = with_changed_weight(model(), round, 577 * 20 + 5, 1);
    let tables = honest.prepare(TableForm::Ntt);
    let (mut seen, mut drawn, mut alike) = (0, 0, 0);
    for (seed, mut slot) in (100..).zip(honest.slots(&tables)) {
        let check = check(&honest, round, seed);
        let (words, values) = run(&mut slot, &honest, &check, &lying, round);
        assert_ne!(words, 0, "seed {seed}");
        // The error is a uniform word: one in some 2^15 is within the noise of the values, none of these in the words'.
        assert_eq!(values & !words, 0, "seed {seed}");
        alike += u32::from(values == words);
        seen += words.count_ones();
        drawn += VECTORS as u32;
    }
    // Half of 2048 draws, five deviations of 22.6.
    assert!(seen.abs_diff(drawn / 2) < 114, "{seen} of {drawn}");
    assert!(alike + 2 >= TAU as u32, "{alike}");
}

#[test]
fn an_error_chosen_for_the_modulus_is_seen_by_half_of_the_vectors() {
    let (model, round) = (model(), 2);
    let d_in = model.instance.layout().rounds()[round].d_in;
    let body = Body::from_words((0..d_in as u64).map(|i| layer_support::mix(i) >> 24).collect()).unwrap();
    let mut words = model.weights.answer(round, std::slice::from_ref(&body)).unwrap()[0].words().to_vec();
    // Half the modulus on two rows: every vector of signs would take them for nothing.
    words[3] ^= 1 << 31;
    words[40] ^= 1 << 31;
    let reply = Reply::from_words(words);
    let seen: u32 = (0..64)
        .map(|seed| {
            let misfits = check(&model, round, seed).reply_misfits(&body, &reply).unwrap();
            assert_ne!(misfits, 0, "seed {seed}");
            misfits.count_ones()
        })
        .sum();
    assert!(seen.abs_diff(1024) < 114, "{seen} of 2048");
}

#[test]
fn masks_of_other_weights_pass_the_words_and_fail_the_values() {
    let (honest, round) = (model(), 2);
    let lying = with_changed_weight(model(), round, 577 * 20 + 5, 1);
    // The mask half of the changed weights, the body half of the pinned ones.
    let slots = lying.slots(&lying.prepare(TableForm::Ntt));
    for (seed, mut slot) in (500..).zip(slots).take(16) {
        let check = check(&honest, round, seed);
        let (words, values) = run(&mut slot, &honest, &check, &honest, round);
        assert_eq!(words, 0, "seed {seed}");
        assert_ne!(values, 0, "seed {seed}");
    }
}

#[test]
fn an_input_that_is_not_finite_fits_anything() {
    let model = model();
    let check = check(&model, 1, 1);
    let mut x = activations(check.d_in(), 3);
    x[2] = f32::NAN;
    let y = vec![f32::NAN; check.rows()];
    assert_eq!(check.value_misfits(model.instance.params(), 900.0, &x, &y), Ok(0));
    assert_ne!(check.value_misfits(model.instance.params(), 900.0, &activations(23, 3), &y), Ok(0));
}
