//! Small BERT encoders of made-up weights, in the forms in which files of real ones come, against candle-transformers.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::bert as reference;
use serde_json::{Value as Json, json};
use sotto_models::families::{Encoder, Pooling};
use sotto_models::linear::dense::DenseBackend;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

const IDS: [u32; 7] = [2, 5, 9, 6, 5, 11, 3];

fn config() -> Json {
    json!({
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 12, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu",
        "max_position_embeddings": 10, "type_vocab_size": 2, "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.0,
        "initializer_range": 0.02, "pad_token_id": 0,
    })
}

/// Tensors under the names of transformers without a head.
fn tensors() -> BTreeMap<String, Tensor> {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![12, 16]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![10, 16]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, 16]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![16]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![16]),
    ];
    for layer in 0..2 {
        for (name, rows, columns) in [
            ("attention.self.query", 16, 16),
            ("attention.self.key", 16, 16),
            ("attention.self.value", 16, 16),
            ("attention.output.dense", 16, 16),
            ("intermediate.dense", 24, 16),
            ("output.dense", 16, 24),
        ] {
            shapes.push((format!("encoder.layer.{layer}.{name}.weight"), vec![rows, columns]));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![rows]));
        }
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{layer}.{norm}.weight"), vec![16]));
            shapes.push((format!("encoder.layer.{layer}.{norm}.bias"), vec![16]));
        }
    }
    let random = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
        let count: usize = shape.iter().product();
        let gain = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..count).map(|i| gain + 0.4 * ((seed * 7919 + i * i * 31 + i * 17) as f32).sin()).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    shapes.into_iter().enumerate().map(random).collect()
}

fn write_directory(directory: &Path, tensors: &BTreeMap<String, Tensor>) {
    std::fs::write(directory.join("config.json"), config().to_string()).unwrap();
    let words: serde_json::Map<String, Json> = (0..12).map(|i| (format!("w{i}"), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    safetensors::serialize_to_file(tensors, None, &directory.join("model.safetensors")).unwrap();
}

/// Hidden states by candle-transformers, `[tokens, hidden]`.
fn expected() -> Tensor {
    let config: reference::Config = serde_json::from_value(config()).unwrap();
    let weights =
        candle_nn::VarBuilder::from_tensors(tensors().into_iter().collect(), DType::F32, &Device::Cpu);
    let model = reference::BertModel::load(weights, &config).unwrap();
    let input = Tensor::new(&IDS, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    model.forward(&input, &input.zeros_like().unwrap(), None).unwrap().squeeze(0).unwrap()
}

fn encoder(source: &ModelSource, kind: PlanKind) -> (Encoder, DenseBackend) {
    let parts = split(source, kind, |_| ()).unwrap();
    let family = &source.config;
    let backend = DenseBackend::from_source(family, &*source.weights, parts.plan).unwrap();
    (parts.client.encoder().unwrap(), backend)
}

fn check(source: &ModelSource) {
    let expected = expected();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (bert, mut backend) = encoder(source, kind);
        let hidden = bert.encode(&[&IDS[..]], &mut backend).unwrap();
        let worst = (hidden - &expected).unwrap().abs().unwrap().max_all().unwrap();
        let worst = worst.to_scalar::<f32>().unwrap();
        assert!(worst < 1e-4, "{kind}: {worst}");
    }
}

fn renamed(rename: impl Fn(&str) -> String) -> BTreeMap<String, Tensor> {
    tensors().into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

#[test]
fn names_of_all_generations_are_found() {
    let gamma = |name: &str| match name.strip_suffix("LayerNorm.weight") {
        Some(norm) => format!("bert.{norm}LayerNorm.gamma"),
        None => format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")),
    };
    for tensors in [tensors(), renamed(|name| format!("bert.{name}")), renamed(gamma)] {
        let directory = tempfile::tempdir().unwrap();
        write_directory(directory.path(), &tensors);
        check(&ModelSource::open(directory.path()).unwrap());
    }
}

#[test]
fn an_encoder_is_read_from_gguf() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bert.gguf");
    let numbers = [
        ("context_length", 10),
        ("embedding_length", 16),
        ("feed_forward_length", 24),
        ("block_count", 2),
        ("attention.head_count", 4),
        ("pooling_type", 2),
    ];
    let mut meta: Vec<(String, Value)> =
        numbers.iter().map(|(key, number)| (format!("bert.{key}"), Value::U32(*number))).collect();
    let words = (0..12).map(|i| Value::String(format!("\u{2581}w{i}"))).collect();
    meta.extend([
        ("general.architecture".to_owned(), Value::String("bert".into())),
        ("bert.attention.layer_norm_epsilon".to_owned(), Value::F32(1e-5)),
        ("bert.attention.causal".to_owned(), Value::Bool(false)),
        ("tokenizer.ggml.model".to_owned(), Value::String("bert".into())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(words)),
    ]);
    let outer = [
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
    ];
    let block = [
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ];
    let gguf_name = |name: &str| {
        let (stem, suffix) = name.rsplit_once('.').unwrap();
        let find = |names: &[(&str, &str)], part: &str| {
            names.iter().find(|(theirs, _)| *theirs == part).map(|(_, gguf)| (*gguf).to_owned()).unwrap()
        };
        match stem.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
            Some((number, part)) => format!("blk.{number}.{}.{suffix}", find(&block, part)),
            None => format!("{}.{suffix}", find(&outer, stem)),
        }
    };
    let tensors: Vec<(String, QTensor)> = tensors()
        .iter()
        .map(|(name, tensor)| (gguf_name(name), QTensor::quantize(tensor, GgmlDType::F32).unwrap()))
        .collect();
    let meta: Vec<_> = meta.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(&path).unwrap(), &meta, &tensors).unwrap();

    let source = ModelSource::open(&path).unwrap();
    check(&source);
    assert_eq!(source.config.encoder.as_ref().unwrap().pooling, Pooling::First);
    assert_eq!(source.tokenizer.encode("w5 w9").unwrap(), [5, 9]);
}

#[test]
fn the_pooling_file_decides_what_an_embedding_is() {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path(), &tensors());
    let embedding = || {
        let (bert, mut backend) = encoder(&ModelSource::open(directory.path()).unwrap(), PlanKind::Plain);
        bert.embed(&[&IDS[..]], &mut backend).unwrap().to_vec2::<f32>().unwrap().remove(0)
    };
    let scaled = |vector: Tensor| {
        let vector = vector.to_vec1::<f32>().unwrap();
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.into_iter().map(|value| value / length).collect::<Vec<_>>()
    };
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    let (mean, first) = (scaled(expected().mean(0).unwrap()), scaled(expected().get(0).unwrap()));
    assert!(!close(&mean, &first));
    assert!(close(&embedding(), &mean));
    std::fs::create_dir(directory.path().join("1_Pooling")).unwrap();
    let pooling = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    std::fs::write(directory.path().join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    assert!(close(&embedding(), &first));
}
