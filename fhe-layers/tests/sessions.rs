//! The session forms with real parameters: results, exact mode, what both sides derive, and what is refused.

mod layer_support;

use fhe_layers::client::integrity::RoundCheck;
use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::{Model, activations, mask_words, mix, odd_rounds};
use std::sync::Arc;

fn forms(model: &Model) -> Vec<WireForm> {
    let params = model.instance.params();
    vec![WireForm::lean(params), WireForm::Lean(Widths::FINE), WireForm::stateless()]
}

#[test]
fn every_round_and_token_matches_the_plain_product() {
    for (set, tau) in [(Set::Default, 8), (Set::Default, 64), (Set::Light, 64), (Set::Light, 256)] {
        let model = Model::of_set(set, tau, Isa::detect(), odd_rounds(), 127);
        let tables = model.prepare(if tau == 64 { TableForm::Compact } else { TableForm::Ntt });
        let mut rng = NoiseRng::from_os().unwrap();
        for form in forms(&model) {
            let (slots, server) = model.session_slots(&tables, form);
            for (t, mut slot) in slots.into_iter().enumerate() {
                for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
                    let x = activations(spec.d_in, (t * 100 + round) as u64);
                    let max_row_norm = model.max_row_norm(round);
                    let (body, pending) = slot.encrypt_words(round, &x, max_row_norm, &mut rng).unwrap();
                    let mut y = vec![0.0; spec.rows()];
                    pending.decode_words(&server.answer(&model, t, round, &body), &mut y).unwrap();
                    let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                    let tolerance = model.tolerance_in(form, max_row_norm) * max_row_norm * norm;
                    let expected = model.product(round, &x, |w, x| f64::from(w) * f64::from(x));
                    for (row, (&got, want)) in y.iter().zip(expected).enumerate() {
                        let error = (f64::from(got) - want).abs();
                        assert!(
                            error <= tolerance,
                            "{set} {form} {t} {round} {row}: off by {error}, {tolerance}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn exact_mode_returns_the_integers() {
    for set in Set::ALL {
        // Small enough for the least precise set and form: |Wx| <= 577 * 1.
        let model = Model::of_set(set, 64, Isa::detect(), odd_rounds(), 1);
        let tables = model.prepare(TableForm::Ntt);
        let mut rng = NoiseRng::from_os().unwrap();
        for form in forms(&model) {
            let (slots, server) = model.session_slots(&tables, form);
            for (t, mut slot) in slots.into_iter().enumerate() {
                for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
                    let norm = model.max_row_norm(round);
                    let exact =
                        ExactMode::for_form(&model.instance, form, round, norm, spec.d_in as u64).unwrap();
                    let x: Vec<i64> =
                        (0..spec.d_in).map(|i| (mix((t << 16 | i) as u64) % 3) as i64 - 1).collect();
                    let (body, pending) = slot.encrypt_exact_words(round, &x, &exact, &mut rng).unwrap();
                    let reply = server.answer(&model, t, round, &body);
                    let expected = model.product(round, &x, |w, x| i64::from(w) * x);
                    assert_eq!(
                        pending.decode_exact_words(&reply).unwrap(),
                        expected,
                        "{set} {form} {t} {round}"
                    );
                }
            }
        }
    }
}

#[test]
fn forms_and_instruction_sets_give_the_same_bits() {
    let mut first: Option<(Vec<u8>, Vec<MaskWords>, Vec<WordReply>)> = None;
    let scalar = Model::of_set(Set::Light, 64, Isa::Scalar, odd_rounds(), 127);
    let form = WireForm::lean(scalar.instance.params());
    let widths = form.widths().unwrap();
    let seed = SessionSeed::from_os().unwrap();
    let session_of = |model: &Model| ServerSession::new(&model.instance, form, &[6; 32], b"c", seed).unwrap();
    let tables = scalar.prepare(TableForm::Compact);
    let blocks = scalar.instance.layout().blocks();
    let masks = tables.shared_masks(&session_of(&scalar), 0..blocks).unwrap().concat();
    let client = ClientSession::from_masks(scalar.instance.clone(), form, seed, masks, None).unwrap();
    let batch =
        Client::new(scalar.instance.clone(), ClientOptions::default()).new_session_batch(&client).unwrap();
    for isa in Isa::supported() {
        let model = Model::of_set(Set::Light, 64, isa, odd_rounds(), 127);
        for table in [TableForm::Ntt, TableForm::Compact] {
            let (tables, session) = (model.prepare(table), session_of(&model));
            let shared = tables.shared_masks(&session, 0..blocks).unwrap().concat();
            let words = mask_words(&tables, &session, batch.keys());
            let body = |t: u64| {
                let words = (0..577).map(|i| (mix(t << 32 | i) >> 36) as u32).map(|word| word << 4).collect();
                WordBody::from_words(words, widths).unwrap()
            };
            let edge = WordBody::from_words(vec![u32::MAX << 4; 577], widths).unwrap();
            let bodies = [body(1), edge, body(2), body(3), body(4)];
            let mut kept = LeanBatch::new(&model.instance);
            words.iter().enumerate().for_each(|(block, words)| kept.words.store(block, words).unwrap());
            let queries = bodies.iter().enumerate().map(|(slot, body)| WordQuery {
                body,
                words: Some(kept.words.slot(model.instance.layout(), slot, 2).unwrap()),
            });
            let queries: Vec<WordQuery<'_>> = queries.collect();
            let replies = word_half(&model.weights, 2, &queries, widths).unwrap();
            for (query, reply) in queries.iter().zip(&replies) {
                let alone = WordQuery { body: query.body, words: query.words.clone() };
                let alone = word_half(&model.weights, 2, &[alone], widths).unwrap();
                assert!(alone[0] == *reply, "{isa}: a token's reply does not depend on its neighbours");
            }
            let seen = (shared, words, replies);
            assert!(*first.get_or_insert_with(|| seen.clone()) == seen, "{isa} {table:?}");
        }
    }
}

#[test]
fn two_batches_of_a_session_never_share_a_secret_or_a_word() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let tables = model.prepare(TableForm::Compact);
    let form = WireForm::lean(model.instance.params());
    let (client, server) = model.session(&tables, form, [8; 32]);
    let maker = Client::new(model.instance.clone(), ClientOptions::default());
    let batches: Vec<Batch> = (0..8).map(|_| maker.new_session_batch(&client).unwrap()).collect();
    let (mut bodies, mut keys, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        keys.push(batch.keys().to_bytes(model.instance.params()));
        words.push(mask_words(&tables, &server, batch.keys()));
        // Zeros under the batch's pads: A s itself, up to noise far below a step of the body.
        let mut slot = batch.into_slots().unwrap().remove(0);
        let zeros = vec![0.0; 577];
        bodies.push(slot.encrypt_words(2, &zeros, 1.0, &mut NoiseRng::from_os().unwrap()).unwrap().0);
    }
    for (i, j) in (0..8).flat_map(|i| (0..i).map(move |j| (i, j))) {
        assert!(keys[i] != keys[j] && words[i] != words[j], "batches {i} and {j}");
        // Equal secrets would agree in every word to a few units of 2^2; independent pads do so once in 2^27.
        let near = |(a, b): (&u32, &u32)| a.wrapping_sub(*b).cast_signed().unsigned_abs() < 1 << 6;
        let alike = bodies[i].words().iter().zip(bodies[j].words()).filter(|&pair| near(pair)).count();
        assert!(alike < 3, "batches {i} and {j}: {alike} of 577 pads alike");
    }
}

#[test]
fn batches_in_one_pass_are_the_batches_alone() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let tables = model.prepare(TableForm::Ntt);
    let form = WireForm::lean(model.instance.params());
    // Two sessions, two batches of each, in turns: batches of one session share what is derived for it.
    let sessions = [0, 1].map(|_| model.session(&tables, form, [8; 32]));
    let maker = Client::new(model.instance.clone(), ClientOptions::default());
    let order = [0, 0, 1, 0];
    let keys: Vec<EvaluationKeys> = order
        .iter()
        .map(|&session| maker.new_session_batch(&sessions[session].0).unwrap().keys().clone())
        .collect();
    let expanded: Vec<ExpandedKeys> =
        keys.iter().map(|keys| ExpandedKeys::for_session(&model.instance, keys)).collect();
    let jobs = order
        .iter()
        .zip(&expanded)
        .map(|(&session, keys)| WordsJob::new(keys, &sessions[session].1).unwrap());
    let jobs: Vec<WordsJob<'_>> = jobs.collect();
    let blocks = model.instance.layout().blocks();
    let found = std::sync::Mutex::new(vec![vec![None; blocks]; 4]);
    let sink = |job: usize, block: usize, words| found.lock().unwrap()[job][block] = Some(words);
    tables.mask_words(&jobs, 0..blocks, &|| true, &sink).unwrap();
    for ((together, keys), &session) in found.into_inner().unwrap().into_iter().zip(&keys).zip(&order) {
        let together: Vec<MaskWords> = together.into_iter().map(Option::unwrap).collect();
        assert!(together == mask_words(&tables, &sessions[session].1, keys));
    }
}

/// Chi-squared of the words' top eight bits, in deviations from its mean.
fn chi_squared(words: impl Iterator<Item = u32>) -> f64 {
    let mut counts = [0u32; 256];
    words.for_each(|word| counts[(word >> 24) as usize] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    let sum: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    (sum - 255.0) / (2.0f64 * 255.0).sqrt()
}

#[test]
fn shared_masks_are_uniform_and_differ_between_sessions() {
    let model = Model::new(64, Isa::detect(), vec![(64, vec![(512, 0..64)])], 127);
    let tables = model.prepare(TableForm::Compact);
    let form = WireForm::Lean(Widths::new(30, 20, 32).unwrap());
    let words = |secret, credential: &[u8], seed| {
        let session = ServerSession::new(&model.instance, form, &[secret; 32], credential, seed).unwrap();
        let packed = tables.shared_masks(&session, 0..16).unwrap().concat();
        packed.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<u32>>()
    };
    let (one, two) = (SessionSeed::from_bytes([1; 32]), SessionSeed::from_bytes([2; 32]));
    let first = words(1, b"a", one);
    assert!(first == words(1, b"a", one), "derived, not drawn");
    for other in [words(2, b"a", one), words(1, b"b", one), words(1, b"a", two)] {
        for values in [first.clone(), other.clone()] {
            // 32,768 words: one in 3 * 10^6 sequences of uniform words is off by five deviations.
            let off = chi_squared(values.into_iter());
            assert!(off.abs() < 5.0, "{off:.1} deviations");
        }
        // The difference of two sessions is that of two encryptions of zero: uniform as well.
        let off = chi_squared(first.iter().zip(&other).map(|(a, b)| a.wrapping_sub(*b)));
        assert!(off.abs() < 5.0, "{off:.1} deviations");
    }
    // What is hidden is not uniform to this test when nothing hides it: the test can fail.
    assert!(chi_squared(first.iter().map(|word| word >> 1)) > 100.0);
}

#[test]
fn the_word_check_holds_in_the_stateless_form() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 126);
    let tables = model.prepare(TableForm::Compact);
    let form = WireForm::stateless();
    let (slots, server) = model.session_slots(&tables, form);
    let (params, widths) = (model.instance.params(), form.widths().unwrap());
    let mut rng = NoiseRng::from_os().unwrap();
    for (t, mut slot) in slots.into_iter().enumerate().take(8) {
        for (round, spec) in model.instance.layout().rounds().iter().enumerate() {
            let raw: Vec<&[i8]> = model.raw[round].iter().map(Vec::as_slice).collect();
            let check = RoundCheck::new(spec, &raw, &mut rng).unwrap();
            let (x, norm) = (activations(spec.d_in, t as u64), model.max_row_norm(round));
            let (body, pending) = slot.encrypt_words(round, &x, norm, &mut rng).unwrap();
            let reply = server.answer(&model, t, round, &body);
            assert_eq!(check.word_misfits(&body, &reply, widths), Ok(0), "slot {t}, round {round}");
            let mut wrong = reply.words().to_vec();
            wrong[0] ^= 1 << 31;
            let mut bytes = Vec::new();
            let packed = |words: &[u32], out: &mut Vec<u8>| {
                // 20-bit words, two in five bytes.
                for pair in words.chunks(2) {
                    let both =
                        u64::from(pair[0] >> 12) | u64::from(pair.get(1).copied().unwrap_or(0) >> 12) << 20;
                    out.extend_from_slice(&both.to_le_bytes()[..if pair.len() == 2 { 5 } else { 3 }]);
                }
            };
            packed(&wrong, &mut bytes);
            let wrong = WordReply::from_bytes(widths, spec.rows(), &bytes).unwrap();
            assert_ne!(check.word_misfits(&body, &wrong, widths), Ok(0), "slot {t}, round {round}");
            let mut y = vec![0.0; spec.rows()];
            pending.decode_words(&reply, &mut y).unwrap();
            assert_eq!(check.value_misfits_in(form, params, norm, &x, &y), Ok(0), "slot {t}, round {round}");
        }
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let tables = model.prepare(TableForm::Compact);
    let form = WireForm::lean(model.instance.params());
    let (client, server) = model.session(&tables, form, [8; 32]);
    let instance = || Arc::clone(&model.instance);
    let seed = *client.seed();
    // Sessions of the full form, masks of another length or hash.
    assert!(matches!(SessionDownload::new(instance(), WireForm::Full, seed), Err(Error::WrongForm { .. })));
    let masks = client.packed_masks().to_vec();
    let open =
        |masks: Vec<u8>| ClientSession::from_masks(instance(), form, seed, masks, Some(client.hash())).err();
    assert_eq!(open(masks.clone()), None);
    assert!(matches!(open(masks[1..].to_vec()), Some(Error::Mismatch { .. })));
    let mut flipped = masks;
    flipped[1000] ^= 1;
    assert!(matches!(open(flipped), Some(Error::Foreign { .. })));
    let mut download = SessionDownload::new(instance(), form, seed).unwrap();
    download.accept(&[0; 100]).unwrap();
    let (got, all) = download.progress();
    assert_eq!((got, all), (100, ClientSession::mask_bytes(&model.instance, form)));
    assert!(matches!(download.accept(&vec![0; all]), Err(Error::Mismatch { .. })));
    assert!(matches!(download.finish(client.hash()), Err(Error::Mismatch { .. })));
    // Keys of another session; a session of another instance; masks where none are expected.
    let maker = Client::new(instance(), ClientOptions::default());
    let mut batch = maker.new_session_batch(&client).unwrap();
    let (_, other) = model.session(&tables, form, [8; 32]);
    let keys = ExpandedKeys::for_session(&model.instance, batch.keys());
    assert!(matches!(WordsJob::new(&keys, &other).err(), Some(Error::Foreign { .. })));
    assert!(WordsJob::new(&keys, &server).is_ok());
    let elsewhere = Model::new(64, Isa::detect(), odd_rounds(), 127);
    let stranger = Client::new(elsewhere.instance, ClientOptions::default());
    assert!(matches!(stranger.new_session_batch(&client).err(), Some(Error::Foreign { .. })));
    assert!(matches!(batch.accept_masks(0, &[]), Err(Error::WrongForm { .. })));
    assert!(matches!(batch.accept_mask_words(0, &[]), Err(Error::WrongForm { .. })));
    assert!(MaskWords::read_all(model.instance.params(), form, &[]).is_err());
    // A slot of a session has no body of the full form.
    let mut slot = batch.into_slots().unwrap().remove(0);
    let mut rng = NoiseRng::from_os().unwrap();
    assert!(matches!(slot.encrypt(1, &[0.0; 23], 1.0, &mut rng), Err(Error::WrongForm { .. })));
    assert!(slot.encrypt_words(1, &[0.0; 23], 1.0, &mut rng).is_ok());
    assert!(matches!(slot.encrypt_words(1, &[0.0; 23], 1.0, &mut rng), Err(Error::PadUsed { round: 1 })));
    // Stateless: every block once, within the layout.
    let form = WireForm::stateless();
    let (client, server) = model.session(&tables, form, [8; 32]);
    let mut batch = maker.new_session_batch(&client).unwrap();
    let words = mask_words(&tables, &server, batch.keys());
    batch.accept_mask_words(1, &words[1..3]).unwrap();
    assert!(matches!(batch.accept_mask_words(2, &words[2..]), Err(Error::DuplicateMask { block: 2 })));
    assert!(matches!(batch.accept_mask_words(words.len(), &words[..1]), Err(Error::OutOfRange { .. })));
    assert_eq!(batch.masks_missing(), words.len() - 2);
    assert!(matches!(batch.into_slots().err(), Some(Error::MasksMissing { .. })));
}
