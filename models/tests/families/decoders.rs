//! Llama 3, Qwen2 and Qwen3 against candle-transformers' models, and one file format against the other.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2, qwen3};
use serde_json::from_value;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::model::{CausalModel, PrefixCache, Rows, TextPass};
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use sotto_testing::tiny::Tiny;

/// Longer than the context at which Llama 3's scaling sets in for the tiny model.
fn prompt() -> Vec<u32> {
    (0..90).map(|i| (i * i + 7 * i + 3) % 50).collect()
}

const DECODED: [u32; 3] = [7, 9, 3];

/// The opened model and its directory, which must outlive it.
fn opened(tiny: &Tiny) -> (ModelSource, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    tiny.write_directory(directory.path());
    (ModelSource::open(directory.path()).unwrap(), directory)
}

fn decoder(source: &ModelSource, kind: PlanKind) -> (Box<dyn CausalModel>, DenseBackend) {
    let parts = split(source, kind, |_| ()).unwrap();
    let family = &source.config;
    let backend = DenseBackend::from_source(family, &*source.weights, parts.plan.clone()).unwrap();
    (parts.client.causal_model(HeadPrecision::Float).unwrap(), backend)
}

/// Logits for the prompt and each decoded token, by a reference and by both plans.
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

#[test]
fn texts_that_share_a_pass_do_not_see_each_other() {
    for tiny in [Tiny::llama(), Tiny::qwen2(), Tiny::qwen3()] {
        let (source, _directory) = opened(&tiny);
        for kind in [PlanKind::Plain, PlanKind::Fused] {
            let (mut model, mut backend) = decoder(&source, kind);
            let texts: [&[u32]; 3] = [&[3, 4, 5, 6, 7], &[9, 8], &[20; 30]];
            let alone: Vec<Vec<Vec<f32>>> = texts
                .iter()
                .map(|ids| {
                    model.clear();
                    // Two passes, so that the second one has something in the cache.
                    model.forward(&ids[..1], &mut backend).unwrap();
                    model.forward_all(&ids[1..], &mut backend).unwrap().to_vec2().unwrap()
                })
                .collect();
            let mut caches: [PrefixCache; 3] = Default::default();
            let mut pass = |first: bool, rows: [Rows; 3]| {
                let mut parts: Vec<TextPass<'_>> = texts
                    .iter()
                    .zip(&mut caches)
                    .zip(rows)
                    .map(|((ids, cache), rows)| {
                        let ids = if first { &ids[..1] } else { &ids[1..] };
                        TextPass { ids, cache, rows }
                    })
                    .collect();
                model.forward_texts(&mut parts, &mut backend).unwrap()
            };
            let nothing = pass(true, [Rows::None; 3]);
            assert!(nothing.iter().all(|logits| logits.dims() == [0, 50]));
            let logits = pass(false, [Rows::Last(4), Rows::None, Rows::Last(1)]);
            assert_eq!(logits.iter().map(|rows| rows.dims()[0]).collect::<Vec<_>>(), [4, 0, 1]);
            for (text, rows) in logits.iter().enumerate() {
                let rows = rows.to_vec2::<f32>().unwrap();
                let expected = &alone[text][alone[text].len() - rows.len()..];
                for (got, expected) in rows.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((got - expected).abs() < 1e-5, "{kind}, text {text}: {got}, not {expected}");
                }
            }
            assert_eq!(caches.map(|cache| cache.len()), [5, 2, 30]);
        }
    }
}

#[test]
fn a_token_of_a_short_pass_is_exactly_what_it_is_alone() {
    let (source, _directory) = opened(&Tiny::qwen2());
    let (mut model, mut backend) = decoder(&source, PlanKind::Plain);
    let ids = prompt();
    let ids = &ids[..ids.len().min(9)];
    let mut one_by_one = Vec::new();
    for id in ids {
        one_by_one.push(model.forward(&[*id], &mut backend).unwrap().to_vec1::<f32>().unwrap());
    }
    model.clear();
    let all = model.forward_all(ids, &mut backend).unwrap().to_vec2::<f32>().unwrap();
    // The products of the test's backend are of matrices of different sizes, so equal up to its rounding.
    for (a, b) in all.iter().flatten().zip(one_by_one.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{a}, not {b}");
    }
}
