//! What every engine must pass: the golden vectors of the reference, and equality with the portable CPU code on the real ring.
//!
//! Each function panics with what differs. Call both from a test of the engine's crate.

use super::LayerEngine;
use crate::ciphertext::EvaluationKeys;
use crate::cpu::CpuEngine;
use crate::form::{Widths, WireForm};
use crate::instance::{GivenMasks, Instance, ModelDigest};
use crate::kernels::Isa;
use crate::layout::{MatrixSpec, RoundSpec};
use crate::params::{Params, Set};
use crate::server::session::GivenRandomness;
use crate::server::{
    ExpandedKeys, LeanBatch, PrepareOptions, RawMatrix, RawRound, ServerSession, TableForm, WordQuery,
    WordsJob,
};
use crate::words::{MaskWords, SessionSeed, WordBody, WordReply};
use crate::{Client, ClientOptions, ClientSession, bits};
use serde_json::Value;
use std::sync::{Arc, Mutex};

const GOLDEN: &str = include_str!("../../../testdata/split_phase_vectors/n64.json");

fn integers(value: &Value) -> Vec<i64> {
    let list = value.as_array().expect("a list of the vectors");
    list.iter().map(|v| v.as_i64().expect("an integer of the vectors")).collect()
}

fn poly(value: &Value) -> Vec<u64> {
    integers(value).into_iter().map(|v| v as u64).collect()
}

fn words(value: &Value) -> Vec<u32> {
    integers(value).into_iter().map(|v| v as u32).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list of the vectors")
}

/// `b'` of all blocks for one job.
fn mask_words<E: LayerEngine>(
    engine: &E,
    tables: &E::Tables,
    blocks: usize,
    job: WordsJob<'_>,
) -> Vec<MaskWords> {
    let found = Mutex::new(vec![None; blocks]);
    let sink = |_: usize, block: usize, words: MaskWords| {
        let before = found.lock().expect("no sink panics")[block].replace(words);
        assert!(before.is_none(), "block {block} came twice");
    };
    engine.mask_half(tables, &[job], 0..blocks, &|| true, &sink).expect("the mask half");
    let found = found.into_inner().expect("no sink panics");
    found.into_iter().map(|words| words.expect("every block comes")).collect()
}

/// Runs prepare, shared masks, mask half and body half on the golden vectors, both parameter sets and both session forms.
/// `isa`: of the ring's CPU code.
///
/// # Panics
/// When an integer differs from the reference's.
pub fn matches_the_reference<E: LayerEngine>(engine: &E, isa: Isa) {
    let all: Value = serde_json::from_str(GOLDEN).expect("golden vectors");
    for set in Set::ALL {
        for form in [WireForm::Lean(Widths::DEFAULT), WireForm::stateless()] {
            golden_case(engine, &all["sets"][set.to_string()], set, form, isa);
        }
    }
}

fn golden_case<E: LayerEngine>(engine: &E, vectors: &Value, set: Set, form: WireForm, isa: Isa) {
    let session_vectors = &vectors[form.name()];
    let rows: Vec<Vec<i64>> = list(&vectors["W"]).iter().map(integers).collect();
    let params = Params::insecure_toy_n64_set(16, set).expect("the toy ring");
    let columns = 0..rows[0].len();
    let spec = MatrixSpec { rows: rows.len(), columns: columns.clone() };
    let rounds = vec![RoundSpec { d_in: columns.len(), matrices: vec![spec] }];
    let digest = ModelDigest([0; 32]);
    let mut instance =
        Instance::with_isa(params, rounds, digest, "reference", isa).expect("the toy instance");
    let transformed = |value: &Value| {
        let mut values = poly(value);
        instance.ring().forward(&mut values);
        values
    };
    let given = GivenMasks {
        public: list(&vectors["A"]).iter().map(transformed).collect(),
        key: list(&vectors["key_masks"]).iter().map(transformed).collect(),
        session: transformed(&session_vectors["public_key_mask"]),
    };
    let keys = list(&session_vectors["batches"]).iter().map(|batch| EvaluationKeys {
        key_bodies: list(&batch["key_bodies"]).iter().map(transformed).collect(),
        public_key_seed: [0; 32],
        public_key_body: transformed(&batch["public_key_body"]),
    });
    let keys: Vec<EvaluationKeys> = keys.collect();
    instance.give_masks(given);
    let instance = Arc::new(instance);
    let weights: Vec<i8> = rows.iter().flatten().map(|&w| w as i8).collect();
    let raw = [RawRound { matrices: vec![RawMatrix { columns, weights: &weights }] }];
    let weights = Arc::new(engine.load(&instance, &raw).expect("loading"));
    let tables = engine.prepare(&instance, &weights, &PrepareOptions::default()).expect("preparing");
    let (widths, n) = (form.widths().expect("a session form"), instance.params().n());
    let seed = SessionSeed::from_bytes([0; 32]);
    let mut session = ServerSession::new(&instance, form, &[0; 32], b"", seed).expect("a session");
    session.give(GivenRandomness {
        ephemeral: list(&session_vectors["secrets"]).iter().map(poly).collect(),
        noise: list(&session_vectors["mask_noise"])
            .iter()
            .map(|v| integers(v).iter().map(|&e| e as i8).collect())
            .collect(),
    });
    let blocks = instance.layout().blocks();
    let shared = engine.shared_masks(&tables, &session, 0..blocks).expect("shared masks");
    for (packed, expected) in shared.iter().zip(list(&session_vectors["shared_masks"])) {
        let mask = bits::unpack("shared mask", packed, n, widths.shared()).expect("a shared mask");
        assert_eq!(mask, words(expected), "{set} {form}: shared mask");
    }
    for (keys, batch) in keys.iter().zip(list(&session_vectors["batches"])) {
        let keys = ExpandedKeys::for_session(&instance, keys);
        let job = WordsJob::new(&keys, &session).expect("keys of the session");
        let bodies = mask_words(engine, &tables, blocks, job);
        let mut kept = LeanBatch::new(&instance);
        for (block, (body, expected)) in bodies.iter().zip(list(&batch["words"])).enumerate() {
            assert_eq!(body.words(), words(expected), "{set} {form}: b' of block {block}");
            kept.words.store(block, body).expect("a new block");
        }
        let tokens = list(&batch["tokens"]);
        let body = |token: &Value| WordBody::from_words(words(&token["body"]), widths).expect("a body");
        let sent: Vec<WordBody> = tokens.iter().map(body).collect();
        let queries = sent.iter().enumerate().map(|(slot, body)| WordQuery {
            body,
            words: form.keeps_words().then(|| kept.words.slot(instance.layout(), slot, 0).expect("a slot")),
        });
        let queries: Vec<WordQuery<'_>> = queries.collect();
        let replies = engine.body_half(&weights, 0, &queries, widths).expect("the body half");
        for (reply, token) in replies.iter().zip(tokens) {
            assert_eq!(reply.words(), words(&token["reply"]), "{set} {form}: reply");
        }
    }
}

/// splitmix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rounds whose shapes are multiples of nothing.
fn odd_rounds() -> Vec<RoundSpec> {
    let matrix = |rows, columns| MatrixSpec { rows, columns };
    vec![
        RoundSpec { d_in: 1, matrices: vec![matrix(1, 0..1)] },
        RoundSpec { d_in: 130, matrices: vec![matrix(33, 0..130), matrix(64, 17..130), matrix(1, 129..130)] },
    ]
}

/// All results of one engine on the real ring.
struct Outputs {
    shared: Vec<Vec<u8>>,
    bodies: Vec<MaskWords>,
    replies: Vec<WordReply>,
}

/// Runs everything on secure parameters and odd shapes, one token and many, and compares with [`CpuEngine`]'s portable code.
/// `isa`: of the ring's CPU code.
///
/// # Panics
/// When a bit differs.
pub fn matches_the_portable_code<E: LayerEngine>(engine: &E, isa: Isa) {
    let portable = CpuEngine::with_isa(TableForm::Compact, Isa::Scalar).expect("portable code");
    for set in Set::ALL {
        let params = set.params(64).expect("tau 64");
        let form = WireForm::lean(&params);
        let instance = |isa| {
            let digest = ModelDigest([9; 32]);
            Arc::new(
                Instance::with_isa(params.clone(), odd_rounds(), digest, "odd", isa).expect("odd shapes"),
            )
        };
        let (ours, theirs) = (instance(Isa::Scalar), instance(isa));
        let seed = SessionSeed::from_bytes([3; 32]);
        let masks = vec![0; ClientSession::mask_bytes(&ours, form)];
        let session =
            ClientSession::from_masks(Arc::clone(&ours), form, seed, masks, None).expect("a session");
        let client = Client::new(Arc::clone(&ours), ClientOptions::default());
        let batch = client.new_session_batch(&session).expect("a batch");
        let expected = outputs(&portable, &ours, form, seed, batch.keys());
        let got = outputs(engine, &theirs, form, seed, batch.keys());
        assert!(got.shared == expected.shared, "{set}: shared masks");
        assert!(got.bodies == expected.bodies, "{set}: mask half");
        assert!(got.replies == expected.replies, "{set}: body half");
    }
}

fn outputs<E: LayerEngine>(
    engine: &E,
    instance: &Arc<Instance>,
    form: WireForm,
    seed: SessionSeed,
    keys: &EvaluationKeys,
) -> Outputs {
    let (layout, widths) = (instance.layout(), form.widths().expect("a session form"));
    let mut next = 0;
    let mut draw = |spec: &MatrixSpec| -> Vec<i8> {
        let weight = |_| {
            next += 1;
            (mix(next) % 255) as i8 as i64
        };
        (0..spec.rows * spec.columns.len()).map(weight).map(|w| w.max(-127) as i8).collect()
    };
    let raw: Vec<Vec<Vec<i8>>> =
        layout.rounds().iter().map(|round| round.matrices.iter().map(&mut draw).collect()).collect();
    let raw = layout.rounds().iter().zip(&raw).map(|(round, raw)| RawRound {
        matrices: round
            .matrices
            .iter()
            .zip(raw)
            .map(|(spec, weights)| RawMatrix { columns: spec.columns.clone(), weights })
            .collect(),
    });
    let weights = Arc::new(engine.load(instance, &raw.collect::<Vec<_>>()).expect("loading"));
    let tables = engine.prepare(instance, &weights, &PrepareOptions::default()).expect("preparing");
    let session = ServerSession::new(instance, form, &[1; 32], b"credential", seed).expect("a session");
    let shared = engine.shared_masks(&tables, &session, 0..layout.blocks()).expect("shared masks");
    let keys = ExpandedKeys::for_session(instance, keys);
    let job = WordsJob::new(&keys, &session).expect("keys of the session");
    let bodies = mask_words(engine, &tables, layout.blocks(), job);
    let mut kept = LeanBatch::new(instance);
    bodies.iter().enumerate().for_each(|(block, body)| kept.words.store(block, body).expect("a new block"));
    let mut replies = Vec::new();
    for (round, spec) in layout.rounds().iter().enumerate() {
        for tokens in [1, 3, 20] {
            let body = |token: u64| {
                let word = |i: u64| (mix(token << 32 | i) as u32) << (32 - widths.body());
                let extreme = u32::MAX << (32 - widths.body());
                let words = (0..spec.d_in as u64).map(|i| if token == 1 { extreme } else { word(i) });
                WordBody::from_words(words.collect(), widths).expect("words of the body's width")
            };
            let sent: Vec<WordBody> = (0..tokens).map(body).collect();
            let queries = sent.iter().enumerate().map(|(slot, body)| WordQuery {
                body,
                words: Some(kept.words.slot(layout, slot, round).expect("a slot")),
            });
            let queries: Vec<WordQuery<'_>> = queries.collect();
            replies.extend(engine.body_half(&weights, round, &queries, widths).expect("the body half"));
        }
    }
    Outputs { shared, bodies, replies }
}
