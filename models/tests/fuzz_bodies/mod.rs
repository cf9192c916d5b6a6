//! Bodies of the fuzz targets in `fuzz/`: readers of model files and manifests hold what they accept to its word.
//!
//! The targets include this file; on the stable toolchain the property tests drive the same functions.
#![allow(dead_code, reason = "each target uses its part")]

use models::source::ModelSource;
use models::split::ServerPart;
use models::split::manifest::ServerManifest;
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
