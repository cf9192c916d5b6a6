//! Every family against what transformers computes for small models of random weights (`golden/make_families.py`): both plans,
//! quantized weights, a cache filled step by step, and GGUF files.

use candle_core::Tensor;
use serde_json::json;
use sotto_models::families::{FAMILIES, FamilyId};
use sotto_models::formats::WeightSource;
use sotto_models::formats::safetensors::SafetensorsFile;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{SplitParts, split};
use std::path::{Path, PathBuf};

/// A golden file: its family, whether there is a fused plan and how many rounds two blocks take in either, and whether
/// there is a GGUF file, too.
struct Golden {
    name: &'static str,
    family: &'static str,
    plain_rounds: usize,
    fused_rounds: Option<usize>,
    gguf: bool,
}

const fn decoder(name: &'static str, family: &'static str, rounds: (usize, usize), gguf: bool) -> Golden {
    let (plain_rounds, fused) = rounds;
    let fused_rounds = if fused == 0 { None } else { Some(fused) };
    Golden { name, family, plain_rounds, fused_rounds, gguf }
}

/// In turn four rounds a block and two; in parallel two rounds and one; one more for the first input of a fused plan, one
/// for a head that is not tied.
const DECODERS: &[Golden] = &[
    decoder("llama", "llama", (9, 6), true),
    decoder("mistral", "llama", (9, 6), false),
    decoder("qwen2", "qwen2", (8, 5), true),
    decoder("qwen3", "qwen3", (9, 6), true),
    decoder("gemma", "gemma", (8, 5), true),
    decoder("gemma2", "gemma2", (8, 0), true),
    decoder("gemma3", "gemma3", (8, 0), false),
    decoder("gemma3_local", "gemma3", (8, 0), true),
    decoder("phi", "phi", (5, 4), true),
    decoder("phi3", "phi3", (9, 6), true),
    decoder("smollm3", "smollm3", (8, 5), false),
    decoder("smollm3_rotated", "smollm3", (8, 5), true),
    decoder("olmo2", "olmo2", (9, 0), true),
    decoder("granite", "granite", (8, 5), true),
    decoder("starcoder2", "starcoder2", (8, 5), true),
    decoder("gpt_neox", "gpt_neox", (5, 4), true),
    decoder("cohere", "cohere", (4, 3), true),
    decoder("cohere2", "cohere2", (4, 3), false),
];

const ENCODERS: &[Golden] = &[
    decoder("xlm_roberta", "xlm-roberta", (8, 5), false),
    decoder("distilbert", "distilbert", (8, 5), false),
    decoder("distilbert_labels", "distilbert", (9, 5), false),
    decoder("modernbert", "modernbert", (8, 5), false),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(name)
}

impl Golden {
    fn file(&self) -> SafetensorsFile {
        SafetensorsFile::open(path(&format!("{}.safetensors", self.name))).unwrap()
    }

    fn ids(&self) -> Vec<u32> {
        let ids = self.file().get("golden.ids").unwrap().to_vec1::<f32>().unwrap();
        ids.into_iter().map(|id| id as u32).collect()
    }

    /// The model as a directory of the hub, opened; the directory must outlive it.
    fn opened(&self) -> (ModelSource, tempfile::TempDir) {
        let bytes = std::fs::read(path(&format!("{}.safetensors", self.name))).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let config = header.metadata().as_ref().unwrap()["config"].clone();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let words: serde_json::Map<String, _> = (0..48).map(|i| (format!("w{i}"), json!(i))).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
        });
        std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
        (ModelSource::open(directory.path()).unwrap(), directory)
    }

    fn check_plans(&self, source: &ModelSource) {
        assert_eq!(source.config.family, self.family.parse::<FamilyId>().unwrap(), "{}", self.name);
        assert_eq!(
            source.config.plan(PlanKind::Plain).unwrap().rounds.len(),
            self.plain_rounds,
            "{}",
            self.name
        );
        match (self.fused_rounds, source.config.plan(PlanKind::Fused)) {
            (Some(rounds), Ok(plan)) => assert_eq!(plan.rounds.len(), rounds, "{}", self.name),
            (None, Err(error)) => assert!(error.to_string().contains("plain plan"), "{error}"),
            (expected, plan) => panic!("{}: expected {expected:?}, got {plan:?}", self.name),
        }
    }

    fn kinds(&self) -> &'static [PlanKind] {
        if self.fused_rounds.is_some() { &[PlanKind::Plain, PlanKind::Fused] } else { &[PlanKind::Plain] }
    }
}

/// Largest difference of two tensors.
fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Norm of a difference over the norm of the expected values.
fn relative(a: &Tensor, expected: &Tensor) -> f32 {
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    norm(&(a - expected).unwrap()) / norm(expected)
}

fn dense(source: &ModelSource, parts: &SplitParts) -> DenseBackend {
    DenseBackend::from_source(&source.config, &*source.weights, parts.plan.clone()).unwrap()
}

/// f32 against transformers' float64, on values up to 10.
const TOLERANCE: f32 = 3e-5;
/// int8 weights of matrices of some dozen columns: measured 0.4 % to 2.6 %, most where scores and logits are bounded least.
const QUANTIZED: f32 = 0.05;

fn check_decoder(golden: &Golden, source: &ModelSource, what: &str) {
    golden.check_plans(source);
    let expected = golden.file().get("golden.logits").unwrap();
    let ids = golden.ids();
    for &kind in golden.kinds() {
        let parts = split(source, kind, |_| ()).unwrap();
        let mut backend = dense(source, &parts);
        let mut model = parts.client.causal_model(HeadPrecision::Float).unwrap();
        let logits = model.forward_all(&ids, &mut backend).unwrap();
        let difference = worst(&logits, &expected);
        assert!(difference < TOLERANCE, "{} {what} {kind}: {difference}", golden.name);

        // Step by step, with a prompt that is shorter and one that is longer than the windows, and a detour cut off.
        for prompt in [3, 9] {
            model.clear();
            model.forward(&ids[..prompt], &mut backend).unwrap();
            model.forward(&[5, 6], &mut backend).unwrap();
            model.truncate(prompt);
            for position in prompt..ids.len() {
                let logits = model.forward(&ids[position..=position], &mut backend).unwrap();
                let difference = worst(&logits, &expected.get(position).unwrap());
                assert!(difference < TOLERANCE, "{} {what} {kind} {position}: {difference}", golden.name);
            }
        }

        let mut backend = DenseBackend::from_quantized(parts.plan.clone(), &parts.server).unwrap();
        model.clear();
        let logits = model.forward_all(&ids, &mut backend).unwrap();
        let error = relative(&logits, &expected);
        println!("{} {what} {kind}: float off by {difference:e}, int8 by {error:.4}", golden.name);
        assert!(error < QUANTIZED, "{} {what} {kind}: {error}", golden.name);
    }
}

#[test]
fn decoders_equal_transformers() {
    for golden in DECODERS {
        let (source, _directory) = golden.opened();
        check_decoder(golden, &source, "safetensors");
    }
}

#[test]
fn gguf_files_give_the_same() {
    for golden in DECODERS.iter().filter(|golden| golden.gguf) {
        let source = ModelSource::open(path(&format!("{}.gguf", golden.name))).unwrap();
        check_decoder(golden, &source, "GGUF");
    }
}

#[test]
fn encoders_equal_transformers() {
    for golden in ENCODERS {
        let (source, _directory) = golden.opened();
        golden.check_plans(&source);
        let ids = golden.ids();
        let labels = source.config.labels().len();
        let expected = golden.file().get(if labels > 0 { "golden.labels" } else { "golden.hidden" }).unwrap();
        for &kind in golden.kinds() {
            let parts = split(&source, kind, |_| ()).unwrap();
            let encoder = parts.client.encoder().unwrap();
            let run = |backend: &mut DenseBackend, sequences: &[&[u32]]| match labels {
                0 => encoder.encode(sequences, backend).unwrap(),
                _ => encoder.classify(sequences, backend).unwrap(),
            };
            let mut backend = dense(&source, &parts);
            // Another sequence in the same pass changes nothing.
            let both = run(&mut backend, &[&ids[..6], &ids]);
            let difference = worst(&both.narrow(0, 6, ids.len()).unwrap(), &expected);
            assert!(difference < TOLERANCE, "{} {kind}: {difference}", golden.name);
            let mut backend = DenseBackend::from_quantized(parts.plan.clone(), &parts.server).unwrap();
            let error = relative(&run(&mut backend, &[&ids]), &expected);
            println!("{} {kind}: float off by {difference:e}, int8 by {error:.4}", golden.name);
            assert!(error < QUANTIZED, "{} {kind}: {error}", golden.name);
        }
    }
}

#[test]
fn every_family_has_a_golden_file() {
    let tested = DECODERS.iter().chain(ENCODERS).map(|golden| golden.family);
    // These two have tests of their own: `gpt2_golden.rs`, and `bert_*.rs`.
    let tested: Vec<_> = tested.chain(["gpt2", "bert"]).collect();
    for family in FAMILIES {
        assert!(tested.contains(&family.name()), "{} has no golden file", family.name());
    }
}
