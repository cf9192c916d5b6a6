//! The client's part: everything of a model but its remote linear weights.

use super::manifest::{
    ClientManifest, FileHash, MANIFEST, ModelDigest, ProtocolBinding, SERVER_MANIFEST, ServerManifest,
    expect_equal, manifest_bytes, parse_manifest, read_manifest, write_atomic,
};
use super::plan::SplitPlan;
use crate::bert::Bert;
use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::gpt2::Gpt2;
use crate::layers::head::HeadPrecision;
use crate::limits::{MAX_JSON_BYTES, MAX_TEMPLATE_BYTES};
use crate::llama::Llama;
use crate::model::CausalModel;
use crate::source::parse_template;
use crate::tokenizer::{SpecialTokens, Tokenizer, read_limited};
use crate::weights::safetensors::{Dtype, SafetensorsFile, write_file};
use crate::weights::{MemorySource, WeightSource};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Configuration and special tokens.
pub const CONFIG: &str = "config.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template; missing if the model has none.
pub const TEMPLATE: &str = "chat_template.jinja";
/// Embeddings, norms, biases and vectors folded from them, a tied head.
pub const LOCAL: &str = "local.safetensors";
/// Column and row scales and row-norm bounds.
pub const SCALES: &str = "scales.safetensors";

/// Scales of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundScales {
    /// `[d_in]`: the client multiplies its input by these.
    pub column_scale: Vec<f32>,
    /// Per matrix `[rows]`: the client multiplies the integer products by these.
    pub row_scale: Vec<Vec<f32>>,
    /// Largest Euclidean norm of a row of the server's integers.
    pub max_row_norm: f64,
}

/// Everything the client needs of a model.
pub struct ClientPart {
    /// The model's name.
    pub name: String,
    /// The configuration.
    pub config: ModelConfig,
    /// The rounds with their shapes.
    pub plan: SplitPlan,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, if the model has one.
    pub chat_template: Option<String>,
    /// Embeddings, norms, biases.
    pub local: MemorySource,
    /// Scales, per round.
    pub scales: Vec<RoundScales>,
}

/// A client part read from disk, with what its manifests say.
pub struct LoadedClientPart {
    /// The part.
    pub part: ClientPart,
    /// The digest of the server manifest.
    pub digest: ModelDigest,
    /// Tokens per batch and parameter set.
    pub protocol: ProtocolBinding,
}

#[derive(Serialize, Deserialize)]
struct ConfigFile {
    model: ModelConfig,
    special_tokens: SpecialTokens,
}

impl ClientPart {
    /// The chat template, parsed.
    ///
    /// # Errors
    /// If the model has none or it is not valid.
    pub fn template(&self) -> Result<ChatTemplate> {
        parse_template(self.chat_template.as_deref(), &self.tokenizer)
    }

    /// Builds the decoder for this part's plan.
    ///
    /// # Errors
    /// If the model is no decoder, or a tensor is missing or misshapen.
    pub fn causal_model(&self, precision: HeadPrecision) -> Result<Box<dyn CausalModel>> {
        match &self.config {
            ModelConfig::Llama(config) => {
                Ok(Box::new(Llama::new(config.clone(), self.plan.kind, &self.local, precision)?))
            }
            ModelConfig::Gpt2(config) => {
                Ok(Box::new(Gpt2::new(config.clone(), self.plan.kind, &self.local, precision)?))
            }
            ModelConfig::Bert(_) => Err(Error::config("family", "bert is an encoder, it generates no text")),
        }
    }

    /// Builds the encoder for this part's plan.
    ///
    /// # Errors
    /// If the model is no encoder, or a tensor is missing or misshapen.
    pub fn encoder(&self) -> Result<Bert> {
        match &self.config {
            ModelConfig::Bert(config) => Bert::new(config.clone(), self.plan.kind, &self.local),
            other => Err(Error::config("family", format!("{} is no encoder", other.split_family().family()))),
        }
    }

    /// Writes all files but the manifests and returns their hashes.
    pub(super) fn write_files(&self, directory: &Path) -> Result<BTreeMap<String, FileHash>> {
        std::fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
        let config =
            ConfigFile { model: self.config.clone(), special_tokens: self.tokenizer.special().clone() };
        let path = directory.join(CONFIG);
        write_atomic(&path, &manifest_bytes(&config, &path)?)?;
        write_atomic(&directory.join(TOKENIZER), self.tokenizer.to_json()?.as_bytes())?;
        let mut names = vec![CONFIG, TOKENIZER, LOCAL, SCALES];
        let template = directory.join(TEMPLATE);
        match &self.chat_template {
            Some(text) => {
                write_atomic(&template, text.as_bytes())?;
                names.push(TEMPLATE);
            }
            None if template.exists() => {
                std::fs::remove_file(&template).map_err(|source| Error::io(&template, source))?;
            }
            None => {}
        }
        let local = self.local.names().into_iter().map(|name| {
            let tensor = stored(&self.local.get(&name)?)?;
            Ok((name, tensor))
        });
        write_file(&directory.join(LOCAL), local.collect::<Result<Vec<_>>>()?)?;
        write_file(&directory.join(SCALES), self.scale_tensors()?)?;
        names
            .into_iter()
            .map(|name| Ok((name.to_owned(), FileHash::of_file(&directory.join(name))?)))
            .collect()
    }

    /// Writes the manifests, last, so that a part without them is recognised as unfinished.
    pub(super) fn write_manifests(
        directory: &Path,
        server: &ServerManifest,
        server_bytes: &[u8],
    ) -> Result<ModelDigest> {
        write_atomic(&directory.join(SERVER_MANIFEST), server_bytes)?;
        let path = directory.join(MANIFEST);
        write_atomic(&path, &manifest_bytes(&ClientManifest::of(server, server_bytes), &path)?)?;
        Ok(ModelDigest::of(server_bytes))
    }

    /// Reads a client part from `DIR/client/<plan>` and checks every file against the manifests.
    ///
    /// # Errors
    /// If a file is missing, damaged or contradicts the manifests; the error names it.
    pub fn load(directory: impl AsRef<Path>) -> Result<LoadedClientPart> {
        let directory = directory.as_ref();
        let (server, digest) = check_manifests(directory)?;
        let path = directory.join(CONFIG);
        let config: ConfigFile = serde_json::from_slice(&read_limited(&path, MAX_JSON_BYTES)?)
            .map_err(|source| Error::malformed(&path, "config", source))?;
        let plan = config.model.split_family().plan(server.plan.kind)?;
        if plan != server.plan {
            return Err(Error::malformed(&path, "plan", "differs from the one in the server manifest"));
        }
        let tokenizer = Tokenizer::from_file(&directory.join(TOKENIZER), config.special_tokens)?;
        let template = directory.join(TEMPLATE);
        let chat_template = if server.client_files.contains_key(TEMPLATE) {
            let bytes = read_limited(&template, MAX_TEMPLATE_BYTES as u64)?;
            Some(String::from_utf8(bytes).map_err(|source| Error::malformed(&template, "text", source))?)
        } else {
            None
        };
        let file = SafetensorsFile::open(directory.join(LOCAL))?;
        let local = file
            .names()
            .into_iter()
            .map(|name| file.get(&name).map(|tensor| (name, tensor)))
            .collect::<Result<Vec<_>>>()?;
        let scales = load_scales(&SafetensorsFile::open(directory.join(SCALES))?, &plan)?;
        let part = Self {
            name: server.model,
            config: config.model,
            plan,
            tokenizer,
            chat_template,
            local: MemorySource::new(local),
            scales,
        };
        Ok(LoadedClientPart { part, digest, protocol: server.protocol })
    }

    fn scale_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let device = &candle_core::Device::Cpu;
        let mut tensors = Vec::new();
        for (round, scales) in self.plan.rounds.iter().zip(&self.scales) {
            tensors.push((
                format!("{}.column_scale", round.name),
                Tensor::new(scales.column_scale.as_slice(), device)?,
            ));
            tensors
                .push((format!("{}.max_row_norm", round.name), Tensor::new(&[scales.max_row_norm], device)?));
            for (matrix, row_scale) in round.matrices.iter().zip(&scales.row_scale) {
                tensors
                    .push((format!("{}.row_scale", matrix.name), Tensor::new(row_scale.as_slice(), device)?));
            }
        }
        Ok(tensors)
    }
}

/// Reads both manifests of a client part and checks them against each other and every file against its hash.
fn check_manifests(directory: &Path) -> Result<(ServerManifest, ModelDigest)> {
    let path = directory.join(MANIFEST);
    let client: ClientManifest = parse_manifest(&read_manifest(&path)?, &path)?;
    let server_path = directory.join(SERVER_MANIFEST);
    let bytes = read_manifest(&server_path)?;
    let digest = ModelDigest::of(&bytes);
    expect_equal(&server_path, "model digest", &client.model_digest, &digest.to_string())?;
    let server: ServerManifest = parse_manifest(&bytes, &server_path)?;
    server.plan.validate()?;
    if client != ClientManifest::of(&server, &bytes) {
        return Err(Error::malformed(&path, "fields", format!("differ from those of {SERVER_MANIFEST}")));
    }
    let known = [CONFIG, TOKENIZER, TEMPLATE, LOCAL, SCALES];
    for (name, hash) in &server.client_files {
        if !known.contains(&name.as_str()) {
            return Err(Error::malformed(&server_path, "client_files", format!("unknown file {name:?}")));
        }
        hash.verify(&directory.join(name))?;
    }
    for name in known.iter().filter(|name| **name != TEMPLATE) {
        if !server.client_files.contains_key(*name) {
            return Err(Error::malformed(&server_path, "client_files", format!("{name} is missing")));
        }
    }
    Ok((server, digest))
}

fn load_scales(file: &SafetensorsFile, plan: &SplitPlan) -> Result<Vec<RoundScales>> {
    let vector = |name: String, length: usize| -> Result<Vec<f32>> {
        let scales = file.get_shaped(&name, &[length])?.to_vec1::<f32>()?;
        match scales.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
            Some(bad) => Err(Error::config("scales", format!("{name} holds {bad}"))),
            None => Ok(scales),
        }
    };
    plan.rounds
        .iter()
        .map(|round| {
            let row_scale = round
                .matrices
                .iter()
                .map(|matrix| vector(format!("{}.row_scale", matrix.name), matrix.rows))
                .collect::<Result<Vec<_>>>()?;
            Ok(RoundScales {
                column_scale: vector(format!("{}.column_scale", round.name), round.d_in)?,
                row_scale,
                max_row_norm: read_f64(file, &format!("{}.max_row_norm", round.name))?,
            })
        })
        .collect()
}

fn read_f64(file: &SafetensorsFile, name: &str) -> Result<f64> {
    let bytes = file.bytes(name)?;
    match (file.dtype(name), <[u8; 8]>::try_from(bytes.as_slice())) {
        (Some(Dtype::F64), Ok(bytes)) => match f64::from_le_bytes(bytes) {
            norm if norm.is_finite() && norm >= 0.0 => Ok(norm),
            bad => Err(Error::config("scales", format!("{name} holds {bad}"))),
        },
        _ => Err(Error::TensorShape {
            name: name.to_owned(),
            expected: vec![1],
            got: file.shape(name).unwrap_or_default(),
        }),
    }
}

/// A tensor as it is stored: bf16 where that loses nothing, else as it is.
fn stored(tensor: &Tensor) -> Result<Tensor> {
    let short = tensor.to_dtype(DType::BF16)?;
    let back = short.to_dtype(DType::F32)?;
    let differences = back.ne(tensor)?.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?;
    Ok(if differences == 0 { short } else { tensor.clone() })
}
