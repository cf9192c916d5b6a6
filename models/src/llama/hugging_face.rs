//! `config.json` of Llama, Mistral, Qwen2 and Qwen3, as transformers writes it.

use super::Config;
use crate::config::Family;
use crate::layers::rope::{RopeConfig, RopeScaling};
use crate::{Error, Result};
use serde::Deserialize;

/// The fields that change the computation.
#[derive(Deserialize)]
struct File {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    /// Where newer versions keep both of the above.
    rope_parameters: Option<Rope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    partial_rotary_factor: Option<f64>,
}

#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// The older name of `rope_type`; many files hold both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// If it is not that of a supported model, or a value is missing or out of range.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let file: File =
            serde_json::from_slice(json).map_err(|source| Error::config("config.json", source))?;
        let architecture: Family = file.model_type.parse()?;
        if file.hidden_act.as_deref().is_some_and(|act| act != "silu") {
            return Err(Error::config("hidden_act", "only silu is supported"));
        }
        if file.attention_bias || file.mlp_bias {
            return Err(Error::config("attention_bias, mlp_bias", "are not supported"));
        }
        if file.num_attention_heads == 0 {
            return Err(Error::config("num_attention_heads", "expected at least 1, got 0"));
        }
        // A window as long as the context is no window; beyond it the model would need one.
        let window = file.sliding_window.filter(|_| file.use_sliding_window != Some(false));
        let config = Self {
            architecture,
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            blocks: file.num_hidden_layers,
            heads: file.num_attention_heads,
            kv_heads: file.num_key_value_heads.unwrap_or(file.num_attention_heads),
            head_dim: file.head_dim.unwrap_or(file.hidden_size / file.num_attention_heads),
            context_length: window.unwrap_or(usize::MAX).min(file.max_position_embeddings),
            rms_eps: file.rms_norm_eps,
            rope: file.rope()?,
            qkv_bias: architecture == Family::Qwen2,
            qk_norm: architecture == Family::Qwen3,
            tied_head: file.tie_word_embeddings,
        };
        config.validate()?;
        Ok(config)
    }
}

impl File {
    fn rope(&self) -> Result<RopeConfig> {
        let parameters = self.rope_parameters.as_ref();
        let theta = self.rope_theta.or(parameters.and_then(|rope| rope.rope_theta)).unwrap_or(10_000.0);
        let rotated = self.partial_rotary_factor.or(parameters.and_then(|rope| rope.partial_rotary_factor));
        if rotated.is_some_and(|share| share != 1.0) {
            return Err(Error::config("partial_rotary_factor", "only whole heads can be rotated"));
        }
        let scaling = match self.rope_scaling.as_ref().or(parameters) {
            None => RopeScaling::None,
            Some(rope) => rope.scaling(self.max_position_embeddings)?,
        };
        Ok(RopeConfig { theta, scaling })
    }
}

impl Rope {
    fn scaling(&self, context: usize) -> Result<RopeScaling> {
        let required = |field: &'static str, value: Option<f64>| {
            value.ok_or_else(|| Error::config(field, "is missing in rope_scaling"))
        };
        match self.rope_type.as_deref().or(self.older_type.as_deref()) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: required("factor", self.factor)? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: required("factor", self.factor)?,
                low_freq_factor: required("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: required("high_freq_factor", self.high_freq_factor)?,
                original_context: self.original_max_position_embeddings.unwrap_or(context),
            }),
            Some(other) => Err(Error::config("rope_scaling", format!("{other:?} is not supported"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_3_2: &str = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "hidden_act": "silu",
        "rope_theta": 500000.0, "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#;

    #[test]
    fn llama_3_2_is_read() {
        let config = Config::from_json(LLAMA_3_2.as_bytes()).unwrap();
        assert_eq!((config.q_width(), config.kv_width(), config.blocks), (2048, 512, 16));
        assert!(config.tied_head && !config.qkv_bias && !config.qk_norm);
        assert!(matches!(config.rope.scaling, RopeScaling::Llama3 { original_context: 8192, .. }));
    }

    #[test]
    fn what_would_change_the_computation_is_refused() {
        for (from, to) in [
            ("\"llama\"", "\"mamba\""),
            ("silu", "gelu"),
            ("\"attention_bias\": false", "\"attention_bias\": true"),
            ("\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\""),
            ("\"rope_type\": \"llama3\"", "\"type\": \"dynamic\""),
            ("\"mlp_bias\": false", "\"mlp_bias\": false, \"partial_rotary_factor\": 0.5"),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": 0"),
            ("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7"),
            ("\"hidden_size\": 2048", "\"hidden_size\": 99999999"),
        ] {
            let json = LLAMA_3_2.replace(from, to);
            assert_ne!(json, LLAMA_3_2);
            assert!(Config::from_json(json.as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn both_names_of_the_rotary_type_may_stand_side_by_side() {
        let linear = |names: &str| {
            let scaling = format!("\"rope_scaling\": {{{names}, \"factor\": 4.0}}, \"unused\": {{");
            Config::from_json(LLAMA_3_2.replace("\"rope_scaling\": {", &scaling).as_bytes()).unwrap()
        };
        let expected = RopeScaling::Linear { factor: 4.0 };
        for names in
            [r#""rope_type": "linear", "type": "linear""#, r#""rope_type": "linear""#, r#""type": "linear""#]
        {
            assert_eq!(linear(names).rope.scaling, expected, "{names}");
        }
    }

    #[test]
    fn a_sliding_window_bounds_the_context() {
        let with = |fields: &str| {
            let json = LLAMA_3_2.replace("\"vocab_size\"", &format!("{fields}, \"vocab_size\""));
            Config::from_json(json.as_bytes()).unwrap().context_length
        };
        assert_eq!(with("\"sliding_window\": 4096"), 4096);
        assert_eq!(with("\"sliding_window\": 4096, \"use_sliding_window\": false"), 131_072);
        assert_eq!(with("\"sliding_window\": null"), 131_072);
    }
}
