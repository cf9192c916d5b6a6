//! Model families: one folder and one row of [`FAMILIES`] each.
//!
//! All families here are transformers of one kind, so what a family adds is data: how its files name their tensors
//! ([`names`]) and which [`ModelConfig`] they mean. The split into rounds (`plan`) and the local operations around
//! them ([`Decoder`], [`Encoder`]) are written once, for all configurations.

pub mod bert;
pub mod cohere;
pub mod config;
pub mod distilbert;
pub mod gemma;
pub mod gpt2;
pub mod gpt_neox;
pub mod granite;
pub mod llama;
pub mod modernbert;
pub mod names;
pub mod olmo2;
pub mod phi;
mod plan;
pub mod reading;
pub mod smollm3;
pub mod starcoder2;
mod transformer;
pub mod xlm_roberta;

pub use config::{ModelConfig, Pooling};
pub use transformer::{Decoder, Encoder};

use crate::formats::gguf::GgufFile;
use crate::{Error, Result};
use names::Names;
use reading::{GgufFields, JsonFields};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// All families.
pub static FAMILIES: &[&dyn Family] = &[
    &llama::Llama,
    &llama::Qwen2,
    &llama::Qwen3,
    &gemma::Gemma,
    &gemma::Gemma2,
    &gemma::Gemma3,
    &phi::Phi,
    &phi::Phi3,
    &smollm3::SmolLm3,
    &olmo2::Olmo2,
    &granite::Granite,
    &starcoder2::StarCoder2,
    &gpt_neox::GptNeoX,
    &cohere::Cohere,
    &cohere::Cohere2,
    &gpt2::Gpt2,
    &bert::Bert,
    &xlm_roberta::XlmRoberta,
    &distilbert::DistilBert,
    &modernbert::ModernBert,
];

/// What a family's models do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// They generate text.
    Decoder,
    /// They turn texts into vectors, or label their tokens.
    Encoder,
    /// They predict from tables: trees, linear models, small networks ([`crate::classical`]).
    Predictor,
}

/// A row of [`FAMILIES`].
pub trait Family: Sync {
    /// The family's name in manifests and messages; lower case.
    fn name(&self) -> &'static str;

    /// What its models do.
    fn kind(&self) -> ModelKind {
        ModelKind::Decoder
    }

    /// Values of `model_type` in `config.json`.
    fn model_types(&self) -> &'static [&'static str];

    /// Values of `general.architecture` in GGUF; empty if the family is not read from GGUF.
    fn gguf_architectures(&self) -> &'static [&'static str];

    /// Names and layouts of the tensors as transformers writes them.
    fn names(&self) -> &'static Names;

    /// Names and layouts of the tensors in GGUF files.
    fn gguf_names(&self) -> &'static Names {
        &names::GGUF
    }

    /// The configuration that a `config.json` means.
    ///
    /// # Errors
    /// If a field is missing, out of range, or asks for a variant that is not supported.
    fn config_from_json(&self, file: &JsonFields) -> Result<ModelConfig>;

    /// The configuration that a GGUF file's metadata and tensors mean.
    ///
    /// # Errors
    /// If a field is missing, out of range, or asks for a variant that is not supported.
    fn config_from_gguf(&self, file: &GgufFields<'_>) -> Result<ModelConfig>;
}

/// A family by its name: what manifests and configurations hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FamilyId(&'static str);

impl FamilyId {
    /// Decision trees; no row of [`FAMILIES`], as they have neither tokens nor a configuration.
    pub const TREES: Self = Self("trees");
    /// Linear models and networks of dense layers; no row of [`FAMILIES`], either.
    pub const NETWORK: Self = Self("network");

    /// The id of a family.
    pub fn of(family: &dyn Family) -> Self {
        Self(family.name())
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The row of [`FAMILIES`].
    ///
    /// # Panics
    /// For [`Self::TREES`] and [`Self::NETWORK`], which have none.
    pub fn family(self) -> &'static dyn Family {
        let row = FAMILIES.iter().find(|family| family.name() == self.0);
        *row.unwrap_or_else(|| panic!("{} is no row of FAMILIES", self.0))
    }

    /// What the family's models do.
    pub fn kind(self) -> ModelKind {
        if [Self::TREES, Self::NETWORK].contains(&self) { ModelKind::Predictor } else { self.family().kind() }
    }
}

impl fmt::Debug for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for FamilyId {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        if let Some(id) = [Self::TREES, Self::NETWORK].into_iter().find(|id| id.0 == name) {
            return Ok(id);
        }
        find(name, |family| family.name() == name).map(Self::of)
    }
}

impl Serialize for FamilyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for FamilyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a `config.json`.
///
/// # Errors
/// If no family has its `model_type`, or as [`Family::config_from_json`].
pub fn config_from_json(json: &[u8]) -> Result<ModelConfig> {
    let file = JsonFields::parse(json)?;
    let name = file.model_type()?;
    let family = find(name, |family| family.model_types().contains(&name));
    // A mixture of experts is refused with its reason even if its name is unknown.
    if family.is_err() {
        file.refuse_experts()?;
    }
    let config = family?.config_from_json(&file)?;
    config.validate()?;
    Ok(config)
}

/// Reads a GGUF file's metadata.
///
/// # Errors
/// If no family has its architecture, or as [`Family::config_from_gguf`].
pub fn config_from_gguf(file: &GgufFile) -> Result<ModelConfig> {
    const ARCHITECTURE: &str = "general.architecture";
    let name = file.require(ARCHITECTURE, file.string(ARCHITECTURE)?)?;
    let fields = GgufFields::new(file, name);
    let family = find(name, |family| family.gguf_architectures().contains(&name));
    if family.is_err() {
        fields.refuse_experts()?;
    }
    let config = family?.config_from_gguf(&fields)?;
    config.validate()?;
    Ok(config)
}

fn find(name: &str, is_it: impl Fn(&dyn Family) -> bool) -> Result<&'static dyn Family> {
    FAMILIES.iter().copied().find(|family| is_it(*family)).ok_or_else(|| Error::UnsupportedArchitecture {
        got: name.to_owned(),
        supported: FAMILIES.iter().map(|family| family.name()).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_belongs_to_one_family() {
        type NamesOf = fn(&dyn Family) -> &'static [&'static str];
        let both: [NamesOf; 2] = [|family| family.model_types(), |family| family.gguf_architectures()];
        for of in both {
            let mut seen = BTreeSet::new();
            for family in FAMILIES {
                assert!(of(*family).iter().all(|name| seen.insert(*name)), "{}", family.name());
            }
        }
        let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name()).collect();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn ids_are_written_as_names() {
        let id: FamilyId = "gpt2".parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"gpt2\"");
        assert_eq!(serde_json::from_str::<FamilyId>("\"gpt2\"").unwrap(), id);
        let error = "mamba".parse::<FamilyId>().unwrap_err().to_string();
        assert!(error.contains("mamba") && error.contains("llama"), "{error}");
    }

    #[test]
    fn mixtures_of_experts_are_refused_with_the_reason() {
        let json = br#"{"model_type": "some_moe", "num_experts": 8}"#;
        let error = config_from_json(json).unwrap_err().to_string();
        assert!(error.contains("which experts"), "{error}");
    }
}
