//! A slot encrypts one message per round, and nothing out of order or of another size is accepted.

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::{Model, masks};

fn model() -> Model {
    Model::new(64, Isa::detect(), vec![(5, vec![(40, 0..5)]), (3, vec![(2, 1..3)])], 127)
}

#[test]
fn a_pad_encrypts_once() {
    let model = model();
    let mut slots = model.slots(&model.prepare(TableForm::Compact));
    let mut rng = NoiseRng::from_os().unwrap();
    let mut slot = slots.remove(0);
    // What is refused for its shape has used nothing.
    for (round, len) in [(0, 4), (0, 6), (1, 5), (2, 3), (usize::MAX, 3)] {
        let refused = slot.encrypt(round, &vec![1.0; len], 300.0, &mut rng);
        let refused = refused.err();
        assert!(
            matches!(refused, Some(Error::Mismatch { .. } | Error::OutOfRange { .. })),
            "round {round}, {len} values"
        );
    }
    let (_, pending) = slot.encrypt(0, &[1.0; 5], 300.0, &mut rng).unwrap();
    let again = slot.encrypt(0, &[1.0; 5], 300.0, &mut rng);
    assert_eq!(again.err(), Some(Error::PadUsed { round: 0 }));
    let exact = ExactMode::new(&model.instance, 0, 300.0, 100).unwrap();
    let again = slot.encrypt_exact(0, &[1; 5], &exact, &mut rng);
    assert_eq!(again.err(), Some(Error::PadUsed { round: 0 }));
    // The other round and the other slots are untouched.
    assert!(slot.encrypt(1, &[1.0; 3], 300.0, &mut rng).is_ok());
    assert!(slots[0].encrypt(0, &[1.0; 5], 300.0, &mut rng).is_ok());
    let short = pending.decode(&Reply::from_words(vec![0; 39]), &mut [0.0; 40]);
    assert!(matches!(short.err(), Some(Error::Mismatch { expected: 40, got: 39, .. })));
}

#[test]
fn modes_do_not_mix_and_outputs_have_their_length() {
    let model = model();
    let mut slots = model.slots(&model.prepare(TableForm::Compact));
    let mut rng = NoiseRng::from_os().unwrap();
    let reply = Reply::from_words(vec![0; 40]);
    let exact = ExactMode::new(&model.instance, 0, 300.0, 100).unwrap();
    let (_, pending) = slots[0].encrypt(0, &[1.0; 5], 300.0, &mut rng).unwrap();
    assert!(matches!(pending.decode_exact(&reply).err(), Some(Error::Malformed { .. })));
    let (_, pending) = slots[1].encrypt_exact(0, &[1; 5], &exact, &mut rng).unwrap();
    assert!(matches!(pending.decode(&reply, &mut [0.0; 40]).err(), Some(Error::Malformed { .. })));
    let (_, pending) = slots[2].encrypt(0, &[1.0; 5], 300.0, &mut rng).unwrap();
    assert!(matches!(pending.decode(&reply, &mut [0.0; 41]).err(), Some(Error::Mismatch { .. })));
}

#[test]
fn extreme_activations_send_a_well_formed_body() {
    let model = model();
    let slots = model.slots(&model.prepare(TableForm::Compact));
    let mut rng = NoiseRng::from_os().unwrap();
    let extremes =
        [0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    for (mut slot, value) in slots.into_iter().zip(extremes) {
        let x = [0.5, value, 0.0, value, -0.25];
        let (body, pending) = slot.encrypt(0, &x, model.max_row_norm(0), &mut rng).unwrap();
        assert_eq!(body.to_bytes().len(), 25);
        assert!(body.words().iter().all(|word| word >> 40 == 0));
        let reply = model.weights.answer(0, &[body]).unwrap().remove(0);
        let mut y = [0.0; 40];
        pending.decode(&reply, &mut y).unwrap();
        assert_eq!(y.iter().all(|v| v.is_nan()), !value.is_finite(), "{value}: only decoding tells");
    }
}

#[test]
fn masks_arrive_once_and_completely() {
    let model = model();
    let tables = model.prepare(TableForm::Compact);
    let mut batch = model.batch();
    let blocks = masks(&tables, &[batch.keys()], [1; 32]).remove(0);
    assert_eq!(blocks.len(), 2);
    assert!(matches!(batch.accept_masks(2, &blocks[..1]), Err(Error::OutOfRange { .. })));
    assert!(matches!(batch.accept_masks(1, &blocks), Err(Error::OutOfRange { .. })));
    assert!(matches!(batch.accept_masks(usize::MAX, &blocks), Err(Error::OutOfRange { .. })));
    batch.accept_masks(1, &blocks[1..]).unwrap();
    assert!(!batch.masks_complete());
    assert_eq!(batch.masks_missing(), 1);
    assert_eq!(batch.accept_masks(1, &blocks[1..]), Err(Error::DuplicateMask { block: 1 }));
    assert_eq!(batch.accept_masks(0, &blocks), Err(Error::DuplicateMask { block: 1 }));
    assert_eq!(batch.into_slots().err(), Some(Error::MasksMissing { missing: 1 }));
}

#[test]
fn a_slot_moves_between_threads() {
    fn sends<T: Send>() {}
    sends::<Slot>();
    sends::<Batch>();
    sends::<PendingReply>();
}

#[test]
fn keys_of_another_batch_decode_to_noise() {
    let model = model();
    let tables = model.prepare(TableForm::Compact);
    let (mut batch, other) = (model.batch(), model.batch());
    let blocks = masks(&tables, &[other.keys()], [1; 32]).remove(0);
    batch.accept_masks(0, &blocks).unwrap();
    let mut slot = batch.into_slots().unwrap().remove(0);
    let mut rng = NoiseRng::from_os().unwrap();
    let x = [1.0, -1.0, 0.5, 0.25, 0.0];
    let (body, pending) = slot.encrypt(0, &x, model.max_row_norm(0), &mut rng).unwrap();
    let reply = model.weights.answer(0, &[body]).unwrap().remove(0);
    let mut y = [0.0; 40];
    pending.decode(&reply, &mut y).unwrap();
    let expected = model.product(0, &x, |w, x| f64::from(w) * f64::from(x));
    let near = y.iter().zip(expected).filter(|&(&y, e)| (f64::from(y) - e).abs() < 1.0).count();
    assert!(near < 10, "{near} of 40 rows decode under the keys of another batch");
}
