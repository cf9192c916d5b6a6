//! Model families, and what each provides to be split and run.

use crate::split::plan::{PlanKind, SplitPlan};
use crate::weights::WeightSource;
use crate::weights::gguf::GgufFile;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A model family of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama, SmolLM, TinyLlama, Mistral.
    Llama,
    /// Qwen2 and Qwen2.5: Llama with biases on q, k and v.
    Qwen2,
    /// Qwen3: Llama with norms on the heads of q and k.
    Qwen3,
    /// GPT-2.
    Gpt2,
    /// BERT encoders, with or without a token classifier.
    Bert,
}

impl Family {
    /// Names of all families, for messages.
    pub const SUPPORTED: &'static str = "llama, qwen2, qwen3, gpt2, bert";

    /// The name used in GGUF's `general.architecture`, in `config.json`'s `model_type` and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gpt2 => "gpt2",
            Self::Bert => "bert",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            // Mistral is a Llama whose sliding window, where it has one, bounds the context.
            "llama" | "mistral" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gpt2" => Ok(Self::Gpt2),
            "bert" => Ok(Self::Bert),
            other => {
                Err(Error::UnsupportedArchitecture { got: other.to_owned(), supported: Self::SUPPORTED })
            }
        }
    }
}

/// What a family's configuration provides to be split between client and server.
///
/// Implemented by the configuration type of each family; everything else about splitting is generic.
pub trait SplitFamily: Send + Sync {
    /// The family.
    fn family(&self) -> Family;

    /// The rounds of a plan, from shapes alone.
    ///
    /// # Errors
    /// If the configuration is inconsistent or the family has no such plan.
    fn plan(&self, kind: PlanKind) -> Result<SplitPlan>;

    /// Float matrices of round `round` of `plan`, in the plan's order, each `[rows, columns.len()]` f32.
    ///
    /// In the plain plan these are the source's linear weights; in the fused plan gains are folded in and products
    /// formed.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    fn round_weights(&self, source: &dyn WeightSource, plan: &SplitPlan, round: usize)
    -> Result<Vec<Tensor>>;

    /// The tensors the client needs for a plan of this kind, by the name under which the family's model looks them
    /// up: embeddings, norms, biases and vectors folded from them, a tied head. No linear weight.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    fn local_tensors(&self, source: &dyn WeightSource, kind: PlanKind) -> Result<Vec<(String, Tensor)>>;
}

/// Configuration of a model of any family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum ModelConfig {
    /// Llama, Qwen2, Qwen3.
    Llama(crate::llama::Config),
    /// GPT-2.
    Gpt2(crate::gpt2::Config),
    /// BERT.
    Bert(crate::bert::Config),
}

impl ModelConfig {
    /// Reads a GGUF file's metadata.
    ///
    /// # Errors
    /// If the architecture is not supported, or a field is missing, has the wrong type or an unusable value.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        const ARCHITECTURE: &str = "general.architecture";
        let family: Family = file.require(ARCHITECTURE, file.string(ARCHITECTURE)?)?.parse()?;
        Ok(match family {
            Family::Llama | Family::Qwen2 | Family::Qwen3 => {
                Self::Llama(crate::llama::Config::from_gguf(file)?)
            }
            Family::Gpt2 => Self::Gpt2(crate::gpt2::Config::from_gguf(file)?),
            Family::Bert => Self::Bert(crate::bert::Config::from_gguf(file)?),
        })
    }

    /// Rows and width of the head that is the embedding matrix, which the client then holds; `None` where there is no such
    /// head.
    pub fn tied_head(&self) -> Option<(usize, usize)> {
        match self {
            Self::Llama(config) => config.tied_head.then_some((config.vocab_size, config.hidden_size)),
            Self::Gpt2(config) => Some((config.vocab_size, config.hidden_size)),
            Self::Bert(_) => None,
        }
    }

    /// What the family provides to be split.
    pub fn split_family(&self) -> &dyn SplitFamily {
        match self {
            Self::Llama(config) => config,
            Self::Gpt2(config) => config,
            Self::Bert(config) => config,
        }
    }
}
