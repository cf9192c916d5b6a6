//! Small decoders with made-up weights, written as model directories and as GGUF files.

use candle_core::quantized::gguf_file::{self, Value as Meta};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use sotto_models::families::names::LLAMA;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// A model: `config.json` and the tensors under transformers' names.
pub struct Tiny {
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

/// Words of the tokenizer; their number is the vocabulary of all tiny models.
pub const VOCABULARY: usize = 50;

impl Tiny {
    /// A Llama with untied head and Llama 3's rotary scaling.
    pub fn llama() -> Self {
        Self::new(json!({
            "model_type": "llama", "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
            "tie_word_embeddings": false, "rope_theta": 10000.0, "attention_bias": false, "mlp_bias": false,
            "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        }))
    }

    /// A Qwen2 with tied head.
    pub fn qwen2() -> Self {
        Self::new(json!({
            "model_type": "qwen2", "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": true,
            "rope_theta": 1000000.0, "sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 3,
        }))
    }

    /// A Qwen3 with untied head and heads wider than the residual stream.
    pub fn qwen3() -> Self {
        Self::new(json!({
            "model_type": "qwen3", "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 4,
            "tie_word_embeddings": false, "rope_theta": 1000000.0, "attention_bias": false, "sliding_window": null,
            "use_sliding_window": false, "max_window_layers": 3,
        }))
    }

    fn new(mut config: Value) -> Self {
        for (key, value) in [
            ("vocab_size", json!(VOCABULARY)),
            ("hidden_size", json!(64)),
            ("intermediate_size", json!(96)),
            ("num_hidden_layers", json!(3)),
            ("max_position_embeddings", json!(256)),
            ("rms_norm_eps", json!(1e-5)),
            ("hidden_act", json!("silu")),
            ("eos_token_id", json!(1)),
        ] {
            config[key] = value;
        }
        let number = |key: &str| config[key].as_u64().map(|n| n as usize);
        let (hidden, inner) = (64, 96);
        let heads = number("num_attention_heads").unwrap();
        let dim = number("head_dim").unwrap_or(hidden / heads);
        let (q, kv) = (heads * dim, number("num_key_value_heads").unwrap() * dim);
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("model.embed_tokens.weight".into(), vec![VOCABULARY, hidden]),
            ("model.norm.weight".into(), vec![hidden]),
        ];
        if config["tie_word_embeddings"] == json!(false) {
            shapes.push(("lm_head.weight".into(), vec![VOCABULARY, hidden]));
        }
        for i in 0..3 {
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{i}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("self_attn.q_proj.weight", &[q, hidden]);
            add("self_attn.k_proj.weight", &[kv, hidden]);
            add("self_attn.v_proj.weight", &[kv, hidden]);
            add("self_attn.o_proj.weight", &[hidden, q]);
            add("mlp.gate_proj.weight", &[inner, hidden]);
            add("mlp.up_proj.weight", &[inner, hidden]);
            add("mlp.down_proj.weight", &[hidden, inner]);
            if config["model_type"] == "qwen2" {
                add("self_attn.q_proj.bias", &[q]);
                add("self_attn.k_proj.bias", &[kv]);
                add("self_attn.v_proj.bias", &[kv]);
            }
            if config["model_type"] == "qwen3" {
                add("self_attn.q_norm.weight", &[dim]);
                add("self_attn.k_norm.weight", &[dim]);
            }
        }
        let tensors = shapes
            .into_iter()
            .enumerate()
            .map(|(seed, (name, shape))| {
                // Gains near 1, everything else near 0.
                let (mean, spread) = if name.contains("norm") { (1.0, 0.3) } else { (0.0, 0.25) };
                (name, random(seed as u64, &shape, mean, spread))
            })
            .collect();
        Self { config, tensors }
    }

    /// Writes the model as the hub has it.
    pub fn write_directory(&self, directory: &Path) {
        std::fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(directory.join("tokenizer.json"), tokenizer().to_string()).unwrap();
        let template = json!({"chat_template": TEMPLATE, "eos_token": "w1", "bos_token": {"content": "w0"}});
        std::fs::write(directory.join("tokenizer_config.json"), template.to_string()).unwrap();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        safetensors::serialize_to_file(tensors, None, &directory.join("model.safetensors")).unwrap();
    }

    /// Writes the model as llama.cpp's converter does: q and k rows of Llamas interleaved.
    pub fn write_gguf(&self, path: &Path) {
        let number = |key: &str| self.config[key].as_u64().map(|n| n as u32);
        let architecture = self.config["model_type"].as_str().unwrap();
        let heads = number("num_attention_heads").unwrap();
        let kv_heads = number("num_key_value_heads").unwrap();
        let dim = number("head_dim").unwrap_or(64 / heads);
        let mut meta: Vec<(String, Meta)> =
            vec![("general.architecture".into(), Meta::String(architecture.into()))];
        for (key, value) in [
            ("block_count", 3),
            ("context_length", 256),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("attention.key_length", dim),
        ] {
            meta.push((format!("{architecture}.{key}"), Meta::U32(value)));
        }
        let theta = self.config["rope_theta"].as_f64().unwrap() as f32;
        meta.push((format!("{architecture}.rope.freq_base"), Meta::F32(theta)));
        meta.push((format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-5)));
        let words = (0..VOCABULARY).map(|i| Meta::String(format!("w{i}"))).collect();
        meta.push(("tokenizer.ggml.model".into(), Meta::String("gpt2".into())));
        meta.push(("tokenizer.ggml.tokens".into(), Meta::Array(words)));
        meta.push(("tokenizer.ggml.merges".into(), Meta::Array(vec![])));
        meta.push(("tokenizer.ggml.eos_token_id".into(), Meta::U32(1)));
        let tensors: Vec<(String, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                let interleaved = match name.as_str() {
                    _ if architecture != "llama" => None,
                    n if n.contains("q_proj") => Some(heads as usize),
                    n if n.contains("k_proj") => Some(kv_heads as usize),
                    _ => None,
                };
                let tensor = match interleaved {
                    Some(heads) => interleave(tensor, heads),
                    None => tensor.clone(),
                };
                (LLAMA.canonical_name(name).unwrap(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
            })
            .collect();
        let mut tensors = tensors;
        if let Some(scaling) = self.config.get("rope_scaling") {
            let divisors = rope_divisors(scaling, f64::from(theta), dim as usize);
            tensors.push(("rope_freqs.weight".into(), QTensor::quantize(&divisors, GgmlDType::F32).unwrap()));
        }
        let meta: Vec<_> = meta.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &meta, &tensors).unwrap();
    }
}

/// The template of the tiny models.
pub const TEMPLATE: &str = "{% for m in messages %}{{ m.content }} {% endfor %}";

/// What each frequency is divided by, computed as llama.cpp's converter does.
fn rope_divisors(scaling: &Value, theta: f64, dim: usize) -> Tensor {
    let number = |key: &str| scaling[key].as_f64().unwrap();
    let (factor, context) = (number("factor"), number("original_max_position_embeddings"));
    let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
    let divisors: Vec<f32> = (0..dim / 2)
        .map(|i| {
            let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / dim as f64);
            let divisor = if wavelength < context / high {
                1.0
            } else if wavelength > context / low {
                factor
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            };
            divisor as f32
        })
        .collect();
    Tensor::new(divisors, &Device::Cpu).unwrap()
}

/// Row `2i + s` of a head becomes what was row `s * dim/2 + i`.
fn interleave(tensor: &Tensor, heads: usize) -> Tensor {
    let rows = tensor.dim(0).unwrap();
    let dim = rows / heads;
    let order: Vec<u32> = (0..rows)
        .map(|row| {
            let (head, within) = (row / dim, row % dim);
            (head * dim + (within % 2) * dim / 2 + within / 2) as u32
        })
        .collect();
    tensor.index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 0).unwrap()
}

/// Numbers around `mean`, the same for the same seed.
fn random(seed: u64, shape: &[usize], mean: f32, spread: f32) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mean + spread * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        (0..VOCABULARY).map(|i| (format!("w{i}"), json!(i))).collect();
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "truncation": null,
        "padding": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    })
}
