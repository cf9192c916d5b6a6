//! Llama, Mistral, SmolLM and TinyLlama; Qwen2, which adds biases to q, k and v; Qwen3, which norms their heads.

use super::Family;
use super::config::{ModelConfig, QkNorm};
use super::names::{self, Names};
use super::reading::{GgufFields, JsonFields};
use crate::Result;

/// Llama. Mistral is a Llama whose attention may see a window only.
pub struct Llama;

/// Qwen2 and Qwen2.5.
pub struct Qwen2;

/// Qwen3.
pub struct Qwen3;

/// Biases that models of these architectures may have, and that are not added here.
const UNSUPPORTED: [&str; 5] =
    ["attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias", "output.bias"];

impl Family for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["llama", "mistral"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["llama"]
    }

    fn names(&self) -> &'static Names {
        &names::LLAMA
    }

    fn gguf_names(&self) -> &'static Names {
        &names::GGUF_INTERLEAVED
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        file.refuse_flag("mlp_bias", true)?;
        file.decoder(self, false)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        file.refuse_tensors(&UNSUPPORTED)?;
        file.decoder(self)
    }
}

impl Family for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["qwen2"]
    }

    fn names(&self) -> &'static Names {
        &names::LLAMA
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        let mut config = file.decoder(self, false)?;
        config.biases.qkv = true;
        Ok(config)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        file.refuse_tensors(&UNSUPPORTED)?;
        file.decoder(self)
    }
}

impl Family for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["qwen3"]
    }

    fn gguf_architectures(&self) -> &'static [&'static str] {
        &["qwen3"]
    }

    fn names(&self) -> &'static Names {
        &names::LLAMA
    }

    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig> {
        file.refuse_flag("attention_bias", true)?;
        let mut config = file.decoder(self, false)?;
        config.qk_norm = QkNorm::PerHead;
        Ok(config)
    }

    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig> {
        file.refuse_tensors(&UNSUPPORTED)?;
        file.decoder(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::families::config::Positions;
    use crate::families::{ModelConfig, config_from_json};
    use crate::local_ops::rope::RopeScaling;

    const LLAMA_3_2: &str = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "hidden_act": "silu",
        "rope_theta": 500000.0, "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#;

    fn scaling(config: &ModelConfig) -> &RopeScaling {
        let Positions::Rotary { tables, .. } = &config.positions else { panic!("rotary positions") };
        &tables[0].scaling
    }

    #[test]
    fn llama_3_2_is_read() {
        let config = config_from_json(LLAMA_3_2.as_bytes()).unwrap();
        assert_eq!((config.q_width(), config.kv_width(), config.blocks), (2048, 512, 16));
        assert!(config.tied_head && !config.biases.qkv);
        assert!(matches!(scaling(&config), RopeScaling::Llama3 { original_context: 8192, .. }));
    }

    #[test]
    fn what_would_change_the_computation_is_refused() {
        for (from, to) in [
            ("\"llama\"", "\"mamba\""),
            ("silu", "relu2"),
            ("\"attention_bias\": false", "\"attention_bias\": true"),
            ("\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\""),
            ("\"rope_type\": \"llama3\"", "\"type\": \"dynamic\""),
            ("\"mlp_bias\": false", "\"mlp_bias\": true"),
            ("\"mlp_bias\": false", "\"mlp_bias\": false, \"num_local_experts\": 8"),
            ("\"mlp_bias\": false", "\"mlp_bias\": false, \"partial_rotary_factor\": 1.5"),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": 0"),
            ("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7"),
            ("\"hidden_size\": 2048", "\"hidden_size\": 99999999"),
            ("\"hidden_size\": 2048", "\"hidden_size\": \"wide\""),
        ] {
            let json = LLAMA_3_2.replace(from, to);
            assert_ne!(json, LLAMA_3_2);
            assert!(config_from_json(json.as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn both_names_of_the_rotary_type_may_stand_side_by_side() {
        let linear = |names: &str| {
            let scaling = format!("\"rope_scaling\": {{{names}, \"factor\": 4.0}}, \"unused\": {{");
            config_from_json(LLAMA_3_2.replace("\"rope_scaling\": {", &scaling).as_bytes()).unwrap()
        };
        let expected = RopeScaling::Linear { factor: 4.0 };
        for names in
            [r#""rope_type": "linear", "type": "linear""#, r#""rope_type": "linear""#, r#""type": "linear""#]
        {
            assert_eq!(*scaling(&linear(names)), expected, "{names}");
        }
    }

    #[test]
    fn a_sliding_window_is_that_of_each_block() {
        let with = |fields: &str| {
            let json = LLAMA_3_2.replace("\"vocab_size\"", &format!("{fields}, \"vocab_size\""));
            let config = config_from_json(json.as_bytes()).unwrap();
            (0..config.blocks).map(|i| config.block_attention(i).window).collect::<Vec<_>>()
        };
        assert_eq!(with("\"sliding_window\": 4096"), [Some(4096); 16]);
        assert_eq!(with("\"sliding_window\": 4096, \"use_sliding_window\": false"), [None; 16]);
        assert_eq!(with("\"sliding_window\": null"), [None; 16]);
        assert_eq!(with("\"sliding_window\": 131072"), [None; 16]);
        let some = with("\"sliding_window\": 64, \"use_sliding_window\": true, \"max_window_layers\": 14");
        assert_eq!(some, [[None; 14].as_slice(), &[Some(64); 2]].concat());
    }
}
