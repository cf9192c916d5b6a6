//! Llama 3, Qwen2 and Qwen3 against candle-transformers' models, and one file format against the other.

use crate::tiny::Tiny;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2, qwen3};
use models::layers::head::HeadPrecision;
use models::linear::dense::DenseBackend;
use models::model::CausalModel;
use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::split;
use serde_json::from_value;

/// Longer than the context at which Llama 3's scaling sets in for the tiny model.
fn prompt() -> Vec<u32> {
    (0..90).map(|i| (i * i + 7 * i + 3) % 50).collect()
}

const DECODED: [u32; 3] = [7, 9, 3];

/// The opened model and its directory, which is read when tensors are asked for.
fn opened(tiny: &Tiny) -> (ModelSource, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    tiny.write_directory(directory.path());
    (ModelSource::open(directory.path()).unwrap(), directory)
}

fn decoder(source: &ModelSource, kind: PlanKind) -> (Box<dyn CausalModel>, DenseBackend) {
    let parts = split(source, kind, |_| ()).unwrap();
    let family = source.config.split_family();
    let backend = DenseBackend::from_source(family, &*source.weights, parts.plan.clone()).unwrap();
    (parts.client.causal_model(HeadPrecision::Float).unwrap(), backend)
}

/// Logits behind the prompt and each decoded token, by a reference and by both plans.
fn compare(tiny: &Tiny, mut reference: impl FnMut(&Tensor, usize) -> Tensor) {
    let prompt = prompt();
    let steps: Vec<&[u32]> = std::iter::once(&prompt[..]).chain(DECODED.chunks(1)).collect();
    let mut position = 0;
    let expected: Vec<Tensor> = steps
        .iter()
        .map(|ids| {
            let input = Tensor::new(*ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = reference(&input, position).flatten_all().unwrap();
            position += ids.len();
            logits
        })
        .collect();
    let (source, _directory) = opened(tiny);
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut model, mut backend) = decoder(&source, kind);
        for (ids, expected) in steps.iter().zip(&expected) {
            let got = model.forward(ids, &mut backend).unwrap();
            let worst = (&got - expected).unwrap().abs().unwrap().max(D::Minus1).unwrap();
            let (worst, scale) = (worst.to_scalar::<f32>().unwrap(), expected.abs().unwrap());
            let scale = scale.max(D::Minus1).unwrap().to_scalar::<f32>().unwrap();
            assert!(scale > 0.1, "the reference says nothing");
            assert!(worst < 2e-5 * scale.max(1.0), "{kind}: off by {worst} of {scale}");
        }
    }
}

fn variables(tiny: &Tiny) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tiny.tensors.clone().into_iter().collect(), DType::F32, &Device::Cpu)
}

#[test]
fn llama_with_scaled_positions_and_untied_head() {
    let tiny = Tiny::llama();
    let config: llama::LlamaConfig = from_value(tiny.config.clone()).unwrap();
    let config = config.into_config(false);
    let model = llama::Llama::load(variables(&tiny), &config).unwrap();
    let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    compare(&tiny, |input, position| model.forward(input, position, &mut cache).unwrap());
}

#[test]
fn qwen2_with_biases_and_tied_head() {
    let tiny = Tiny::qwen2();
    let config: qwen2::Config = from_value(tiny.config.clone()).unwrap();
    let mut model = qwen2::ModelForCausalLM::new(&config, variables(&tiny)).unwrap();
    compare(&tiny, |input, position| model.forward(input, position).unwrap());
}

#[test]
fn qwen3_with_normed_heads_wider_than_the_residual() {
    let tiny = Tiny::qwen3();
    let config: qwen3::Config = from_value(tiny.config.clone()).unwrap();
    let mut model = qwen3::ModelForCausalLM::new(&config, variables(&tiny)).unwrap();
    compare(&tiny, |input, position| model.forward(input, position).unwrap());
}

#[test]
fn gguf_equals_safetensors() {
    for mut tiny in [Tiny::llama(), Tiny::qwen2(), Tiny::qwen3()] {
        // GGUF has the scaling as a tensor of divisors instead; see below.
        tiny.config.as_object_mut().unwrap().remove("rope_scaling");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tiny.gguf");
        tiny.write_gguf(&path);
        let gguf = ModelSource::open(&path).unwrap();
        let (safetensors, _directory) = opened(&tiny);
        assert_eq!(gguf.config, safetensors.config);
        let parts = [&gguf, &safetensors].map(|source| split(source, PlanKind::Fused, |_| ()).unwrap());
        assert!(parts[0].server == parts[1].server, "the servers' weights differ");
        let [a, b] = [&gguf, &safetensors].map(|source| {
            let (mut model, mut backend) = decoder(source, PlanKind::Plain);
            model.forward_all(&prompt(), &mut backend).unwrap().to_vec2::<f32>().unwrap()
        });
        assert_eq!(a, b);
        assert_eq!(gguf.tokenizer.special().eos, [1]);
        assert_eq!(safetensors.tokenizer.special().eos, [1]);
    }
}

#[test]
fn ggufs_rotary_divisors_equal_llama_3s_formula() {
    let tiny = Tiny::llama();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    tiny.write_gguf(&path);
    let (safetensors, _directory) = opened(&tiny);
    let logits = |source: &ModelSource| {
        let (mut model, mut backend) = decoder(source, PlanKind::Plain);
        model.forward_all(&prompt(), &mut backend).unwrap()
    };
    let expected = logits(&safetensors);
    let difference = |other: Tensor| {
        let worst = (other - &expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        worst.to_scalar::<f32>().unwrap()
    };
    assert!(difference(logits(&ModelSource::open(&path).unwrap())) < 1e-4);
    let mut unscaled = Tiny::llama();
    unscaled.config.as_object_mut().unwrap().remove("rope_scaling");
    let (unscaled, _directory) = opened(&unscaled);
    assert!(difference(logits(&unscaled)) > 1e-3, "the scaling makes no difference here");
}

#[test]
fn the_last_logits_are_those_of_all() {
    let (source, _directory) = opened(&Tiny::llama());
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut model, mut backend) = decoder(&source, kind);
        let all = model.forward_all(&prompt(), &mut backend).unwrap();
        model.clear();
        let last = model.forward(&prompt(), &mut backend).unwrap().to_vec1::<f32>().unwrap();
        let expected = all.to_vec2::<f32>().unwrap().pop().unwrap();
        assert!(last.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{kind}");
    }
}
