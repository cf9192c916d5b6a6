//! The Rampart token classifier, read from its 4-bit ONNX file.

use crate::support;
use candle_core::Tensor;
use sha2::{Digest, Sha256};
use sotto_models::families::{Encoder, ModelConfig};
use sotto_models::formats::WeightSource;
use sotto_models::formats::onnx::OnnxFile;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::linear::run_pass;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;

/// "My name is Alex Rivera and my SSN is 472-81-0094." as ids, with the index of the largest logit, that logit, and the
/// logit of O, as ONNX Runtime computes them.
const GOLDEN: [(u32, usize, f32, f32); 21] = [
    (2, 0, 3.85592, 3.85592),
    (15545, 0, 12.41236, 12.41236),
    (921, 0, 12.23941, 12.23941),
    (15941, 0, 12.17713, 12.17713),
    (4196, 1, 10.83582, 4.78920),
    (12050, 3, 10.8377, 4.04309),
    (2550, 0, 12.3521, 12.3521),
    (15545, 0, 12.43311, 12.43311),
    (16550, 0, 11.83927, 11.83927),
    (1105, 0, 12.07931, 12.07931),
    (15941, 0, 11.86648, 11.86648),
    (17882, 0, 6.14775, 6.14775),
    (5923, 0, 6.56420, 6.56420),
    (9046, 0, 7.11485, 7.11485),
    (15471, 0, 6.94342, 6.94342),
    (9046, 0, 7.11634, 7.11634),
    (10004, 0, 6.81185, 6.81185),
    (16524, 0, 6.91155, 6.91155),
    (2718, 0, 6.80259, 6.80259),
    (7148, 0, 11.19934, 11.19934),
    (3, 0, 11.60881, 11.60881),
];

fn rampart() -> ModelSource {
    ModelSource::open(support::rampart()).unwrap()
}

fn model(source: &ModelSource, kind: PlanKind) -> (Encoder, DenseBackend) {
    let parts = split(source, kind, |_| ()).unwrap();
    let backend = DenseBackend::from_source(&source.config, &*source.weights, parts.plan).unwrap();
    (parts.client.encoder().unwrap(), backend)
}

fn classify(model: &Encoder, backend: &mut DenseBackend, sequences: &[&[u32]]) -> Tensor {
    let tokens = sequences.iter().map(|ids| ids.len()).sum();
    run_pass(backend, tokens, |backend| model.classify(sequences, backend)).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn dequantized_tensors_have_the_known_hashes() {
    let source = OnnxFile::open(support::rampart().join("model_q4.onnx")).unwrap();
    let mut checked = 0;
    for line in include_str!("../golden/rampart_tensors.tsv").lines().skip(1) {
        let [name, shape, hash] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let shape: Vec<usize> = shape.split('x').map(|dim| dim.parse().unwrap()).collect();
        let values =
            source.get_shaped(name, &shape).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(hex::encode(&Sha256::digest(bytes)[..8]), hash, "{name}");
        checked += 1;
    }
    assert_eq!(checked, 40);
    assert_eq!(source.names().len(), 103);
}

#[test]
fn logits_equal_onnx_runtime() {
    let source = rampart();
    let ids = GOLDEN.map(|row| row.0);
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (bert, mut backend) = model(&source, kind);
        let logits = classify(&bert, &mut backend, &[&ids]).to_vec2::<f32>().unwrap();
        for (position, (row, (_, label, highest, outside))) in logits.iter().zip(GOLDEN).enumerate() {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            assert_eq!(best, label, "{kind} {position}");
            assert!((row[best] - highest).abs() < 1e-3, "{kind} {position}: {} {highest}", row[best]);
            assert!((row[0] - outside).abs() < 1e-3, "{kind} {position}: {} {outside}", row[0]);
        }
    }
}

#[test]
fn sequences_of_one_pass_do_not_see_each_other() {
    let source = rampart();
    let ids = GOLDEN.map(|row| row.0);
    let sequences: [&[u32]; 3] = [&ids, &ids[..9], &ids[3..20]];
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (bert, mut backend) = model(&source, kind);
        let together = classify(&bert, &mut backend, &sequences);
        let alone: Vec<_> = sequences.iter().map(|ids| classify(&bert, &mut backend, &[*ids])).collect();
        assert!(worst(&together, &Tensor::cat(&alone, 0).unwrap()) < 1e-4, "{kind}");
    }
}

#[test]
fn fused_rounds_are_two_per_layer_and_one() {
    let config: ModelConfig = rampart().config;
    assert_eq!(config.plan(PlanKind::Fused).unwrap().rounds.len(), 13);
    assert_eq!(config.plan(PlanKind::Plain).unwrap().rounds.len(), 25);
    config.plan(PlanKind::Fused).unwrap().validate().unwrap();
}

#[test]
fn unusable_sequences_are_refused() {
    let source = rampart();
    let (bert, mut backend) = model(&source, PlanKind::Plain);
    let long = vec![5; bert.max_positions() + 1];
    let cases: [&[&[u32]]; 4] = [&[], &[&[]], &[&[2, 19_730]], &[&long]];
    for sequences in cases {
        assert!(bert.classify(sequences, &mut backend).is_err());
    }
}
