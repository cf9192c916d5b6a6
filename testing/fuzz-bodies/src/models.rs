//! Bodies of the fuzz targets in `fuzz/`: readers of model files and manifests hold what they accept to its word.
//!
//! On the stable toolchain the property tests drive the same functions.

use sotto_models::chat_template::{ChatTemplate, Message};
use sotto_models::families::config_from_json;
use sotto_models::formats::WeightSource;
use sotto_models::formats::gguf::GgufFile;
use sotto_models::formats::onnx::OnnxFile;
use sotto_models::formats::safetensors::SafetensorsFile;
use sotto_models::source::ModelSource;
use sotto_models::split::ServerPart;
use sotto_models::split::manifest::ServerManifest;
use sotto_models::split::plan::PlanKind;
use sotto_models::tokenizer::{SpecialTokens, Tokenizer};
use std::path::PathBuf;
use std::sync::OnceLock;

/// A directory that holds `bytes` as the file `name`, until it is dropped.
fn on_disk(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory for the file");
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).expect("room for the file");
    (directory, path)
}

/// Reads every tensor; one that is read has the shape that was announced.
fn read_all(weights: &dyn WeightSource) -> usize {
    let names = weights.names();
    let read = names.iter().filter(|name| {
        let shape = weights.shape(name).expect("a tensor that was listed");
        weights.get(name).is_ok_and(|tensor| {
            assert_eq!(tensor.dims(), shape, "{name}");
            true
        })
    });
    read.count()
}

/// A GGUF file; returns how many tensors were read.
pub fn gguf(bytes: &[u8]) -> usize {
    let (_directory, path) = on_disk("fuzz.gguf", bytes);
    let source = GgufFile::open(&path).and_then(ModelSource::from_gguf);
    source.map_or(0, |source| read_all(&*source.weights))
}

/// A safetensors file; returns how many tensors were read.
pub fn safetensors(bytes: &[u8]) -> usize {
    let (_directory, path) = on_disk("fuzz.safetensors", bytes);
    SafetensorsFile::open(&path).map_or(0, |file| read_all(&file))
}

/// An ONNX file; returns how many tensors were read.
pub fn onnx(bytes: &[u8]) -> usize {
    OnnxFile::from_bytes("fuzz.onnx", bytes).map_or(0, |file| read_all(&file))
}

/// A server manifest; whether its plan was accepted.
pub fn manifest(bytes: &[u8]) -> bool {
    let (directory, _) = on_disk("manifest.json", bytes);
    assert!(ServerPart::open(directory.path()).is_err(), "there are no weights in the directory");
    let Ok(manifest) = serde_json::from_slice::<ServerManifest>(bytes) else { return false };
    if manifest.plan.validate().is_err() {
        return false;
    }
    for round in &manifest.plan.rounds {
        assert!(round.matrices.iter().all(|matrix| matrix.columns.end <= round.d_in));
    }
    true
}

/// A `config.json`; whether a family took it. The plans of one that was taken can be computed or are refused.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(config) = config_from_json(bytes) else { return false };
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let plan = match (config.plan(kind), kind) {
            (Ok(plan), _) => plan,
            // Some forms have no fused plan.
            (Err(_), PlanKind::Fused) => continue,
            (Err(error), PlanKind::Plain) => panic!("no plan of a configuration that was taken: {error}"),
        };
        if plan.validate().is_err() {
            continue;
        }
        assert!(plan.rounds.iter().all(|round| round.d_in <= sotto_models::limits::MAX_WIDTH));
    }
    true
}

/// A tokenizer with the control tokens that templates write.
fn template_tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let controls = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
        let added: Vec<_> = controls
            .iter()
            .enumerate()
            .map(|(id, content)| {
                serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "<|im_start|>": 2, "<|im_end|>": 3,
                "?": 4}, "unk_token": "?"},
        });
        let special = SpecialTokens { bos: Some(0), eos: vec![1], add_bos: false };
        Tokenizer::from_json(json.to_string().as_bytes(), special).expect("a tokenizer")
    })
}

/// A chat template; whether it gave a text.
pub fn template(source: &str) -> bool {
    let messages = [Message::new("system", "s"), Message::new("user", "u"), Message::new("assistant", "a")];
    let Ok(template) = ChatTemplate::new(source, template_tokenizer()) else { return false };
    let rendered = template.render(&messages, true);
    if let Ok(rendered) = &rendered {
        template_tokenizer().encode_template(rendered).expect("pieces of its own tokenizer");
    }
    rendered.is_ok()
}

/// A `tokenizer.json`; whether it was taken. One that was turns text into ids and ids into text, or says that it cannot.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let Ok(tokenizer) = Tokenizer::from_json(bytes, SpecialTokens::default()) else { return false };
    for text in ["", "w1 w2", "<a> ab b\u{e9}\u{1f980}\n 12"] {
        if let Ok(ids) = tokenizer.encode(text) {
            tokenizer.decode(&ids).ok();
        }
    }
    tokenizer.decode(&[0, 5, u32::MAX]).ok();
    tokenizer.to_json().ok();
    true
}
