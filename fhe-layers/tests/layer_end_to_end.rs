//! The whole protocol with real parameters against the plain product, on shapes that are multiples of nothing.

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::{Model, activations, masks, odd_rounds};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every round of every token of `slots` against `W x`.
fn check_slots(model: &Model, slots: Vec<Slot>) {
    let mut rng = NoiseRng::from_os().unwrap();
    for (t, mut slot) in slots.into_iter().enumerate() {
        for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
            let x = activations(spec.d_in, (t * 100 + round) as u64);
            let max_row_norm = model.max_row_norm(round);
            let (body, pending) = slot.encrypt(round, &x, max_row_norm, &mut rng).unwrap();
            let reply = model.weights.answer(round, &[body]).unwrap().remove(0);
            let mut y = vec![0.0; spec.rows()];
            pending.decode(&reply, &mut y).unwrap();
            let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let tolerance = model.tolerance(max_row_norm) * max_row_norm * norm;
            let expected = model.product(round, &x, |w, x| f64::from(w) * f64::from(x));
            for (row, (&got, want)) in y.iter().zip(expected).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= tolerance,
                    "token {t}, round {round}, row {row}: off by {error}, {tolerance}"
                );
            }
        }
    }
}

#[test]
fn every_round_and_token_matches_the_plain_product() {
    for (tau, form) in [(8, TableForm::Ntt), (64, TableForm::Compact), (256, TableForm::Ntt)] {
        let model = Model::new(tau, Isa::detect(), odd_rounds(), 127);
        let tables = model.prepare(form);
        assert_eq!(tables.form(), form);
        check_slots(&model, model.slots(&tables));
    }
}

#[test]
fn batches_in_one_pass_are_the_batches_alone() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let batches: Vec<Batch> = (0..3).map(|_| model.batch()).collect();
    let keys: Vec<&EvaluationKeys> = batches.iter().map(Batch::keys).collect();
    let tables = model.prepare(TableForm::Ntt);
    let together = masks(&tables, &keys, [1; 32]);
    for (keys, together) in keys.iter().zip(&together) {
        assert!(masks(&tables, &[keys], [1; 32])[0] == *together, "the same job gives the same bytes");
    }
    assert!(masks(&tables, &keys[..1], [2; 32])[0] != together[0], "another seed re-randomises differently");
    for (mut batch, masks) in batches.into_iter().zip(together) {
        // Blocks arrive in any order.
        for (block, mask) in masks.into_iter().enumerate().rev() {
            batch.accept_masks(block, &[mask]).unwrap();
        }
        let mut slots = batch.into_slots().unwrap();
        slots.truncate(2);
        check_slots(&model, slots);
    }
}

#[test]
fn forms_and_instruction_sets_give_the_same_bits() {
    let mut first: Option<(Vec<MaskBlock>, Vec<u8>, Vec<Reply>)> = None;
    let batch = Model::new(64, Isa::Scalar, odd_rounds(), 127).batch();
    for isa in Isa::supported() {
        let model = Model::new(64, isa, odd_rounds(), 127);
        for form in [TableForm::Ntt, TableForm::Compact] {
            let tables = model.prepare(form);
            let masks = masks(&tables, &[batch.keys()], [3; 32]).remove(0);
            let mut saved = Vec::new();
            tables.save_compact(&mut saved).unwrap();
            assert_eq!(saved.len() as u64, PreparedModel::saved_bytes(&model.instance));
            let words = |t: u64| (0..577).map(|i| layer_support::mix(t << 32 | i) >> 24).collect();
            let edge = Body::from_words(vec![(1 << 40) - 1; 577]).unwrap();
            let bodies = [Body::from_words(words(1)).unwrap(), edge, Body::from_words(words(2)).unwrap()];
            let replies = model.weights.answer(2, &bodies).unwrap();
            for (body, reply) in bodies.iter().zip(&replies) {
                let alone = model.weights.answer(2, std::slice::from_ref(body)).unwrap();
                assert!(alone[0] == *reply, "{isa}: a token's reply does not depend on its neighbours");
            }
            let (first_masks, first_saved, first_replies) =
                first.get_or_insert_with(|| (masks.clone(), saved.clone(), replies.clone()));
            assert!(*first_masks == masks, "{isa} {form:?}: masks");
            assert!(*first_saved == saved, "{isa} {form:?}: tables");
            assert!(*first_replies == replies, "{isa} {form:?}: replies");
        }
    }
}

#[test]
fn exact_mode_returns_the_integers() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 7);
    let tables = model.prepare(TableForm::Ntt);
    let mut rng = NoiseRng::from_os().unwrap();
    for (t, mut slot) in model.slots(&tables).into_iter().enumerate() {
        for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
            let largest = (spec.d_in * 7 * 7) as u64;
            let exact = ExactMode::new(&model.instance, round, model.max_row_norm(round), largest).unwrap();
            let x: Vec<i64> =
                (0..spec.d_in).map(|i| (layer_support::mix((t << 16 | i) as u64) % 15) as i64 - 7).collect();
            let (body, pending) = slot.encrypt_exact(round, &x, &exact, &mut rng).unwrap();
            let reply = model.weights.answer(round, &[body]).unwrap().remove(0);
            let expected = model.product(round, &x, |w, x| i64::from(w) * x);
            assert_eq!(pending.decode_exact(&reply).unwrap(), expected, "token {t}, round {round}");
        }
    }
}

#[test]
fn work_can_be_cancelled() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let options = PrepareOptions { progress: &|done, all| done == all };
    let (instance, weights) = (model.instance.clone(), model.weights.clone());
    let cancelled = PreparedModel::prepare(instance, weights, TableForm::Compact, &options);
    assert!(matches!(cancelled.err(), Some(Error::Cancelled)));
    let tables = model.prepare(TableForm::Compact);
    let batch = model.batch();
    let keys = ExpandedKeys::new(&model.instance, batch.keys());
    let (asked, blocks) = (AtomicUsize::new(0), model.instance.layout().blocks());
    let keep_on = || asked.fetch_add(1, Ordering::Relaxed) < 2;
    let job = MaskJob { keys: &keys, seed: [1; 32] };
    assert_eq!(tables.mask_half(&[job], 0..blocks, &keep_on, &|_, _, _| {}), Err(Error::Cancelled));
}

#[test]
fn wrong_counts_and_ranges_are_refused() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let tables = model.prepare(TableForm::Compact);
    let blocks = model.instance.layout().blocks();
    let keys = ExpandedKeys::new(&model.instance, model.batch().keys());
    let job = || MaskJob { keys: &keys, seed: [1; 32] };
    let run = |jobs: &[MaskJob<'_>], range| tables.mask_half(jobs, range, &|| true, &|_, _, _| {});
    assert!(matches!(run(&[], 0..1), Err(Error::OutOfRange { .. })));
    assert!(matches!(run(&[job()], 0..blocks + 1), Err(Error::OutOfRange { .. })));
    let reversed = std::ops::Range { start: 1, end: 0 };
    assert!(matches!(run(&[job()], reversed), Err(Error::OutOfRange { .. })));
    let many: Vec<MaskJob<'_>> = (0..1000).map(|_| job()).collect();
    assert!(matches!(run(&many, 0..1), Err(Error::OutOfRange { .. })));
    let body = |len| Body::from_words(vec![0; len]).unwrap();
    assert!(matches!(model.weights.answer(4, &[body(1)]), Err(Error::OutOfRange { .. })));
    assert!(matches!(model.weights.answer(1, &[body(23), body(22)]), Err(Error::Mismatch { .. })));
    assert_eq!(model.weights.answer(1, &[]).unwrap(), Vec::new());
}

#[test]
fn impossible_shapes_and_weights_are_refused() {
    let params = params::sets::n2048_q50_tau(64).unwrap();
    let spec = |d_in, rows, columns| RoundSpec { d_in, matrices: vec![MatrixSpec { rows, columns }] };
    let empty = RoundSpec { d_in: 4, matrices: Vec::new() };
    #[allow(clippy::reversed_empty_ranges, reason = "what a hostile manifest may say")]
    let bad = [
        vec![],
        vec![empty],
        vec![spec(0, 1, 0..0)],
        vec![spec(32_769, 1, 0..1)],
        vec![spec(4, 0, 0..4)],
        vec![spec(4, usize::MAX, 0..4)],
        vec![spec(4, 1, 0..5)],
        vec![spec(4, 1, 2..2)],
        vec![spec(4, 1, 3..1)],
    ];
    for rounds in bad {
        assert!(matches!(Layout::new(&params, rounds.clone()), Err(Error::OutOfRange { .. })), "{rounds:?}");
    }
    let layout = Layout::new(&params, vec![spec(4, 2, 0..4)]).unwrap();
    let weights = |weights: &[i8]| {
        let matrices = vec![RawMatrix { columns: 0..4, weights }];
        ServerWeights::new(&layout, &[RawRound { matrices }]).err()
    };
    assert_eq!(weights(&[-127; 8]), None);
    let outside = weights(&[0, 0, 0, 0, 0, -128, 0, 0]);
    assert_eq!(outside, Some(Error::WeightOutOfRange { round: 0, matrix: 0, index: 5 }));
    assert!(matches!(weights(&[0; 7]), Some(Error::Mismatch { expected: 8, got: 7, .. })));
}
