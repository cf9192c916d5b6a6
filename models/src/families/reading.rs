//! Reading configurations: typed access to `config.json` and GGUF metadata, and what most decoders have in common.

use super::config::{Biases, BlockAttention, Form, ModelConfig, NormConfig, Positions, QkNorm, Scales};
use super::{Family, FamilyId};
use crate::formats::WeightSource;
use crate::formats::gguf::GgufFile;
use crate::local_ops::activation::Activation;
use crate::local_ops::norm::NormKind;
use crate::local_ops::rope::{RopeConfig, RopeScaling};
use crate::{Error, Result};
use serde_json::{Map, Value};

/// Why a mixture of experts is refused.
const EXPERTS: &str = "mixtures of experts are not supported: which experts a token needs would tell the server what is \
                       read";

/// The fields of a `config.json`.
pub struct JsonFields {
    fields: Map<String, Value>,
}

impl JsonFields {
    /// Parses a file.
    ///
    /// # Errors
    /// If it is no JSON object, or describes quantized weights.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> =
            serde_json::from_slice(json).map_err(|source| Error::config_by("config.json", source))?;
        if fields.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return Err(Error::config(
                "quantization_config",
                "quantized safetensors are not supported; take the original weights or a GGUF file",
            ));
        }
        // Models that also see pictures keep the language model's fields apart.
        match fields.get("text_config") {
            Some(Value::Object(text)) if !fields.contains_key("hidden_size") => {
                Ok(Self { fields: text.clone() })
            }
            _ => Ok(Self { fields }),
        }
    }

    /// The model's type; old BERT files name only their architecture.
    ///
    /// # Errors
    /// If neither is there.
    pub fn model_type(&self) -> Result<&str> {
        match self.text("model_type")? {
            Some(name) => Ok(name),
            None if self.architectures().any(|name| name.starts_with("Bert")) => Ok("bert"),
            None => Err(Error::config("model_type", "is missing")),
        }
    }

    /// Names of the transformers classes the file is for.
    pub fn architectures(&self) -> impl Iterator<Item = &str> {
        let names = self.fields.get("architectures").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    }

    /// A field that is there and not null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A text.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>> {
        self.typed(name, "a text", Value::as_str)
    }

    /// A flag; `default` if it is not there.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.typed(name, "a flag", Value::as_bool)?.unwrap_or(default))
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn uint(&self, name: &'static str) -> Result<Option<usize>> {
        self.typed(name, "a non-negative integer", |value| usize::try_from(value.as_u64()?).ok())
    }

    /// A number.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn float(&self, name: &'static str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A non-negative integer that must be there.
    ///
    /// # Errors
    /// If it is missing or has another type.
    pub fn need(&self, name: &'static str) -> Result<usize> {
        self.uint(name)?.ok_or_else(|| Error::config(name, "is missing"))
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// If it is missing or has another type.
    pub fn need_float(&self, name: &'static str) -> Result<f64> {
        self.float(name)?.ok_or_else(|| Error::config(name, "is missing"))
    }

    /// Refuses a file that sets a flag to something else than what this crate computes.
    ///
    /// # Errors
    /// If it does, or the field has another type.
    pub fn refuse_flag(&self, name: &'static str, unsupported: bool) -> Result<()> {
        match self.typed(name, "a flag", Value::as_bool)? {
            Some(set) if set == unsupported => Err(Error::config(name, format!("{set} is not supported"))),
            _ => Ok(()),
        }
    }

    /// Refuses mixtures of experts.
    ///
    /// # Errors
    /// If the file describes one.
    pub fn refuse_experts(&self) -> Result<()> {
        for name in ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"] {
            if self.uint(name)?.is_some_and(|experts| experts > 0) {
                return Err(Error::config(name, EXPERTS));
            }
        }
        Ok(())
    }

    fn typed<'a, T>(
        &'a self,
        name: &'static str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => {
                convert(value).map(Some).ok_or_else(|| Error::config(name, format!("expected {expected}")))
            }
        }
    }

    /// What decoders that descend from Llama have in common: shapes, positions, windows. Attention has no biases; norms
    /// are of root-mean-square kind; blocks are [`Form::Pre`].
    ///
    /// # Errors
    /// If a field is missing, out of range or describes something that is not supported.
    pub fn decoder(&self, family: &dyn Family, tied_by_default: bool) -> Result<ModelConfig> {
        self.refuse_experts()?;
        let heads = self.need("num_attention_heads")?;
        let hidden_size = self.need("hidden_size")?;
        let head_dim = match self.uint("head_dim")? {
            Some(head_dim) => head_dim,
            None => width_of_head(hidden_size, heads)?,
        };
        let blocks = self.need("num_hidden_layers")?;
        let context_length = self.need("max_position_embeddings")?;
        let activation = match self.text("hidden_activation")? {
            Some(name) => name,
            None => self.text("hidden_act")?.unwrap_or("silu"),
        };
        let rope = self.rope(context_length)?;
        let eps = match self.float("rms_norm_eps")? {
            Some(eps) => eps,
            None => self.float("layer_norm_eps")?.map_or_else(|| self.need_float("norm_epsilon"), Ok)?,
        };
        let mut config = ModelConfig {
            family: FamilyId::of(family),
            vocab_size: self.need("vocab_size")?,
            hidden_size,
            intermediate_size: self.need("intermediate_size")?,
            blocks,
            heads,
            kv_heads: self.uint("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            context_length: rope.context.unwrap_or(context_length).min(context_length),
            norm: NormConfig { kind: NormKind::Rms, eps, bias: false },
            form: Form::Pre,
            activation: Activation::from_name(activation)?,
            gated: true,
            biases: Biases::default(),
            score_scale: 1.0 / (head_dim.max(1) as f64).sqrt(),
            score_cap: None,
            qk_norm: QkNorm::None,
            positions: Positions::Rotary {
                dim: (head_dim as f64 * rope.share).round() as usize,
                tables: vec![rope.config],
            },
            block_attention: Vec::new(),
            scales: Scales::default(),
            logit_cap: None,
            tied_head: self.flag("tie_word_embeddings", tied_by_default)?,
            encoder: None,
        };
        config.block_attention = self.windows(&config)?;
        Ok(config)
    }

    /// The sliding windows of blocks: `layer_types` where the file has it, else the older fields.
    fn windows(&self, config: &ModelConfig) -> Result<Vec<BlockAttention>> {
        let Some(window) = self.uint("sliding_window")? else { return Ok(Vec::new()) };
        let blocks = config.blocks.min(crate::limits::MAX_BLOCKS);
        // A window as long as the context is none.
        if window >= config.context_length || !self.flag("use_sliding_window", true)? {
            return Ok(Vec::new());
        }
        let first = match self.flag("use_sliding_window", false)? {
            true => self.uint("max_window_layers")?.unwrap_or(0),
            false => 0,
        };
        let kinds = self.layer_types()?;
        let slides = |i: usize| match &kinds {
            Some(kinds) => kinds.get(i).is_some_and(|kind| *kind == "sliding_attention"),
            None => i >= first,
        };
        let each = (0..blocks).map(|i| BlockAttention {
            window: slides(i).then_some(window),
            rope: config.block_attention(i).rope,
        });
        let all: Vec<_> = each.collect();
        Ok(if all.iter().any(|block| block.window.is_some()) { all } else { Vec::new() })
    }

    /// The kinds of attention that newer files name for each block.
    ///
    /// # Errors
    /// If a kind is neither sliding nor full.
    pub fn layer_types(&self) -> Result<Option<Vec<&str>>> {
        let Some(kinds) = self.typed("layer_types", "a list", Value::as_array)? else { return Ok(None) };
        let kinds: Option<Vec<&str>> = kinds.iter().map(Value::as_str).collect();
        let kinds = kinds.ok_or_else(|| Error::config("layer_types", "expected texts"))?;
        match kinds.iter().find(|kind| !["sliding_attention", "full_attention"].contains(kind)) {
            Some(other) => Err(Error::config("layer_types", format!("{other:?} is not supported"))),
            None => Ok(Some(kinds)),
        }
    }

    /// The rotary positions, from any of the fields that transformers has had for them.
    ///
    /// # Errors
    /// If they are scaled in a way that is not supported.
    pub fn rope(&self, context: usize) -> Result<Rope> {
        // Newer files keep everything in `rope_parameters`, some with an object for each kind of attention.
        let nested = self.value("rope_parameters").and_then(Value::as_object);
        let newer = match nested.and_then(|all| all.get("full_attention")) {
            Some(full) => full.as_object(),
            None => nested,
        };
        let older = self.value("rope_scaling").and_then(Value::as_object);
        let theta = self
            .float("rope_theta")?
            .or(self.float("rotary_emb_base")?)
            .or_else(|| newer?.get("rope_theta")?.as_f64());
        let share = self
            .float("partial_rotary_factor")?
            .or(self.float("rotary_pct")?)
            .or_else(|| newer?.get("partial_rotary_factor")?.as_f64());
        let config = RopeConfig::plain(theta.unwrap_or(10_000.0));
        let mut rope = Rope { config, share: share.unwrap_or(1.0), context: None };
        if !(rope.share > 0.0 && rope.share <= 1.0) {
            return Err(Error::out_of_range("partial_rotary_factor", "above 0 to 1", rope.share));
        }
        if let Some(scaling) = older.or(newer) {
            self.scale(&mut rope, scaling, context)?;
        }
        Ok(rope)
    }

    fn scale(&self, rope: &mut Rope, scaling: &Map<String, Value>, context: usize) -> Result<()> {
        let number = |name: &str| scaling.get(name).and_then(Value::as_f64);
        let need = |name: &'static str| {
            number(name).ok_or_else(|| Error::config(name, "is missing in the scaling of rotary positions"))
        };
        // `type` is the older name of `rope_type`; many files hold both.
        let kind = ["rope_type", "type"].iter().find_map(|name| scaling.get(*name)?.as_str());
        let original = number("original_max_position_embeddings")
            .or(self.float("original_max_position_embeddings")?)
            .unwrap_or(context as f64);
        match kind {
            None | Some("default") => {}
            Some("linear") => rope.config.scaling = RopeScaling::Linear { factor: need("factor")? },
            Some("llama3") => {
                rope.config.scaling = RopeScaling::Llama3 {
                    factor: need("factor")?,
                    low_freq_factor: need("low_freq_factor")?,
                    high_freq_factor: need("high_freq_factor")?,
                    original_context: original as usize,
                };
            }
            Some("longrope" | "su") => {
                // The factors for contexts up to the original one; beyond it all keys would have to be rotated anew.
                let factors = scaling.get("short_factor").and_then(Value::as_array);
                let divisors: Option<Vec<f64>> =
                    factors.and_then(|factors| factors.iter().map(Value::as_f64).collect());
                let divisors = divisors.ok_or_else(|| Error::config("short_factor", "expected numbers"))?;
                rope.config.scaling = RopeScaling::Factors { divisors };
                let stretch = number("factor").unwrap_or(context as f64 / original);
                let usual = if stretch > 1.0 { (1.0 + stretch.ln() / original.ln()).sqrt() } else { 1.0 };
                rope.config.magnitude = number("attention_factor").unwrap_or(usual);
                rope.context = Some(original as usize);
            }
            Some(other) => return Err(Error::config("rope_scaling", format!("{other:?} is not supported"))),
        }
        Ok(())
    }
}

/// Rotary positions as a file describes them.
pub struct Rope {
    /// The frequencies.
    pub config: RopeConfig,
    /// Share of a head that is rotated.
    pub share: f64,
    /// Positions for which the frequencies hold, where that is less than the model's context.
    pub context: Option<usize>,
}

fn width_of_head(hidden: usize, heads: usize) -> Result<usize> {
    hidden.checked_div(heads).ok_or_else(|| Error::out_of_range("num_attention_heads", "at least 1", heads))
}

/// The metadata of a GGUF file under its architecture's prefix.
pub struct GgufFields<'a> {
    /// The file.
    pub file: &'a GgufFile,
    architecture: &'a str,
}

impl<'a> GgufFields<'a> {
    /// The fields of `file`, whose architecture is this one.
    pub fn new(file: &'a GgufFile, architecture: &'a str) -> Self {
        Self { file, architecture }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn uint(&self, name: &str) -> Result<Option<usize>> {
        self.file.uint(&self.key(name))
    }

    /// A number.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        self.file.float(&self.key(name))
    }

    /// A flag; `default` if it is not there.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.file.flag(&self.key(name))?.unwrap_or(default))
    }

    /// A non-negative integer that must be there.
    ///
    /// # Errors
    /// If it is missing or has another type.
    pub fn need(&self, name: &str) -> Result<usize> {
        self.file.require(&self.key(name), self.uint(name)?)
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// If it is missing or has another type.
    pub fn need_float(&self, name: &str) -> Result<f64> {
        self.file.require(&self.key(name), self.float(name)?)
    }

    /// Refuses mixtures of experts.
    ///
    /// # Errors
    /// If the file describes one.
    pub fn refuse_experts(&self) -> Result<()> {
        match self.uint("expert_count")? {
            Some(1..) => Err(Error::config("expert_count", EXPERTS)),
            _ => Ok(()),
        }
    }

    /// Whether the rotary frequencies are divided by the numbers of a tensor.
    pub fn has_factors(&self) -> bool {
        self.file.contains("rope_factors_short.weight")
    }

    /// Whether blocks have a tensor, by its name in the first one.
    pub fn has(&self, name: &str) -> bool {
        self.file.contains(&format!("blk.0.{name}"))
    }

    /// Refuses a file with tensors that this crate would leave out.
    ///
    /// # Errors
    /// If it has one.
    pub fn refuse_tensors(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| self.has(name) || self.file.contains(name)) {
            Some(name) => Err(Error::config("tensors", format!("{name} is not supported"))),
            None => Ok(()),
        }
    }

    /// As [`JsonFields::decoder`]. Biases are those the file has; a head without a tensor is tied.
    ///
    /// # Errors
    /// If a field is missing, out of range or describes something that is not supported.
    pub fn decoder(&self, family: &dyn Family) -> Result<ModelConfig> {
        self.refuse_experts()?;
        let heads = self.need("attention.head_count")?;
        let hidden_size = self.need("embedding_length")?;
        let head_dim = match self.uint("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => width_of_head(hidden_size, heads)?,
        };
        let context_length = self.need("context_length")?;
        let (eps, kind) = match self.float("attention.layer_norm_rms_epsilon")? {
            Some(eps) => (eps, NormKind::Rms),
            None => (self.need_float("attention.layer_norm_epsilon")?, NormKind::Layer),
        };
        let blocks = self.need("block_count")?;
        let mut config = ModelConfig {
            family: FamilyId::of(family),
            vocab_size: self.file.vocabulary_size()?,
            hidden_size,
            intermediate_size: self.need("feed_forward_length")?,
            blocks,
            heads,
            kv_heads: self.uint("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            context_length,
            norm: NormConfig { kind, eps, bias: self.file.contains("output_norm.bias") },
            form: Form::Pre,
            activation: Activation::Silu,
            gated: true,
            biases: Biases {
                qkv: self.has("attn_q.bias") || self.has("attn_qkv.bias"),
                attn_out: self.has("attn_output.bias"),
                inner: self.has("ffn_up.bias"),
                down: self.has("ffn_down.bias"),
                head: self.file.contains("output.bias"),
            },
            score_scale: 1.0 / (head_dim.max(1) as f64).sqrt(),
            score_cap: None,
            qk_norm: if self.has("attn_q_norm.weight") { QkNorm::PerHead } else { QkNorm::None },
            positions: Positions::Rotary {
                dim: self.uint("rope.dimension_count")?.unwrap_or(head_dim),
                tables: vec![self.rope()?],
            },
            block_attention: Vec::new(),
            scales: Scales::default(),
            logit_cap: None,
            tied_head: !self.file.contains("output.weight"),
            encoder: None,
        };
        // A window as long as the context is none.
        let window =
            self.uint("attention.sliding_window")?.filter(|&window| window > 0 && window < context_length);
        if let Some(window) = window {
            let attention = BlockAttention { window: Some(window), rope: Some(0) };
            config.block_attention = vec![attention; blocks.min(crate::limits::MAX_BLOCKS)];
        }
        Ok(config)
    }

    /// The rotary positions: their scaling by type and factor, in old files by a factor alone, or by the divisors of a
    /// tensor.
    ///
    /// # Errors
    /// If they are scaled in a way that is not supported.
    pub fn rope(&self) -> Result<RopeConfig> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let mut config = RopeConfig::plain(theta);
        config.scaling = match self.file.string(&self.key("rope.scaling.type"))? {
            None => match self.float("rope.scale_linear")? {
                None | Some(1.0) => RopeScaling::None,
                Some(factor) => RopeScaling::Linear { factor },
            },
            Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: self.need_float("rope.scaling.factor")? },
            Some(other) => return Err(Error::config("rope scaling", format!("{other:?} is not supported"))),
        };
        let factors = ["rope_freqs.weight", "rope_factors_short.weight"];
        let Some(factors) = factors.into_iter().find(|name| self.file.contains(name)) else {
            return Ok(config);
        };
        if config.scaling != RopeScaling::None {
            return Err(Error::config(
                "rope scaling",
                "a tensor of divisors and a factor together are not supported",
            ));
        }
        let divisors = self.file.get(factors)?.flatten_all()?.to_vec1::<f32>()?;
        config.scaling = RopeScaling::Factors { divisors: divisors.into_iter().map(f64::from).collect() };
        config.magnitude = self.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        Ok(config)
    }
}
