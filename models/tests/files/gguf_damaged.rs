//! Damaged and hostile GGUF files are refused with the file and the field, and never crash or allocate wildly.

use proptest::prelude::*;
use sotto_models::formats::gguf::GgufFile;
use sotto_models::source::ModelSource;
use sotto_testing::tiny::Tiny;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The bytes of a small, sound file.
fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tiny.gguf");
        Tiny::qwen2().write_gguf(&path);
        std::fs::read(path).unwrap()
    })
}

/// Opens the bytes as a file and reads all of its tensors.
fn open(bytes: &[u8]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("damaged.gguf");
    std::fs::write(&path, bytes).unwrap();
    let read = || -> sotto_models::Result<()> {
        let source = ModelSource::from_gguf(GgufFile::open(&path)?)?;
        for name in source.weights.names() {
            source.weights.get(&name)?;
        }
        Ok(())
    };
    read().map_err(|error| error.to_string())
}

fn position(needle: &str) -> usize {
    sound().windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap()
}

/// The sound file with bytes replaced after `needle`.
fn patched(needle: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut patched = sound().to_vec();
    let at = position(needle) + needle.len() + offset;
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    patched
}

#[test]
fn the_sound_file_opens() {
    open(sound()).unwrap();
}

#[test]
fn every_truncation_is_refused_with_the_file_and_a_reason() {
    let bytes = sound();
    let header = position("output_norm");
    for length in (0..header).step_by(7).chain([bytes.len() / 2, bytes.len() - 1]) {
        let error = open(&bytes[..length]).unwrap_err();
        assert!(error.contains("damaged.gguf"), "{length}: {error}");
        assert!(error.contains("truncated"), "{length}: {error}");
    }
}

#[test]
fn errors_name_the_field() {
    let huge = u64::MAX.to_le_bytes();
    for (bytes, field) in [
        (b"GGML\x03\0\0\0".to_vec(), "magic"),
        (b"GGUF\x09\0\0\0".to_vec(), "version"),
        (patched("GGUF", 4, &huge), "tensor count"),
        (patched("GGUF", 12, &huge), "metadata count"),
        (patched("qwen2.block_count", 0, &[99]), "qwen2.block_count"),
        (patched("general.architecture", 4, &huge), "general.architecture"),
        (patched("tokenizer.ggml.tokens", 8, &huge), "tokenizer.ggml.tokens"),
        (patched("blk.0.ffn_up.weight", 0, &[9]), "blk.0.ffn_up.weight"),
        // More columns than the file has bytes.
        (patched("blk.0.ffn_up.weight", 4, &[0, 0, 0, 0, 1]), "blk.0.ffn_up.weight"),
        // A product that overflows.
        (patched("blk.0.ffn_up.weight", 4, &[255; 16]), "blk.0.ffn_up.weight"),
        // Data after the end of the file.
        (patched("blk.0.ffn_up.weight", 24, &[0, 0, 0, 0, 1]), "blk.0.ffn_up.weight"),
    ] {
        let error = open(&bytes).unwrap_err();
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn an_alignment_of_zero_is_refused() {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(17u64.to_le_bytes());
    bytes.extend(b"general.alignment");
    bytes.extend(4u32.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    let error = open(&bytes).unwrap_err();
    assert!(error.contains("general.alignment"), "{error}");
}

#[test]
fn other_architectures_and_missing_tokenizers_are_named() {
    let error = open(&patched("general.architecture", 12, b"mamba")).unwrap_err();
    assert!(error.contains("mamba") && error.contains("llama"), "{error}");
    let mut bytes = sound().to_vec();
    let at = position("tokenizer.ggml.model");
    bytes[at..at + 9].copy_from_slice(b"tokenized");
    let error = open(&bytes).unwrap_err();
    assert!(error.contains("no tokenizer"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_change_of_a_few_bytes_panics(
        changes in prop::collection::vec((0usize..4000, any::<u8>()), 1..6),
    ) {
        let mut bytes = sound().to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        // Whether it opens or not depends on the bytes; it must return.
        let _ = open(&bytes);
    }
}
