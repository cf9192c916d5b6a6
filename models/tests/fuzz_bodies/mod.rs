//! Bodies of the fuzz targets in `fuzz/`: readers of model files and manifests hold what they accept to its word.
//!
//! The targets include this file; on the stable toolchain the property tests drive the same functions.
#![allow(dead_code, reason = "each target uses its part")]

use models::chat_template::{ChatTemplate, Message};
use models::config::ModelConfig;
use models::source::ModelSource;
use models::split::ServerPart;
use models::split::manifest::ServerManifest;
use models::split::plan::PlanKind;
use models::tokenizer::{SpecialTokens, Tokenizer};
use models::weights::WeightSource;
use models::weights::gguf::GgufFile;
use models::weights::onnx::OnnxFile;
use models::weights::safetensors::SafetensorsFile;
use std::path::PathBuf;

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
pub(crate) fn gguf(bytes: &[u8]) -> usize {
    let (_directory, path) = on_disk("fuzz.gguf", bytes);
    let source = GgufFile::open(&path).and_then(ModelSource::from_gguf);
    source.map_or(0, |source| read_all(&*source.weights))
}

/// A safetensors file; returns how many tensors were read.
pub(crate) fn safetensors(bytes: &[u8]) -> usize {
    let (_directory, path) = on_disk("fuzz.safetensors", bytes);
    SafetensorsFile::open(&path).map_or(0, |file| read_all(&file))
}

/// An ONNX file; returns how many tensors were read.
pub(crate) fn onnx(bytes: &[u8]) -> usize {
    OnnxFile::from_bytes("fuzz.onnx", bytes).map_or(0, |file| read_all(&file))
}

/// A server manifest; whether its plan was accepted.
pub(crate) fn manifest(bytes: &[u8]) -> bool {
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
pub(crate) fn config(bytes: &[u8]) -> bool {
    let configs = [
        models::llama::Config::from_json(bytes).map(ModelConfig::Llama),
        models::gpt2::Config::from_json(bytes).map(ModelConfig::Gpt2),
        models::bert::Config::from_json(bytes).map(ModelConfig::Bert),
    ];
    let taken: Vec<_> = configs.into_iter().flatten().collect();
    for config in &taken {
        for kind in [PlanKind::Plain, PlanKind::Fused] {
            let plan = config.split_family().plan(kind).expect("a plan of a configuration that was taken");
            if plan.validate().is_err() {
                continue;
            }
            assert!(plan.rounds.iter().all(|round| round.d_in <= models::limits::MAX_WIDTH));
        }
    }
    !taken.is_empty()
}

/// A chat template; whether it gave a text.
pub(crate) fn template(source: &str) -> bool {
    let messages = [Message::new("system", "s"), Message::new("user", "u"), Message::new("assistant", "a")];
    ChatTemplate::new(source, "<s>", "</s>").is_ok_and(|template| template.render(&messages, true).is_ok())
}

/// A `tokenizer.json`; whether it was taken. One that was turns text into ids and ids into text, or says that it cannot.
pub(crate) fn tokenizer(bytes: &[u8]) -> bool {
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
