//! The client's part: everything of a model but its remote linear weights.

use super::EMBEDDING;
use super::manifest::{
    ClientManifest, FileHash, MANIFEST, ModelDigest, ProtocolBinding, SERVER_MANIFEST, ServerManifest,
    expect_equal, manifest_bytes, parse_manifest, read_manifest, write_atomic,
};
use super::plan::SplitPlan;
use crate::chat_template::ChatTemplate;
use crate::families::{Decoder, Encoder, ModelConfig};
use crate::formats::safetensors::{Dtype, SafetensorsFile, SafetensorsWriter};
use crate::formats::{MemorySource, WeightSource};
use crate::limits::{MAX_JSON_BYTES, MAX_TEMPLATE_BYTES};
use crate::linear::quantize::RoundScales;
use crate::local_ops::embedding::Embedding;
use crate::local_ops::head::HeadPrecision;
use crate::local_ops::int8_blocks::{BLOCK, Int8Blocks, StoredBlocks, quantize_blocks};
use crate::model::CausalModel;
use crate::source::parse_template;
use crate::tokenizer::{SpecialTokens, Tokenizer, read_limited};
use crate::{Error, Result};
use candle_core::Tensor;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Configuration and special tokens.
pub const CONFIG: &str = "config.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template; missing if the model has none.
pub const TEMPLATE: &str = "chat_template.jinja";
/// Embeddings (which may be the head, too), norms, biases and vectors folded from them.
pub const LOCAL: &str = "local.safetensors";
/// Column and row scales and row-norm bounds.
pub const SCALES: &str = "scales.safetensors";
/// The scales of an embedding in int8 blocks.
const EMBEDDING_SCALE: &str = "token_embd.scale";

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
    /// Norms, biases and vectors folded from them, learned positions.
    pub local: MemorySource,
    /// The embedding, which may be the head, too.
    pub embedding: Embedding,
    /// Scales, per round.
    pub scales: Vec<RoundScales>,
}

/// A client part of any kind of model: what the rounds need of it.
pub trait LinearPart: Sized {
    /// Reads a part from `DIR/client/<plan>` and checks every file against the manifests.
    ///
    /// # Errors
    /// If a file is missing, damaged or contradicts the manifests; the error names it.
    fn load(directory: &Path) -> Result<LoadedClientPart<Self>>;

    /// The model's name.
    fn name(&self) -> &str;

    /// The rounds with their shapes.
    fn plan(&self) -> &SplitPlan;

    /// Scales, per round.
    fn scales(&self) -> &[RoundScales];
}

impl LinearPart for ClientPart {
    fn load(directory: &Path) -> Result<LoadedClientPart> {
        Self::load(directory)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn plan(&self) -> &SplitPlan {
        &self.plan
    }

    fn scales(&self) -> &[RoundScales] {
        &self.scales
    }
}

/// A client part read from disk, with what its manifests say.
pub struct LoadedClientPart<P = ClientPart> {
    /// The part.
    pub part: P,
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
        let (config, embedding) = (self.config.clone(), self.embedding.clone());
        Ok(Box::new(Decoder::new(config, self.plan.kind, &self.local, embedding, precision)?))
    }

    /// Builds the encoder for this part's plan.
    ///
    /// # Errors
    /// If the model is no encoder, or a tensor is missing or misshapen.
    pub fn encoder(&self) -> Result<Encoder> {
        Encoder::new(self.config.clone(), self.plan.kind, &self.local, self.embedding.clone())
    }

    /// Writes the manifests, last, so that a part without them is recognised as unfinished.
    pub(crate) fn write_manifests(
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
        let (server, digest) = check_manifests(directory, &[CONFIG, TOKENIZER, LOCAL, SCALES], &[TEMPLATE])?;
        let path = directory.join(CONFIG);
        let config: ConfigFile = serde_json::from_slice(&read_limited(&path, MAX_JSON_BYTES)?)
            .map_err(|source| Error::malformed_by(&path, "config", source))?;
        let plan = config.model.plan(server.plan.kind)?;
        if plan != server.plan {
            return Err(Error::malformed(&path, "plan", "differs from the one in the server manifest"));
        }
        let tokenizer = Tokenizer::from_file(&directory.join(TOKENIZER), config.special_tokens)?;
        let template = directory.join(TEMPLATE);
        let chat_template = if server.client_files.contains_key(TEMPLATE) {
            let bytes = read_limited(&template, MAX_TEMPLATE_BYTES as u64)?;
            Some(String::from_utf8(bytes).map_err(|source| Error::malformed_by(&template, "text", source))?)
        } else {
            None
        };
        let file = SafetensorsFile::open(directory.join(LOCAL))?;
        let embedding = load_embedding(&file, &config.model)?;
        let local = file
            .names()
            .into_iter()
            .filter(|name| ![EMBEDDING, EMBEDDING_SCALE].contains(&name.as_str()))
            .map(|name| file.get(&name).map(|tensor| (name, tensor)))
            .collect::<Result<Vec<_>>>()?;
        let scales = load_scales(&directory.join(SCALES), &plan)?;
        let part = Self {
            name: server.model,
            config: config.model,
            plan,
            tokenizer,
            chat_template,
            local: MemorySource::new(local),
            embedding,
            scales,
        };
        Ok(LoadedClientPart { part, digest, protocol: server.protocol })
    }
}

/// What the files of a client part are made of; the embedding is read in parts.
pub(super) struct ClientFiles<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) plan: &'a SplitPlan,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) chat_template: Option<&'a str>,
    pub(super) local: &'a MemorySource,
    pub(super) scales: &'a [RoundScales],
    /// Rows of the embedding, f32.
    pub(super) embedding: &'a dyn Fn(Range<usize>) -> Result<Tensor>,
}

/// Rows of the embedding that are in memory at a time: some ten MB.
const EMBEDDING_ROWS: usize = 2048;

impl ClientFiles<'_> {
    /// Writes all files but the manifests and returns their hashes.
    pub(super) fn write(&self, directory: &Path) -> Result<BTreeMap<String, FileHash>> {
        std::fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
        let config =
            ConfigFile { model: self.config.clone(), special_tokens: self.tokenizer.special().clone() };
        let path = directory.join(CONFIG);
        write_atomic(&path, &manifest_bytes(&config, &path)?)?;
        write_atomic(&directory.join(TOKENIZER), self.tokenizer.to_json()?.as_bytes())?;
        let mut names = vec![CONFIG, TOKENIZER, LOCAL, SCALES];
        let template = directory.join(TEMPLATE);
        match self.chat_template {
            Some(text) => {
                write_atomic(&template, text.as_bytes())?;
                names.push(TEMPLATE);
            }
            None if template.exists() => {
                std::fs::remove_file(&template).map_err(|source| Error::io(&template, source))?;
            }
            None => {}
        }
        self.write_local(&directory.join(LOCAL))?;
        write_scales(&directory.join(SCALES), self.plan, self.scales)?;
        names
            .into_iter()
            .map(|name| Ok((name.to_owned(), FileHash::of_file(&directory.join(name))?)))
            .collect()
    }

    fn write_local(&self, path: &Path) -> Result<()> {
        let (vocab, width) = (self.config.vocab_size, self.config.hidden_size);
        let ranges = || (0..vocab).step_by(EMBEDDING_ROWS).map(|row| row..vocab.min(row + EMBEDDING_ROWS));
        let mut tensors = Vec::new();
        let mut data = Vec::new();
        for name in self.local.names() {
            let tensor = self.local.get(&name)?;
            let (dtype, bytes) = stored(&tensor)?;
            tensors.push((name, dtype, tensor.dims().to_vec()));
            data.push(bytes);
        }
        let small = tensors.len();
        let blocks = super::stores_blocks(self.config.kind());
        let mut short = true;
        if blocks {
            let padded = width.next_multiple_of(BLOCK);
            tensors.push((EMBEDDING.to_owned(), Dtype::I8, vec![vocab, padded]));
            tensors.push((EMBEDDING_SCALE.to_owned(), Dtype::F16, vec![vocab, padded / BLOCK]));
        } else {
            for rows in ranges() {
                short = short && stored(&(self.embedding)(rows)?)?.0 == Dtype::BF16;
            }
            let dtype = if short { Dtype::BF16 } else { Dtype::F32 };
            tensors.push((EMBEDDING.to_owned(), dtype, vec![vocab, width]));
        }
        let mut writer = SafetensorsWriter::create(path, &tensors)?;
        for ((name, ..), bytes) in tensors[..small].iter().zip(&data) {
            writer.append(name, bytes)?;
        }
        for rows in ranges() {
            let floats = (self.embedding)(rows)?.flatten_all()?.to_vec1::<f32>()?;
            if blocks {
                let rows = quantize_blocks(&floats, width);
                writer.append(EMBEDDING, bytemuck::cast_slice(&rows.weights))?;
                writer.append(
                    EMBEDDING_SCALE,
                    &le_bytes(rows.scales.iter().map(|scale| scale.to_le_bytes())),
                )?;
            } else if short {
                let values = floats.iter().map(|&value| bf16::from_f32(value).to_le_bytes());
                writer.append(EMBEDDING, &le_bytes(values))?;
            } else {
                writer.append(EMBEDDING, &le_bytes(floats.iter().map(|value| value.to_le_bytes())))?;
            }
        }
        writer.finish()
    }
}

/// Writes the scales of a plan's rounds.
pub(crate) fn write_scales(path: &Path, plan: &SplitPlan, scales: &[RoundScales]) -> Result<()> {
    let mut tensors = Vec::new();
    let mut vector = |name: String, values: &[f32]| {
        let bytes = le_bytes(values.iter().map(|value| value.to_le_bytes()));
        tensors.push((name, Dtype::F32, vec![values.len()], bytes));
    };
    for (round, scales) in plan.rounds.iter().zip(scales) {
        vector(format!("{}.column_scale", round.name), &scales.column_scale);
        for (matrix, row_scale) in round.matrices.iter().zip(&scales.row_scale) {
            vector(format!("{}.row_scale", matrix.name), row_scale);
        }
    }
    for (round, scales) in plan.rounds.iter().zip(scales) {
        let bytes = scales.max_row_norm.to_le_bytes().to_vec();
        tensors.push((format!("{}.max_row_norm", round.name), Dtype::F64, vec![1], bytes));
    }
    write_tensors(path, tensors)
}

/// The bytes of some numbers, one after the other.
fn le_bytes<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    numbers.flatten().collect()
}

/// Writes tensors that are in memory.
fn write_tensors(path: &Path, tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Result<()> {
    let (mut described, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        described.push((name, dtype, shape));
        data.push(bytes);
    }
    let mut writer = SafetensorsWriter::create(path, &described)?;
    for ((name, ..), bytes) in described.iter().zip(data) {
        writer.append(name, &bytes)?;
    }
    writer.finish()
}

/// Reads both manifests of a client part and checks them against each other and every file against its hash: the files that
/// it must have, and those that it may have.
pub(crate) fn check_manifests(
    directory: &Path,
    required: &[&str],
    optional: &[&str],
) -> Result<(ServerManifest, ModelDigest)> {
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
    for (name, hash) in &server.client_files {
        if !required.contains(&name.as_str()) && !optional.contains(&name.as_str()) {
            return Err(Error::malformed(&server_path, "client_files", format!("unknown file {name:?}")));
        }
        hash.verify(&directory.join(name))?;
    }
    for name in required {
        if !server.client_files.contains_key(*name) {
            return Err(Error::malformed(&server_path, "client_files", format!("{name} is missing")));
        }
    }
    Ok((server, digest))
}

/// Reads the scales of a plan's rounds.
pub(crate) fn load_scales(path: &Path, plan: &SplitPlan) -> Result<Vec<RoundScales>> {
    let file = &SafetensorsFile::open(path)?;
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

/// A tensor as it is stored: bf16 where that loses nothing, else f32.
fn stored(tensor: &Tensor) -> Result<(Dtype, Vec<u8>)> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let short: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let loses = values.iter().zip(&short).any(|(value, short)| short.to_f32() != *value);
    Ok(match loses {
        true => (Dtype::F32, le_bytes(values.iter().map(|value| value.to_le_bytes()))),
        false => (Dtype::BF16, le_bytes(short.iter().map(|value| value.to_le_bytes()))),
    })
}

fn load_embedding(file: &SafetensorsFile, config: &ModelConfig) -> Result<Embedding> {
    let (vocab, width) = (config.vocab_size, config.hidden_size);
    if file.dtype(EMBEDDING) != Some(Dtype::I8) {
        return Ok(Embedding::Float(file.get_shaped(EMBEDDING, &[vocab, width])?));
    }
    let padded = width.next_multiple_of(BLOCK);
    for (name, expected, dtype) in
        [(EMBEDDING, [vocab, padded], Dtype::I8), (EMBEDDING_SCALE, [vocab, padded / BLOCK], Dtype::F16)]
    {
        let got = file.shape(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if got != expected || file.dtype(name) != Some(dtype) {
            return Err(Error::TensorShape { name: name.to_owned(), expected: expected.to_vec(), got });
        }
    }
    let weights = file.bytes(EMBEDDING)?.into_iter().map(u8::cast_signed).collect();
    let scales = file.bytes(EMBEDDING_SCALE)?;
    let scales = scales.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
    Ok(Embedding::Int8(Int8Blocks::from_stored(StoredBlocks { weights, scales }, vocab, width)?))
}
