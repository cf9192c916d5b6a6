//! GPT-2 against golden logits of a small model with random weights (`golden/make_gpt2.py`).

use candle_core::Tensor;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use sotto_models::families::names::Canonical;
use sotto_models::families::{Decoder, ModelConfig, config_from_json};
use sotto_models::formats::safetensors::SafetensorsFile;
use sotto_models::formats::{MemorySource, WeightSource};
use sotto_models::linear::dense::DenseBackend;
use sotto_models::local_ops::embedding::Embedding;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::model::CausalModel;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use std::fs::File;
use std::path::Path;

/// The configuration that `make_gpt2.py` writes into the file's metadata.
const CONFIG: &str = r#"{"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_inner": 40, "n_layer": 2,
    "n_head": 3, "n_positions": 16, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}"#;

fn golden() -> SafetensorsFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2_tiny.safetensors");
    SafetensorsFile::open(path).unwrap()
}

fn config() -> ModelConfig {
    config_from_json(CONFIG.as_bytes()).unwrap()
}

fn model(kind: PlanKind) -> (Decoder, DenseBackend) {
    let config = config();
    let source = Canonical::new(Box::new(golden()), config.family.family().names(), &config);
    let embedding = Embedding::Float(source.get("token_embd.weight").unwrap());
    let local = MemorySource::new(config.local_tensors(&source, kind).unwrap());
    let backend = DenseBackend::from_source(&config, &source, config.plan(kind).unwrap()).unwrap();
    (Decoder::new(config, kind, &local, embedding, HeadPrecision::Float).unwrap(), backend)
}

fn ids() -> Vec<u32> {
    let ids = golden().get("golden.ids").unwrap().to_vec1::<f32>().unwrap();
    ids.into_iter().map(|id| id as u32).collect()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn logits_equal_the_reference() {
    let expected = golden().get("golden.logits").unwrap();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut gpt2, mut backend) = model(kind);
        let logits = gpt2.forward_all(&ids(), &mut backend).unwrap();
        let difference = worst(&logits, &expected);
        assert!(difference < 1e-4, "{kind}: {difference}");
    }
}

/// The golden model as llama.cpp's converter writes it: other names, linear layers turned, the head written again.
fn write_gguf(path: &Path) {
    let (source, hidden) = (golden(), 24u32);
    let numbers = [
        ("context_length", 16),
        ("embedding_length", hidden),
        ("feed_forward_length", 40),
        ("block_count", 2),
        ("attention.head_count", 3),
    ];
    let mut meta: Vec<(String, Value)> =
        numbers.iter().map(|(key, number)| (format!("gpt2.{key}"), Value::U32(*number))).collect();
    meta.push(("general.architecture".into(), Value::String("gpt2".into())));
    meta.push(("gpt2.attention.layer_norm_epsilon".into(), Value::F32(1e-5)));
    let words = (0..61).map(|i| Value::String(format!("w{i}"))).collect();
    meta.push(("tokenizer.ggml.model".into(), Value::String("gpt2".into())));
    meta.push(("tokenizer.ggml.tokens".into(), Value::Array(words)));
    meta.push(("tokenizer.ggml.merges".into(), Value::Array(vec![])));
    let mut tensors = Vec::new();
    let mut add = |theirs: &str, gguf: &str, turned: bool| {
        let tensor = source.get(&format!("transformer.{theirs}")).unwrap();
        let tensor = if turned { tensor.t().unwrap().contiguous().unwrap() } else { tensor };
        tensors.push((gguf.to_owned(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap()));
    };
    add("wte.weight", "token_embd.weight", false);
    add("wte.weight", "output.weight", false);
    add("wpe.weight", "position_embd.weight", false);
    for part in ["weight", "bias"] {
        add(&format!("ln_f.{part}"), &format!("output_norm.{part}"), false);
        for block in 0..2 {
            for (theirs, gguf) in [
                ("ln_1", "attn_norm"),
                ("attn.c_attn", "attn_qkv"),
                ("attn.c_proj", "attn_output"),
                ("ln_2", "ffn_norm"),
                ("mlp.c_fc", "ffn_up"),
                ("mlp.c_proj", "ffn_down"),
            ] {
                let turned = part == "weight" && theirs.contains('.');
                add(&format!("h.{block}.{theirs}.{part}"), &format!("blk.{block}.{gguf}.{part}"), turned);
            }
        }
    }
    let meta: Vec<_> = meta.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &meta, &tensors).unwrap();
}

#[test]
fn a_gguf_file_gives_the_same_logits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gpt2.gguf");
    write_gguf(&path);
    let source = ModelSource::open(&path).unwrap();
    assert_eq!(source.config, config());
    let expected = golden().get("golden.logits").unwrap();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let parts = split(&source, kind, |_| ()).unwrap();
        let family = &source.config;
        let mut backend = DenseBackend::from_source(family, &*source.weights, parts.plan).unwrap();
        let mut model = parts.client.causal_model(HeadPrecision::Float).unwrap();
        let logits = model.forward_all(&ids(), &mut backend).unwrap();
        let difference = worst(&logits, &expected);
        assert!(difference < 1e-4, "{kind}: {difference}");
    }
}

#[test]
fn cached_steps_equal_one_pass() {
    let expected = golden().get("golden.logits").unwrap();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut gpt2, mut backend) = model(kind);
        let ids = ids();
        gpt2.forward(&ids[..6], &mut backend).unwrap();
        gpt2.forward(&ids[..3], &mut backend).unwrap();
        gpt2.truncate(6);
        for (position, id) in ids.iter().enumerate().skip(6) {
            let logits = gpt2.forward(&[*id], &mut backend).unwrap();
            let difference = worst(&logits, &expected.get(position).unwrap());
            assert!(difference < 1e-4, "{kind} {position}: {difference}");
        }
        assert_eq!(gpt2.len(), ids.len());
        assert!(gpt2.forward(&ids[..4], &mut backend).is_err(), "16 positions");
    }
}

#[test]
fn the_fused_plan_has_two_rounds_per_block_and_one() {
    let config = config();
    for (kind, rounds) in [(PlanKind::Plain, 8), (PlanKind::Fused, 5)] {
        let plan = config.plan(kind).unwrap();
        plan.validate().unwrap();
        assert_eq!(plan.rounds.len(), rounds);
    }
}
