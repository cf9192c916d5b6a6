//! The reference's vectors on the toy ring, and the hashes that pin the protocol's domain and XOF.
//!
//! `testdata/split_phase_vectors/n64.json` holds every input, random draw and result of the executable reference; fed
//! the same draws, each step here must give the same integers. `domain.json` pins what the reference leaves open:
//! order and root of the transform, and the expansion of the public masks.

use crate::ciphertext::{Body, EvaluationKeys, MaskBlock};
use crate::client::batch::evaluation_keys;
use crate::client::encrypt::{decode_centred, masked};
use crate::client::{Client, ClientOptions};
use crate::instance::{GivenMasks, Instance, ModelDigest};
use crate::kernels::Isa;
use crate::layout::{MatrixSpec, RoundSpec};
use crate::params::{MASK_WORD_BITS, Params};
use crate::random::keys::KeyRng;
use crate::random::xof::public_key_mask;
use crate::secret::SecretWords;
use crate::server::mask_half::{Scratch, Zero};
use crate::server::*;
use crate::switch::Switch;
use serde_json::Value;
use std::sync::Arc;

fn read(name: &str) -> Value {
    let path = format!("{}/../testdata/split_phase_vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
}

fn poly(value: &Value) -> Vec<u64> {
    integers(value).into_iter().map(|v| v as u64).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

/// The instance of the vectors, its masks given, on `isa`.
fn reference_instance(vectors: &Value, isa: Isa) -> (Instance, Vec<i8>) {
    let rows: Vec<Vec<i64>> = list(&vectors["W"]).map(integers).collect();
    let params = Params::insecure_toy_n64(16).unwrap();
    for (name, value) in
        [("N", params.n() as u64), ("q", params.q()), ("g", params.features_per_poly() as u64)]
    {
        assert_eq!(vectors[name].as_u64(), Some(value), "{name}");
    }
    let spec = MatrixSpec { rows: rows.len(), columns: 0..rows[0].len() };
    let rounds = vec![RoundSpec { d_in: rows[0].len(), matrices: vec![spec] }];
    let mut instance = Instance::with_isa(params, rounds, ModelDigest([0; 32]), "reference", isa).unwrap();
    let transform = |value: &Value| {
        let mut poly = poly(value);
        instance.ring().forward(&mut poly);
        poly
    };
    let given = GivenMasks {
        public: list(&vectors["A"]).map(transform).collect(),
        key: list(&vectors["key_masks"]).map(transform).collect(),
    };
    instance.give_masks(given);
    (instance, rows.into_iter().flatten().map(|w| w as i8).collect())
}

fn check_tables(vectors: &Value, model: &PreparedModel) {
    let params = model.instance().params();
    for (block, expected) in list(&vectors["blocks"]).enumerate() {
        assert_eq!(model.mask(block), poly(&expected["a"]), "final mask");
        let digits = model.view().digits(block).compact(model.instance().ring());
        for (term, digits) in digits.chunks_exact(params.n()).enumerate() {
            let (j, level) = (term / params.levels() + 1, term % params.levels());
            let expected = integers(&expected["digits"][j.to_string()][level]);
            assert!(
                digits.iter().map(|&d| i64::from(d)).eq(expected),
                "digits of rotation {j}, level {level}"
            );
        }
    }
}

fn given_keys(instance: &Instance, batch: &Value) -> (SecretWords, EvaluationKeys) {
    let ring = instance.ring();
    let transform = |value: &Value| {
        let mut poly = poly(value);
        ring.forward(&mut poly);
        poly
    };
    let coefficients = poly(&batch["s"]);
    let secret = SecretWords::copied(&transform(&batch["s"]));
    let keys = EvaluationKeys {
        key_bodies: list(&batch["key_bodies"]).map(transform).collect(),
        public_key_seed: [0; 32],
        public_key_body: transform(&batch["public_key"][1]),
    };
    // Ours under the same secret differ by noise alone.
    let ours = evaluation_keys(instance, &coefficients, &secret, &mut KeyRng::from_seed(1));
    for (ours, given) in ours.key_bodies.iter().zip(&keys.key_bodies) {
        let mut difference: Vec<u64> =
            ours.iter().zip(given).map(|(&a, &b)| ring.modulus().sub(a, b)).collect();
        ring.inverse(&mut difference);
        assert!(difference.iter().all(|&v| ring.modulus().centred(v).abs() <= 64), "key-switch bodies");
    }
    (secret, keys)
}

fn mask_blocks(model: &PreparedModel, keys: &ExpandedKeys, batch: &Value) -> Vec<MaskBlock> {
    let (instance, ring) = (model.instance(), model.instance().ring());
    let switch = Switch::new(ring.modulus(), MASK_WORD_BITS);
    let jobs = [MaskJob { keys, seed: [0; 32] }];
    let mut scratch = Scratch::new(instance, 1);
    let blocks = list(&batch["zeros"]).enumerate().map(|(block, given)| {
        model.dot_products(&model.view(), &jobs, block, &mut scratch);
        let mut zero = Zero::new(ring.n());
        zero.mask.copy_from_slice(&poly(&given[0]));
        zero.body.copy_from_slice(&poly(&given[1]));
        ring.forward(&mut zero.mask);
        ring.forward(&mut zero.body);
        zero.add_to(ring, model.mask(block), &scratch.sums, &mut vec![0; ring.n()], &switch)
    });
    blocks.map(MaskBlock::new).collect()
}

fn check_batch(batch: &Value, model: &PreparedModel, weights: &ServerWeights, client: &Client) {
    let instance = model.instance();
    let (secret, keys) = given_keys(instance, batch);
    let masks = mask_blocks(model, &ExpandedKeys::new(instance, &keys), batch);
    for (mask, expected) in masks.iter().zip(list(&batch["masks"])) {
        let expected: Vec<u64> = list(expected).flat_map(poly).collect();
        assert!(mask.words().iter().map(|&word| u64::from(word)).eq(expected), "mask words");
    }
    let mut ours = client.batch_of(secret, keys);
    ours.accept_masks(0, &masks).unwrap();
    for (mut slot, token) in ours.into_slots().unwrap().into_iter().zip(list(&batch["tokens"])) {
        let mut secrets = slot.secrets(0);
        let noise: Vec<i8> = integers(&token["noise"]).into_iter().map(|e| e as i8).collect();
        let body = masked(instance, &secrets.pads, integers(&token["X"]).into_iter(), &noise);
        assert_eq!(body, poly(&token["body"]), "body");
        let reply = weights.answer(0, &[Body::from_words(body).unwrap()]).unwrap().remove(0);
        assert!(reply.words().iter().map(|&word| u64::from(word)).eq(poly(&token["reply"])), "reply");
        let phi = instance.params().phi() as f64;
        let values = decode_centred(instance, &mut secrets.corrections, &reply).map(|v| v as f64 / phi);
        assert!(values.eq(list(&token["y"]).map(|y| y.as_f64().unwrap())), "decoded values");
    }
}

#[test]
fn every_step_reproduces_the_reference() {
    let vectors = read("n64.json");
    for isa in Isa::supported() {
        for form in [TableForm::Ntt, TableForm::Compact] {
            let (instance, rows) = reference_instance(&vectors, isa);
            let instance = Arc::new(instance);
            let columns = 0..instance.layout().rounds()[0].d_in;
            let raw = [RawRound { matrices: vec![RawMatrix { columns, weights: &rows }] }];
            let weights = Arc::new(ServerWeights::with_isa(instance.layout(), &raw, isa).unwrap());
            let options = PrepareOptions::default();
            let model =
                PreparedModel::prepare(Arc::clone(&instance), Arc::clone(&weights), form, &options).unwrap();
            assert_eq!(model.form(), form);
            check_tables(&vectors, &model);
            let client = Client::new(Arc::clone(&instance), ClientOptions::default());
            for batch in list(&vectors["batches"]) {
                check_batch(batch, &model, &weights, &client);
            }
        }
    }
}

fn hash(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    blake3::hash(&bytes).to_string()
}

#[test]
fn domain_and_expansion_are_pinned() {
    let pinned = read("domain.json");
    let params = Params::n2048_q50(64).unwrap();
    let (n, q) = (params.n(), params.q());
    let rounds = vec![RoundSpec { d_in: 40, matrices: vec![MatrixSpec { rows: 1, columns: 0..40 }] }; 2];
    let instance =
        Instance::new(params, rounds, ModelDigest(std::array::from_fn(|i| i as u8)), "plain").unwrap();
    let (ring, modulus) = (instance.ring(), instance.ring().modulus());
    let mut points = vec![0; n];
    points[1] = 1;
    ring.forward(&mut points);
    // Position k holds the value at root^(2 bitreverse(k) + 1).
    let root = pinned["root"].as_u64().unwrap();
    assert_eq!(modulus.pow(root, n as u64), q - 1, "a primitive 2n-th root of unity");
    for (k, &x) in points.iter().enumerate() {
        let reversed = k.reverse_bits() >> (usize::BITS - n.trailing_zeros());
        assert_eq!(x, modulus.pow(root, 2 * reversed as u64 + 1), "evaluation point {k}");
    }
    let mut words = vec![0; n];
    let check = |name: &str, words: &[u64]| {
        let got = serde_json::json!({ "first": words[..2], "blake3": hash(words) });
        assert_eq!(got, pinned[name], "{name}");
    };
    check("points", &points);
    instance.public_mask(1, 1, &mut words);
    check("public_mask_round_1_poly_1", &words);
    instance.key_mask(1, &mut words);
    check("key_mask_level_1", &words);
    public_key_mask(q, &[5; 32], &mut words);
    check("public_key_mask_seed_5", &words);
}
