//! Readers of model files and manifests: nothing panics, and what is read has the form that was announced.

use proptest::prelude::*;
use serde_json::json;
use sotto_fuzz_bodies::models as fuzz_bodies;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ProtocolBinding, split};
use sotto_testing::tiny::Tiny;
use std::sync::OnceLock;

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

fn config() -> String {
    Tiny::llama().config.to_string()
}

/// A template with loops, conditions, slices and methods.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages[::-1] %}{% if m.role == 'user' and loop.index0 > 0 %}\
    [{{ m.content.strip() | upper }}]{% elif not loop.last %}{{ m['content'] * 2 }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '>' }}{% endif %}";

/// Tokenizers of the kinds that models have: byte-level BPE, SentencePiece, WordPiece; with all that may surround them.
fn tokenizers() -> Vec<String> {
    let added = json!([{"id": 4, "content": "<a>", "single_word": false, "lstrip": true, "rstrip": false,
        "normalized": false, "special": true}]);
    let byte_level = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace",
            "pattern": {"String": "x"}, "content": "y"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s+|[a-z]{1,3}"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": {"a": 0, "b": 1, "ab": 2, "\u{120}": 3, "<a>": 4}, "merges": [["a", "b"]]},
    });
    let sentence_piece = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u{2581}"},
            "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "a", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "\u{2581}": 3, "<a>": 4, "<0xC3>": 5}, "merges": ["a b"]},
    });
    let word_piece = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"a": 0, "b": 1, "##b": 2, "c": 3, "<a>": 4}},
    });
    [byte_level, sentence_piece, word_piece].iter().map(ToString::to_string).collect()
}

#[test]
fn sound_files_are_read() {
    let [gguf, safetensors, manifest] = sound();
    assert!(fuzz_bodies::gguf(gguf) > 20);
    assert!(fuzz_bodies::safetensors(safetensors) > 20);
    assert!(fuzz_bodies::manifest(manifest));
    assert_eq!(fuzz_bodies::onnx(&onnx()), 1);
    assert!(fuzz_bodies::config(config().as_bytes()));
    assert!(fuzz_bodies::template(TEMPLATE));
    assert!(tokenizers().iter().all(|json| fuzz_bodies::tokenizer(json.as_bytes())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_bodies::gguf(&bytes);
        fuzz_bodies::safetensors(&bytes);
        fuzz_bodies::onnx(&bytes);
        fuzz_bodies::manifest(&bytes);
        fuzz_bodies::config(&bytes);
    }

    #[test]
    fn any_template(source in "(\\{\\{|\\{%|%\\}|\\}\\}|for|in|if|end|messages|range|[ a-z0-9'.:|*()\\[\\]-]){0,40}") {
        fuzz_bodies::template(&source);
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
        // The headers are what can be wrong; numbers follow them.
        fuzz_bodies::gguf(&change(gguf, 3000));
        fuzz_bodies::safetensors(&change(safetensors, 2000));
        fuzz_bodies::manifest(&change(manifest, usize::MAX));
        fuzz_bodies::onnx(&change(&onnx(), usize::MAX));
        fuzz_bodies::config(&change(config().as_bytes(), usize::MAX));
        fuzz_bodies::template(&String::from_utf8_lossy(&change(TEMPLATE.as_bytes(), usize::MAX)));
        for json in tokenizers() {
            fuzz_bodies::tokenizer(&change(json.as_bytes(), usize::MAX));
        }
    }
}
