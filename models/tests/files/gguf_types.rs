//! Every type of tensor that Candle reads, and tokenizers of both kinds, through GGUF files written here.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use sotto_models::formats::WeightSource;
use sotto_models::formats::gguf::GgufFile;
use std::fs::File;
use std::path::PathBuf;

fn write(meta: &[(&str, Value)], tensors: &[(&str, QTensor)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let meta: Vec<_> = meta.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut File::create(&path).unwrap(), &meta, &tensors).unwrap();
    (directory, path)
}

#[test]
fn every_type_is_dequantized() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let exact = Tensor::randn(0f32, 1.0, (3, 512), &Device::Cpu).unwrap();
    // The root mean square error that the number of bits allows.
    for (dtype, error) in [
        (F32, 0.0),
        (F16, 1e-3),
        (BF16, 4e-3),
        (Q8_0, 0.01),
        (Q6K, 0.03),
        (Q5_0, 0.06),
        (Q5_1, 0.06),
        (Q5K, 0.06),
        (Q4_0, 0.12),
        (Q4_1, 0.12),
        (Q4K, 0.12),
        (Q3K, 0.25),
        (Q2K, 0.45),
    ] {
        let (_directory, path) = write(&[], &[("w", QTensor::quantize(&exact, dtype).unwrap())]);
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.shape("w"), Some(vec![3, 512]));
        let got = file.get("w").unwrap();
        let rms = (&got - &exact).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(rms.sqrt() <= error, "{dtype:?}: {}", rms.sqrt());
    }
}

fn strings(values: &[&str]) -> Value {
    Value::Array(values.iter().map(|value| Value::String((*value).to_owned())).collect())
}

#[test]
fn sentence_piece_merges_by_score_and_falls_back_to_bytes() {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let pieces = ["\u{2581}", "a", "b", "c", "ab", "bc", "\u{2581}a", "\u{2581}ab", "abc"];
    tokens.extend(pieces.iter().map(|piece| (*piece).to_owned()));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1; 9]);
    // `bc` is better than `ab`, so "abc" is a + bc, never ab + c; "▁ab" can only come from "▁a" + "b" or "▁" + "ab".
    let mut scores = vec![0.0; 3 + 256];
    scores.extend([-9.0, -9.0, -9.0, -9.0, -3.0, -1.0, -2.0, -4.0, -50.0]);
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let (_directory, path) = write(
        &[
            ("tokenizer.ggml.model", Value::String("llama".into())),
            ("tokenizer.ggml.tokens", strings(&texts)),
            ("tokenizer.ggml.scores", Value::Array(scores.into_iter().map(Value::F32).collect())),
            ("tokenizer.ggml.token_type", Value::Array(types.into_iter().map(Value::I32).collect())),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ],
        &[],
    );
    let tokenizer = GgufFile::open(&path).unwrap().tokenizer().unwrap();
    let pieces = |text: &str| -> Vec<String> {
        tokenizer.encode(text).unwrap().iter().map(|&id| tokenizer.token_text(id).unwrap()).collect()
    };
    assert_eq!(pieces("ab"), ["\u{2581}ab"]);
    assert_eq!(pieces("abc"), ["\u{2581}a", "bc"]);
    assert_eq!(pieces("a ab"), ["\u{2581}a", "\u{2581}ab"]);
    assert_eq!(pieces("é</s>"), ["\u{2581}", "<0xC3>", "<0xA9>", "<0x3C>", "<0x2F>", "<0x73>", "<0x3E>"]);
    for text in ["abc a", "é b", "b  c"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
    assert_eq!(tokenizer.special().bos, Some(1));
    // Llama's tokenizers begin a text with it unless the file says otherwise.
    assert_eq!(tokenizer.encode_plain("a").unwrap()[0], 1);
}

#[test]
fn word_pieces_are_those_of_the_original_vocabulary() {
    // As the converter writes it: words begin with a mark, their continuations without.
    let tokens = |word: &str| {
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", word, "able", "\u{2581}un", "\u{2581}.", "\u{2581}[x]"]
            .map(str::to_owned)
    };
    let open = |word: &str| {
        let tokens = tokens(word);
        let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let (_directory, path) = write(
            &[
                ("tokenizer.ggml.model", Value::String("bert".into())),
                ("tokenizer.ggml.tokens", strings(&texts)),
                (
                    "tokenizer.ggml.token_type",
                    Value::Array([3, 3, 3, 3, 1, 1, 1, 1, 1].map(Value::I32).into()),
                ),
                ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
            ],
            &[],
        );
        GgufFile::open(&path).unwrap().tokenizer().unwrap()
    };
    let lower = open("\u{2581}read");
    assert_eq!(lower.encode("Unread\u{e1}ble. readable").unwrap(), [1, 7, 4, 5]);
    // What spells a control token is text.
    assert!(!lower.encode("[CLS]").unwrap().contains(&2));
    assert_eq!(lower.encode("UNABLE").unwrap(), [6, 5]);
    assert_eq!(lower.decode(&[6, 5, 7]).unwrap(), "unable.");
    assert_eq!(lower.token_id("[SEP]"), Some(3));
    // A vocabulary with capitals is not lower-cased.
    let cased = open("\u{2581}Read");
    assert_eq!(cased.encode("Readable UNABLE").unwrap(), [4, 5, 1]);
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let open = |model: &str, pre: &str| {
        let (_directory, path) = write(
            &[
                ("tokenizer.ggml.model", Value::String(model.into())),
                ("tokenizer.ggml.pre", Value::String(pre.into())),
                ("tokenizer.ggml.tokens", strings(&["a"])),
                ("tokenizer.ggml.merges", Value::Array(vec![])),
            ],
            &[],
        );
        let error = GgufFile::open(&path).unwrap().tokenizer().err().map(|error| error.to_string());
        error.unwrap_or_default()
    };
    assert!(open("t5", "default").contains("t5"));
    assert!(open("gpt2", "tekken").contains("tekken"));
    assert_eq!(open("gpt2", "smollm"), "");
}

#[test]
fn each_pre_tokenizer_groups_digits_as_its_models_do() {
    let digits = |pre: &str| {
        let tokens: Vec<String> = (0..10).map(|d| d.to_string()).chain(["12".into(), "123".into()]).collect();
        let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let (_directory, path) = write(
            &[
                ("tokenizer.ggml.model", Value::String("gpt2".into())),
                ("tokenizer.ggml.pre", Value::String(pre.into())),
                ("tokenizer.ggml.tokens", strings(&texts)),
                ("tokenizer.ggml.merges", strings(&["1 2", "12 3"])),
            ],
            &[],
        );
        GgufFile::open(&path).unwrap().tokenizer().unwrap().encode("1231").unwrap().len()
    };
    assert_eq!(digits("smollm"), 4);
    assert_eq!(digits("qwen2"), 4);
    assert_eq!(digits("llama-bpe"), 2);
    assert_eq!(digits("gpt-2"), 2);
}
