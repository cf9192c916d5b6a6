//! Readers of model files and manifests: nothing panics, and what is read has the form that was announced.

mod fuzz_bodies;
#[path = "support/tiny.rs"]
mod tiny;

use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::{ProtocolBinding, split};
use proptest::prelude::*;
use std::sync::OnceLock;
use tiny::Tiny;

/// Small sound files: GGUF, safetensors, server manifest.
fn sound() -> &'static [Vec<u8>; 3] {
    static SOUND: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    SOUND.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        Tiny::qwen2().write_gguf(&path.join("tiny.gguf"));
        Tiny::qwen2().write_directory(path);
        let parts = split(&ModelSource::open(path).unwrap(), PlanKind::Plain, |_| {}).unwrap();
        parts.write(path, &ProtocolBinding { tau: 64, params_id: "p".to_owned() }).unwrap();
        ["tiny.gguf", "model.safetensors", "server/plain/manifest.json"]
            .map(|name| std::fs::read(path.join(name)).unwrap())
    })
}

/// A protobuf field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// An ONNX model with one tensor of two by two floats.
fn onnx() -> Vec<u8> {
    let floats: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    // Dimensions, type (float), name, data.
    let tensor = [vec![1 << 3, 2, 1 << 3, 2, 2 << 3, 1], field(8, b"w"), field(9, &floats)].concat();
    field(7, &field(5, &tensor))
}

#[test]
fn sound_files_are_read() {
    let [gguf, safetensors, manifest] = sound();
    assert!(fuzz_bodies::gguf(gguf) > 20);
    assert!(fuzz_bodies::safetensors(safetensors) > 20);
    assert!(fuzz_bodies::manifest(manifest));
    assert_eq!(fuzz_bodies::onnx(&onnx()), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_bodies::gguf(&bytes);
        fuzz_bodies::safetensors(&bytes);
        fuzz_bodies::onnx(&bytes);
        fuzz_bodies::manifest(&bytes);
    }

    #[test]
    fn changed_files(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let change = |sound: &[u8], within: usize| {
            let mut bytes = sound.to_vec();
            for (at, value) in &changes {
                bytes[at.index(within.min(sound.len()))] = *value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        };
        let [gguf, safetensors, manifest] = sound();
        // The headers are what can be wrong; behind them are numbers.
        fuzz_bodies::gguf(&change(gguf, 3000));
        fuzz_bodies::safetensors(&change(safetensors, 2000));
        fuzz_bodies::manifest(&change(manifest, usize::MAX));
        fuzz_bodies::onnx(&change(&onnx(), usize::MAX));
    }
}
