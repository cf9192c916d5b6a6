//! The reference's vectors on the toy ring, and the hashes that pin the protocol's domain and XOF.
//!
//! `testdata/split_phase_vectors/n64.json` holds every input, random draw and result of the executable reference, for both
//! parameter sets and all wire forms; fed the same draws, each step here must give the same integers. `domain.json` pins what
//! the reference leaves open: order and root of the transform, and the expansion of the public masks.

use crate::ciphertext::{Body, EvaluationKeys, MaskBlock};
use crate::client::batch::{PublicMask, evaluation_keys};
use crate::client::encrypt::{decode_words, masked};
use crate::client::{Client, ClientOptions, ClientSession};
use crate::form::{Widths, WireForm};
use crate::instance::{GivenMasks, Instance, ModelDigest};
use crate::kernels::Isa;
use crate::layout::{MatrixSpec, RoundSpec};
use crate::params::{MASK_WORD_BITS, Params, Set};
use crate::random::keys::KeyRng;
use crate::random::xof::public_key_mask;
use crate::secret::SecretWords;
use crate::server::mask_half::Scratch;
use crate::server::*;
use crate::switch::Switch;
use crate::words::{MaskWords, SessionSeed, WordBody};
use crate::{Slot, bits};
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

fn words(value: &Value) -> Vec<u32> {
    integers(value).into_iter().map(|v| v as u32).collect()
}

fn small(value: &Value) -> Vec<i8> {
    integers(value).into_iter().map(|v| v as i8).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

/// Values in natural NTT order.
fn transformed(instance: &Instance, value: &Value) -> Vec<u64> {
    let mut poly = poly(value);
    instance.ring().forward(&mut poly);
    poly
}

/// One parameter set of the vectors, its masks given, on one instruction set.
struct Case<'a> {
    vectors: &'a Value,
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    client: Client,
    model: PreparedModel,
}

impl<'a> Case<'a> {
    /// `form` names the form whose session key mask is given.
    fn new(all: &'a Value, set: Set, form: &str, table: TableForm, isa: Isa) -> Self {
        let vectors = &all["sets"][set.to_string()];
        let rows: Vec<Vec<i64>> = list(&vectors["W"]).map(integers).collect();
        let params = Params::insecure_toy_n64_set(16, set).unwrap();
        assert_eq!((all["N"].as_u64(), all["q"].as_u64()), (Some(params.n() as u64), Some(params.q())));
        for (name, value) in [
            ("levels", params.levels() as u64),
            ("base_log", params.base_log().into()),
            ("drop", params.drop().into()),
        ] {
            assert_eq!(vectors[name].as_u64(), Some(value), "{name}");
        }
        let columns = 0..rows[0].len();
        let spec = MatrixSpec { rows: rows.len(), columns: columns.clone() };
        let rounds = vec![RoundSpec { d_in: columns.len(), matrices: vec![spec] }];
        let mut instance =
            Instance::with_isa(params, rounds, ModelDigest([0; 32]), "reference", isa).unwrap();
        let session = &vectors[form]["public_key_mask"];
        let given = GivenMasks {
            public: list(&vectors["A"]).map(|value| transformed(&instance, value)).collect(),
            key: list(&vectors["key_masks"]).map(|value| transformed(&instance, value)).collect(),
            session: if session.is_null() { Vec::new() } else { transformed(&instance, session) },
        };
        instance.give_masks(given);
        let instance = Arc::new(instance);
        let rows: Vec<i8> = rows.into_iter().flatten().map(|w| w as i8).collect();
        let raw = [RawRound { matrices: vec![RawMatrix { columns, weights: &rows }] }];
        let weights = Arc::new(ServerWeights::with_isa(instance.layout(), &raw, isa).unwrap());
        let (shared, served) = (Arc::clone(&instance), Arc::clone(&weights));
        let model = PreparedModel::prepare(shared, served, table, &PrepareOptions::default()).unwrap();
        assert_eq!(model.form(), table);
        let client = Client::new(Arc::clone(&instance), ClientOptions::default());
        Self { vectors, instance, weights, client, model }
    }

    fn check_tables(&self) {
        let params = self.instance.params();
        let (width, n) = (params.gadget().digit_bytes(), params.n());
        let (mut mask, mut digits) = (vec![0; n], vec![0; n]);
        for (block, expected) in list(&self.vectors["blocks"]).enumerate() {
            self.model.load_mask(block, &mut mask);
            assert_eq!(mask, poly(&expected["a"]), "final mask");
            assert!(
                self.model.fold(block).iter().map(|&v| i64::from(v)).eq(integers(&expected["fold"])),
                "fold"
            );
            let packed = self.model.view().digits(block).compact(self.instance.ring(), width);
            for (term, packed) in packed.chunks_exact(n * width).enumerate() {
                let (j, level) = (term / params.levels() + 1, term % params.levels());
                digits::load_digits(packed, width, &mut digits);
                let expected = integers(&expected["digits"][j.to_string()][level]);
                assert!(
                    digits.iter().map(|&d| i64::from(d)).eq(expected),
                    "digits of rotation {j}, level {level}"
                );
            }
        }
    }

    fn given_keys(&self, batch: &Value, public_key_body: &Value) -> (SecretWords, EvaluationKeys) {
        let (instance, ring) = (&self.instance, self.instance.ring());
        let coefficients = poly(&batch["s"]);
        let secret = SecretWords::copied(&transformed(instance, &batch["s"]));
        let keys = EvaluationKeys {
            key_bodies: list(&batch["key_bodies"]).map(|value| transformed(instance, value)).collect(),
            public_key_seed: [0; 32],
            public_key_body: transformed(instance, public_key_body),
        };
        // Ours under the same secret differ by noise alone.
        let public = PublicMask { seed: [0; 32], words: vec![0; ring.n()] };
        let ours = evaluation_keys(instance, &coefficients, &secret, public, &mut KeyRng::from_seed(1));
        for (ours, given) in ours.key_bodies.iter().zip(&keys.key_bodies) {
            let mut difference: Vec<u64> =
                ours.iter().zip(given).map(|(&a, &b)| ring.modulus().sub(a, b)).collect();
            ring.inverse(&mut difference);
            assert!(difference.iter().all(|&v| ring.modulus().centred(v).abs() <= 64), "key-switch bodies");
        }
        (secret, keys)
    }

    /// The packing chain's dot products of one batch and block.
    fn dot_products(&self, keys: &ExpandedKeys, block: usize) -> Scratch {
        let mut scratch = Scratch::new(&self.instance, 1);
        self.model.dot_products(&self.model.view(), &[keys], block, &mut scratch);
        scratch
    }

    /// Encrypts, answers and decodes every token of the vectors.
    fn check_tokens(&self, form: WireForm, slots: Vec<Slot>, batch: &Value, kept: Option<&LeanBatch>) {
        for (t, (mut slot, token)) in slots.into_iter().zip(list(&batch["tokens"])).enumerate() {
            let secrets = slot.secrets(0);
            let message = integers(&token["X"]).into_iter();
            let body = masked(&self.instance, form, &secrets.pads, message, &small(&token["noise"]));
            let reply = match form.widths() {
                None => {
                    assert_eq!(*body, poly(&token["body"]), "body");
                    let body = Body::from_words(body.publish()).unwrap();
                    body_half(&self.weights, 0, &[body]).unwrap().remove(0).words().to_vec()
                }
                Some(widths) => {
                    let shift = 32 - widths.body();
                    let body: Vec<u32> = body.iter().map(|&word| (word as u32) << shift).collect();
                    assert_eq!(body, words(&token["body"]), "body");
                    self.word_answer(form, t, &WordBody::from_words(body, widths).unwrap(), kept)
                }
            };
            assert_eq!(reply, words(&token["reply"]), "reply");
            let decoded = decode_words(&reply, &secrets.corrections).map(i64::from);
            assert!(decoded.eq(integers(&token["y"])), "decoded values");
        }
    }

    fn word_answer(
        &self,
        form: WireForm,
        slot: usize,
        body: &WordBody,
        kept: Option<&LeanBatch>,
    ) -> Vec<u32> {
        let claim = |batch: &LeanBatch| -> Claim {
            batch.claim(self.instance.layout(), slot, 0, &body.to_bytes()).unwrap().0
        };
        if let Some(batch) = kept {
            assert_eq!((claim(batch), claim(batch)), (Claim::First, Claim::Repeat));
        }
        let kept = kept.map(|batch| batch.words.slot(self.instance.layout(), slot, 0).unwrap());
        let query = [WordQuery { body, words: kept }];
        word_half(&self.weights, 0, &query, form.widths().unwrap()).unwrap().remove(0).words().to_vec()
    }

    fn check_full(&self) {
        let switch = Switch::new(self.instance.ring().modulus(), MASK_WORD_BITS);
        for batch in list(&self.vectors["full"]["batches"]) {
            let (secret, keys) = self.given_keys(batch, &batch["public_key"][1]);
            let keys_read = ExpandedKeys::new(&self.instance, &keys);
            let mut masks = Vec::new();
            for (block, (zero, expected)) in list(&batch["zeros"]).zip(list(&batch["masks"])).enumerate() {
                let mut scratch = self.dot_products(&keys_read, block);
                scratch.zero.mask.copy_from_slice(&transformed(&self.instance, &zero[0]));
                scratch.zero.body.copy_from_slice(&transformed(&self.instance, &zero[1]));
                let mask = self.model.full_words(block, 0, &mut scratch, &switch);
                assert_eq!(mask, list(expected).flat_map(words).collect::<Vec<_>>(), "mask words");
                masks.push(MaskBlock::new(mask));
            }
            let mut ours = self.client.batch_of(secret, keys).unwrap();
            ours.accept_masks(0, &masks).unwrap();
            self.check_tokens(WireForm::Full, ours.into_slots().unwrap(), batch, None);
        }
    }

    fn check_session(&self, form: WireForm) {
        let (instance, vectors) = (&self.instance, &self.vectors[form.name()]);
        let (seed, widths) = (SessionSeed::from_bytes([0; 32]), form.widths().unwrap());
        let session = ServerSession::new(instance, form, &[1; 32], b"credential", seed).unwrap();
        let secrets: Vec<Vec<u64>> = list(&vectors["secrets"]).map(poly).collect();
        let mut packed = Vec::new();
        for (block, expected) in list(&vectors["shared_masks"]).enumerate() {
            let noise = small(&vectors["mask_noise"][block]);
            let mask = self.model.shared_mask(&session, block, &mut secrets[block].clone(), &noise);
            let unpacked =
                bits::unpack("shared mask", &mask, instance.params().n(), widths.shared()).unwrap();
            assert_eq!(unpacked, words(expected), "shared mask of block {block}");
            packed.extend(mask);
        }
        let ours = ClientSession::from_masks(Arc::clone(instance), form, seed, packed, None).unwrap();
        for batch in list(&vectors["batches"]) {
            let (secret, keys) = self.given_keys(batch, &batch["public_key_body"]);
            let keys_read = ExpandedKeys::for_session(instance, &keys);
            let mut kept = LeanBatch::new(instance);
            let mut sent = Vec::new();
            for (block, expected) in list(&batch["words"]).enumerate() {
                let mut scratch = self.dot_products(&keys_read, block);
                let mut secret = secrets[block].clone();
                instance.ring().forward(&mut secret);
                scratch.zero.ephemeral.copy_from_slice(&secret);
                let body = self.model.body_words(&keys_read, form, block, 0, &mut scratch);
                assert_eq!(body.words(), words(expected), "b' of block {block}");
                match form {
                    WireForm::Lean(_) => kept.words.store(block, &body).unwrap(),
                    _ => body.write(&mut sent),
                }
            }
            let mut batch_of = self.client.session_batch_of(&ours, secret, keys).unwrap();
            if !form.keeps_words() {
                let blocks = MaskWords::read_all(instance.params(), form, &sent).unwrap();
                batch_of.accept_mask_words(0, &blocks).unwrap();
            }
            let slots = batch_of.into_slots().unwrap();
            self.check_tokens(form, slots, batch, form.keeps_words().then_some(&kept));
        }
    }
}

#[test]
fn every_step_reproduces_the_reference() {
    let all = read("n64.json");
    for isa in Isa::supported() {
        for (set, table) in
            Set::ALL.into_iter().flat_map(|set| [(set, TableForm::Ntt), (set, TableForm::Compact)])
        {
            let case = |form| Case::new(&all, set, form, table, isa);
            let full = case("full");
            full.check_tables();
            full.check_full();
            case("lean").check_session(WireForm::Lean(Widths::DEFAULT));
            case("stateless").check_session(WireForm::stateless());
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
    instance.session_key_mask(&SessionSeed::from_bytes([6; 32]), &mut words);
    check("session_key_mask_seed_6", &words);
    public_key_mask(q, &[5; 32], &mut words);
    check("public_key_mask_seed_5", &words);
}
