//! The MiniLM sentence encoder against candle-transformers' BERT on the same weights.

use crate::support;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::bert as reference;
use sotto_models::families::Encoder;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::linear::run_pass;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use std::path::Path;

const SENTENCES: [&str; 3] = [
    "A man is eating food.",
    "Someone has a meal at the table, slowly, while it rains outside in the small harbour town.",
    "The stock market fell by two per cent.",
];

fn model(directory: &Path, kind: PlanKind) -> (Encoder, DenseBackend) {
    let source = ModelSource::open(directory).unwrap();
    let parts = split(&source, kind, |_| ()).unwrap();
    let backend = DenseBackend::from_source(&source.config, &*source.weights, parts.plan).unwrap();
    (parts.client.encoder().unwrap(), backend)
}

fn reference(directory: &Path) -> reference::BertModel {
    let json = std::fs::read(directory.join("config.json")).unwrap();
    let config: reference::Config = serde_json::from_slice(&json).unwrap();
    let tensors = candle_core::safetensors::load(directory.join("model.safetensors"), &Device::Cpu).unwrap();
    let weights = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    reference::BertModel::load(weights, &config).unwrap()
}

fn encoded(directory: &Path) -> Vec<Vec<u32>> {
    let mut tokenizer = tokenizers::Tokenizer::from_file(directory.join("tokenizer.json")).unwrap();
    tokenizer.with_padding(None);
    SENTENCES.iter().map(|text| tokenizer.encode(*text, true).unwrap().get_ids().to_vec()).collect()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn hidden_states_equal_candle_transformers() {
    let directory = support::minilm();
    let reference = reference(&directory);
    let ids = encoded(&directory);
    let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let tokens = ids.iter().map(Vec::len).sum();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (bert, mut backend) = model(&directory, kind);
        let hidden = run_pass(&mut backend, tokens, |backend| bert.encode(&sequences, backend)).unwrap();
        let mut start = 0;
        for ids in &ids {
            let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let expected =
                reference.forward(&input, &input.zeros_like().unwrap(), None).unwrap().squeeze(0).unwrap();
            let difference = worst(&expected, &hidden.narrow(0, start, ids.len()).unwrap());
            assert!(difference < 1e-4, "{kind}: {difference}");
            start += ids.len();
        }
    }
}

#[test]
fn embeddings_have_length_one_and_know_what_is_alike() {
    let directory = support::minilm();
    let ids = encoded(&directory);
    let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let (bert, mut backend) = model(&directory, PlanKind::Fused);
    let tokens = ids.iter().map(Vec::len).sum();
    let embeddings = run_pass(&mut backend, tokens, |backend| bert.embed(&sequences, backend)).unwrap();
    let products = embeddings.matmul(&embeddings.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
    for (i, row) in products.iter().enumerate() {
        assert!((row[i] - 1.0).abs() < 1e-5);
    }
    assert!(products[0][1] > products[0][2] + 0.2, "{products:?}");
}
