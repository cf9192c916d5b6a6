//! Model files as people have them: several shards, extra files, metadata of other converters, and what a
//! decoder would get wrong silently if it were not refused.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value as Json, json};
use sotto_models::families::ModelConfig;
use sotto_models::families::config::Positions;
use sotto_models::formats::gguf::GgufFile;
use sotto_models::local_ops::rope::RopeScaling;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use sotto_testing::tiny::Tiny;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

fn directory(tiny: &Tiny) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    tiny.write_directory(directory.path());
    directory
}

fn error(path: &Path) -> String {
    ModelSource::open(path).err().map(|error| error.to_string()).unwrap_or_default()
}

fn scaling_of(config: &ModelConfig) -> RopeScaling {
    let Positions::Rotary { tables, .. } = &config.positions else { panic!("rotary positions") };
    tables[0].scaling.clone()
}

/// A tiny Llama as a GGUF file with further metadata and tensors, which replace those of the same name.
fn gguf(
    tiny: &Tiny,
    directory: &Path,
    meta: &[(&str, Value)],
    tensors: &[(&str, Tensor)],
) -> std::path::PathBuf {
    let plain = directory.join("plain.tmp");
    tiny.write_gguf(&plain);
    let mut file = File::open(&plain).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut all_meta: BTreeMap<String, Value> =
        content.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    all_meta.extend(meta.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let mut all: BTreeMap<String, QTensor> = BTreeMap::new();
    for name in content.tensor_infos.keys() {
        all.insert(name.clone(), content.tensor(&mut file, name, &Device::Cpu).unwrap());
    }
    for (name, tensor) in tensors {
        all.insert((*name).to_owned(), QTensor::quantize(tensor, GgmlDType::F32).unwrap());
    }
    fs::remove_file(plain).unwrap();
    let path = directory.join("model.gguf");
    let meta: Vec<_> = all_meta.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = all.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(&path).unwrap(), &meta, &tensors).unwrap();
    path
}

/// Opens a tiny unscaled Llama with these changes.
fn opened(meta: &[(&str, Value)], tensors: &[(&str, Tensor)]) -> sotto_models::Result<ModelSource> {
    let mut tiny = Tiny::llama();
    tiny.config.as_object_mut().unwrap().remove("rope_scaling");
    let directory = tempfile::tempdir().unwrap();
    ModelSource::open(gguf(&tiny, directory.path(), meta, tensors))
}

fn refused(meta: &[(&str, Value)], tensors: &[(&str, Tensor)]) -> String {
    opened(meta, tensors).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn shards_and_half_precision_are_read() {
    let tiny = Tiny::llama();
    let directory = directory(&tiny);
    let whole = ModelSource::open(directory.path()).unwrap();
    let whole: Vec<_> = whole.weights.names().iter().map(|name| whole.weights.get(name).unwrap()).collect();
    for (shards, dtype) in [(3, DType::F32), (2, DType::BF16), (1, DType::F16)] {
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("safetensors") {
                fs::remove_file(path).unwrap();
            }
        }
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            let tensors: Vec<(&String, Tensor)> = tiny
                .tensors
                .iter()
                .skip(shard)
                .step_by(shards)
                .map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()))
                .collect();
            map.extend(tensors.iter().map(|(name, _)| ((*name).clone(), json!(file))));
            safetensors::serialize_to_file(tensors, None, &directory.path().join(file)).unwrap();
        }
        // A single file needs no index, whatever it is called.
        if shards > 1 {
            let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
            fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        let source = ModelSource::open(directory.path()).unwrap();
        let names = source.weights.names();
        assert_eq!(names.len(), whole.len());
        let tolerance = if dtype == DType::F32 { 0.0 } else { 0.01 };
        for (name, expected) in names.iter().zip(&whole) {
            let difference = (source.weights.get(name).unwrap() - expected).unwrap().abs().unwrap();
            let worst = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst <= tolerance, "{name} as {dtype:?}: {worst}");
        }
    }
    // Of several shards without an index it is not known whether they are all.
    for name in ["a.safetensors", "b.safetensors"] {
        fs::write(directory.path().join(name), b"").unwrap();
    }
    assert!(error(directory.path()).contains("index.json"));
}

#[test]
fn a_gguf_file_beside_a_short_config_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    Tiny::qwen2().write_gguf(&directory.path().join("tiny.Q4_K_M.gguf"));
    fs::write(directory.path().join("config.json"), r#"{"model_type": "qwen2"}"#).unwrap();
    assert_eq!(ModelSource::open(directory.path()).unwrap().name, "tiny.Q4_K_M");
}

#[test]
fn directories_without_weights_or_tokenizer_say_what_is_missing() {
    let directory = directory(&Tiny::llama());
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    fs::write(directory.path().join("pytorch_model.bin"), b"").unwrap();
    let message = error(directory.path());
    assert!(message.contains(".gguf") && message.contains("pytorch_model.bin"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("config.json"));
    let bare = self::directory(&Tiny::llama());
    fs::remove_file(bare.path().join("tokenizer.json")).unwrap();
    assert!(error(bare.path()).contains("tokenizer.json is missing"));
}

#[test]
fn quantized_safetensors_are_refused() {
    let mut tiny = Tiny::llama();
    tiny.config["quantization_config"] = json!({"quant_method": "gptq", "bits": 4});
    assert!(error(directory(&tiny).path()).contains("quantization_config"));
}

#[test]
fn weights_that_are_not_finite_are_refused_on_both_sides() {
    for name in [
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.2.mlp.up_proj.weight",
    ] {
        let mut tiny = Tiny::llama();
        let tensor = &tiny.tensors[name];
        let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[7] = f32::NAN;
        let shape = tensor.shape().clone();
        tiny.tensors.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        let directory = directory(&tiny);
        let source = ModelSource::open(directory.path()).unwrap();
        let message = split(&source, PlanKind::Plain, |_| ()).err().map(|error| error.to_string());
        assert!(message.unwrap_or_default().contains("not finite"), "{name}");
    }
}

/// Ids that end a text and the id that begins one, of a model directory with these files.
fn special(files: &[(&str, Json)], post_processor: Json) -> sotto_models::tokenizer::SpecialTokens {
    let directory = directory(&Tiny::llama());
    let path = directory.path().join("tokenizer.json");
    let mut tokenizer: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["post_processor"] = post_processor;
    fs::write(&path, tokenizer.to_string()).unwrap();
    for (name, json) in files {
        fs::write(directory.path().join(name), json.to_string()).unwrap();
    }
    ModelSource::open(directory.path()).unwrap().tokenizer.special().clone()
}

#[test]
fn every_end_of_text_counts_and_the_tokenizers_own_comes_first() {
    let own =
        json!({"eos_token": {"content": "w9"}, "chat_template": "{{ messages[0].content }}{{ eos_token }}"});
    let files =
        [("tokenizer_config.json", own), ("generation_config.json", json!({"eos_token_id": [5, 1, 9]}))];
    assert_eq!(special(&files, Json::Null).eos, [9, 1, 5]);
    let directory = directory(&Tiny::llama());
    for (name, json) in files {
        fs::write(directory.path().join(name), json.to_string()).unwrap();
    }
    let template = ModelSource::open(directory.path()).unwrap().template().unwrap();
    let message = sotto_models::chat_template::Message::new("user", "w3 ");
    assert_eq!(template.render(&[message], true).unwrap().text(), "w3 w9");
}

#[test]
fn a_text_begins_as_the_tokenizer_says() {
    let begins = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "w2", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"w2": {"id": "w2", "ids": [2], "tokens": ["w2"]}},
    });
    let config = |fields: Json| [("tokenizer_config.json", fields)];
    let bos = json!({"bos_token": "w2"});
    assert!(special(&config(bos.clone()), begins.clone()).add_bos, "as Llama 3's files have it");
    let stated = json!({"bos_token": "w2", "add_bos_token": false});
    assert!(!special(&config(stated), begins).add_bos);
    let class = json!({"bos_token": "w2", "tokenizer_class": "LlamaTokenizer"});
    assert!(special(&config(class), Json::Null).add_bos);
    assert!(!special(&config(bos), Json::Null).add_bos);
}

#[test]
fn gguf_files_of_llama_3_begin_a_text_and_name_their_end_first() {
    let words = |count: usize| {
        let mut words: Vec<Value> = (0..count).map(|i| Value::String(format!("w{i}"))).collect();
        words[4] = Value::String("<|end_of_text|>".into());
        words[7] = Value::String("<|eot_id|>".into());
        Value::Array(words)
    };
    let tokenizer = |pre: &str| {
        let meta = [
            ("tokenizer.ggml.pre", Value::String(pre.into())),
            ("tokenizer.ggml.tokens", words(sotto_testing::tiny::VOCABULARY)),
            ("tokenizer.ggml.bos_token_id", Value::U32(2)),
            ("tokenizer.ggml.eos_token_id", Value::U32(7)),
        ];
        opened(&meta, &[]).unwrap().tokenizer.special().clone()
    };
    let llama3 = tokenizer("llama-bpe");
    assert_eq!((llama3.bos, llama3.eos, llama3.add_bos), (Some(2), vec![7, 4], true));
    assert!(!tokenizer("smollm").add_bos);
}

#[test]
fn ggufs_rotary_scaling_has_several_forms() {
    let scaling = |meta: &[(&str, Value)]| scaling_of(&opened(meta, &[]).unwrap().config);
    let kind = |kind: &str| ("llama.rope.scaling.type", Value::String(kind.into()));
    let linear = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(scaling(&[]), RopeScaling::None);
    assert_eq!(scaling(&[kind("none")]), RopeScaling::None);
    assert_eq!(scaling(&[kind("linear"), ("llama.rope.scaling.factor", Value::F32(4.0))]), linear);
    assert_eq!(scaling(&[("llama.rope.scale_linear", Value::F32(4.0))]), linear);
    assert_eq!(scaling(&[("llama.rope.scale_linear", Value::F32(1.0))]), RopeScaling::None);
    assert!(refused(&[kind("yarn")], &[]).contains("yarn"));
    let divisors = [("rope_freqs.weight", Tensor::ones(8, DType::F32, &Device::Cpu).unwrap())];
    let stretched = opened(&[], &divisors).unwrap();
    assert_eq!(scaling_of(&stretched.config), RopeScaling::Factors { divisors: vec![1.0; 8] });
    // Divisors do not hide a type that is not computed.
    assert!(refused(&[kind("yarn")], &divisors).contains("yarn"));
    assert!(
        refused(&[kind("linear"), ("llama.rope.scaling.factor", Value::F32(4.0))], &divisors)
            .contains("rope")
    );
}

#[test]
fn gguf_metadata_that_changes_the_computation_is_heeded_or_refused() {
    let window = ("llama.attention.sliding_window", Value::U32(100));
    let windowed = opened(&[window], &[]).unwrap().config;
    assert_eq!((0..3).map(|i| windowed.block_attention(i).window).collect::<Vec<_>>(), [Some(100); 3]);
    let bias = [("blk.0.attn_output.bias", Tensor::ones(64, DType::F32, &Device::Cpu).unwrap())];
    assert!(refused(&[], &bias).contains("attn_output.bias"));
    assert!(refused(&[("llama.expert_count", Value::U32(8))], &[]).contains("expert"));
    assert!(refused(&[("llama.rope.dimension_count", Value::U32(80))], &[]).contains("rotary dim"));
    assert!(refused(&[("split.count", Value::U16(3))], &[]).contains("one of 3 parts"));
    assert!(refused(&[("general.architecture", Value::String("clip".into()))], &[]).contains("clip"));
}

#[test]
fn a_tied_head_is_found_in_a_file_that_writes_it_twice() {
    // As llama.cpp's converter does for Qwen2.5: one matrix in two quantizations.
    let tiny = Tiny::qwen2();
    let embedding = &tiny.tensors["model.embed_tokens.weight"];
    let rounded = |kind| QTensor::quantize(embedding, kind).unwrap().dequantize(&Device::Cpu).unwrap();
    let open = |head: &Tensor| {
        let directory = tempfile::tempdir().unwrap();
        let coarse = rounded(GgmlDType::Q5_0);
        let path = gguf(
            &tiny,
            directory.path(),
            &[],
            &[("token_embd.weight", coarse), ("output.weight", head.clone())],
        );
        let source = ModelSource::open(path).unwrap();
        let embedding = source.weights.get("token_embd.weight").unwrap();
        (source.config.tied_head, embedding.to_vec2::<f32>().unwrap())
    };
    let fine = rounded(GgmlDType::Q8_0);
    let (tied, read) = open(&fine);
    assert!(tied);
    assert_eq!(read, fine.to_vec2::<f32>().unwrap(), "the finer of the two is read");
    let other = Tensor::randn(0f32, 0.15, embedding.shape(), &Device::Cpu).unwrap();
    assert!(!open(&other).0, "a head that was trained apart");
}

#[test]
fn a_tensor_of_an_unknown_type_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    Tiny::qwen2().write_gguf(&path);
    let mut bytes = fs::read(&path).unwrap();
    let name = b"blk.0.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // Behind the name: the number of dimensions, two dimensions, the type. 23 is IQ4_XS.
    bytes[at + 4 + 16..at + 4 + 20].copy_from_slice(&23u32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let message = GgufFile::open(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("blk.0.ffn_up.weight") && message.contains("type 23"), "{message}");
}
