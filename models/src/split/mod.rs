//! Which tensors live where: the split of a model between client and server.
//!
//! On disk, for each plan: `DIR/client/<plan>/` and `DIR/server/<plan>/`, each with a `manifest.json`
//! ([`manifest`]). No remote linear weight is in the client part. Where embedding and head are tied, the client holds
//! that matrix, because it needs the embeddings (21 % of SmolLM2-135M's weights).

pub mod client_part;
pub mod manifest;
pub mod plan;
pub mod server_part;

pub use crate::linear::quantize::{IntMatrix, RoundScales};
pub use client_part::{ClientPart, LinearPart, LoadedClientPart};
pub use manifest::{ModelDigest, ProtocolBinding, is_current};
pub use server_part::ServerPart;

use crate::families::ModelKind;
use crate::formats::MemorySource;
use crate::linear::quantize::{QuantizedRound, quantize};
use crate::local_ops::embedding::Embedding;
use crate::source::ModelSource;
use crate::{Error, Result};
use candle_core::Tensor;
use client_part::ClientFiles;
use manifest::{FORMAT_VERSION, FileHash, ServerManifest};
use plan::{PlanKind, PlanRound, SplitPlan};
use rayon::prelude::*;
use server_part::WeightsWriter;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The embedding's name in a source.
const EMBEDDING: &str = "token_embd.weight";

/// Both parts of a model, in memory.
pub struct SplitParts {
    /// The client's part.
    pub client: ClientPart,
    /// The server's weights; the scales in them go to the client only.
    pub server: Vec<QuantizedRound>,
    /// The plan.
    pub plan: SplitPlan,
}

/// Splits a model: forms the plan's matrices in float, equalizes their columns and quantizes their rows.
///
/// `progress` is called after every round, from several threads, with the number of rounds of the plan.
///
/// All of both parts is in memory, the embedding as f32; [`split_to`] writes them as it goes.
///
/// # Errors
/// If a tensor is missing, misshapen or not finite.
pub fn split(source: &ModelSource, kind: PlanKind, progress: impl Fn(usize) + Sync) -> Result<SplitParts> {
    let plan = source.config.plan(kind)?;
    plan.validate()?;
    let mut server = Vec::with_capacity(plan.rounds.len());
    each_round(source, &plan, progress, |_, round| {
        server.push(round);
        Ok(())
    })?;
    let embedding = source.weights.get_shaped(EMBEDDING, &embedding_shape(source))?;
    finite(EMBEDDING, &embedding)?;
    let client = ClientPart {
        name: source.name.clone(),
        config: source.config.clone(),
        plan: plan.clone(),
        tokenizer: source.tokenizer.clone(),
        chat_template: source.chat_template.clone(),
        local: local_tensors(source, kind)?,
        embedding: Embedding::Float(embedding),
        scales: server.iter().map(|round| round.scales.clone()).collect(),
    };
    Ok(SplitParts { client, server, plan })
}

/// Splits a model as [`split`] does and writes `DIR/client/<plan>` and `DIR/server/<plan>` as it goes, so that memory holds
/// few rounds at a time and some rows of the embedding. Returns the model digest.
///
/// Every file appears whole or not at all, the manifests last.
///
/// # Errors
/// If a tensor is missing, misshapen or not finite, or a file cannot be written.
pub fn split_to(
    source: &ModelSource,
    kind: PlanKind,
    directory: impl AsRef<Path>,
    protocol: &ProtocolBinding,
    progress: impl Fn(usize) + Sync,
) -> Result<ModelDigest> {
    let plan = source.config.plan(kind)?;
    plan.validate()?;
    let [client, server] = ["client", "server"].map(|side| directory.as_ref().join(side).join(kind.as_str()));
    let mut writer = WeightsWriter::create(&server, &plan)?;
    let mut scales = Vec::with_capacity(plan.rounds.len());
    each_round(source, &plan, progress, |spec, round| {
        writer.write(spec, &round)?;
        scales.push(round.scales);
        Ok(())
    })?;
    let weights = writer.finish()?;
    source.weights.shape(EMBEDDING).ok_or_else(|| Error::MissingTensor { name: EMBEDDING.to_owned() })?;
    let local = local_tensors(source, kind)?;
    let rows = |rows: Range<usize>| {
        let rows = source.weights.rows(EMBEDDING, rows)?;
        finite(EMBEDDING, &rows)?;
        Ok(rows)
    };
    let files = ClientFiles {
        config: &source.config,
        plan: &plan,
        tokenizer: &source.tokenizer,
        chat_template: source.chat_template.as_deref(),
        local: &local,
        scales: &scales,
        embedding: &rows,
    };
    let client_files = files.write(&client)?;
    write_manifests(&client, &server, &weights, &source.name, &files, protocol, client_files)
}

/// Writes a split that is in `from` once more to `to`, for another `protocol`: only the manifests differ. The files are
/// shared (hard links) where the file system can, else copied. Returns the model digest.
///
/// # Errors
/// If there is no split of `kind` in `from`, or a file cannot be written.
pub fn rebind(from: &Path, kind: PlanKind, to: &Path, protocol: &ProtocolBinding) -> Result<ModelDigest> {
    let part = |root: &Path, side: &str| root.join(side).join(kind.as_str());
    let manifest = part(from, "server").join(manifest::MANIFEST);
    let read: ServerManifest = manifest::parse_manifest(&manifest::read_manifest(&manifest)?, &manifest)?;
    let manifest = ServerManifest { protocol: protocol.clone(), ..read };
    for (side, files) in [("client", &manifest.client_files), ("server", &manifest.weights)] {
        let (from, to) = (part(from, side), part(to, side));
        std::fs::create_dir_all(&to).map_err(|source| Error::io(&to, source))?;
        for name in files.keys() {
            let (from, to) = (from.join(name), to.join(name));
            std::fs::remove_file(&to).ok();
            let shared = std::fs::hard_link(&from, &to);
            shared
                .or_else(|_| std::fs::copy(&from, &to).map(drop))
                .map_err(|source| Error::io(&to, source))?;
        }
    }
    let bytes = server_part::write_manifest(&part(to, "server"), &manifest)?;
    ClientPart::write_manifests(&part(to, "client"), &manifest, &bytes)
}

/// Quantizes all rounds and hands them out in order. Several are worked on at once, as many as have together no more
/// weights than the largest.
fn each_round(
    source: &ModelSource,
    plan: &SplitPlan,
    progress: impl Fn(usize) + Sync,
    mut take: impl FnMut(&PlanRound, QuantizedRound) -> Result<()>,
) -> Result<()> {
    let count = plan.rounds.len();
    let largest = plan.rounds.iter().map(PlanRound::weights).max().unwrap_or(0);
    let mut start = 0;
    while start < count {
        let mut weights = 0;
        let fitting = plan.rounds[start..].iter().take_while(|round| {
            weights += round.weights();
            weights <= largest
        });
        let end = start + fitting.count().max(1);
        let rounds = (start..end)
            .into_par_iter()
            .map(|round| {
                let weights = source.config.round_weights(&*source.weights, plan, round)?;
                let quantized = quantize(&plan.rounds[round], &weights, plan.kind.column_power())?;
                progress(count);
                Ok(quantized)
            })
            .collect::<Result<Vec<_>>>()?;
        for (spec, round) in plan.rounds[start..end].iter().zip(rounds) {
            take(spec, round)?;
        }
        start = end;
    }
    Ok(())
}

fn embedding_shape(source: &ModelSource) -> [usize; 2] {
    [source.config.vocab_size, source.config.hidden_size]
}

fn local_tensors(source: &ModelSource, kind: PlanKind) -> Result<MemorySource> {
    let local = source.config.local_tensors(&*source.weights, kind)?;
    local.par_iter().try_for_each(|(name, tensor)| finite(name, tensor))?;
    Ok(MemorySource::new(local))
}

/// Refuses a tensor that would make every answer of the client nonsense.
fn finite(name: &str, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::config("weights", format!("{name} has weights that are not finite"))),
    }
}

/// Whether a part's embedding is stored in int8 blocks: that of decoders is. Encoders label and compare, and their tables
/// are small.
fn stores_blocks(kind: ModelKind) -> bool {
    kind == ModelKind::Decoder
}

fn write_manifests(
    client: &Path,
    server: &Path,
    weights: &Path,
    name: &str,
    files: &ClientFiles<'_>,
    protocol: &ProtocolBinding,
    client_files: BTreeMap<String, FileHash>,
) -> Result<ModelDigest> {
    let manifest = ServerManifest {
        format_version: FORMAT_VERSION,
        model: name.to_owned(),
        family: files.config.family,
        protocol: protocol.clone(),
        plan: files.plan.clone(),
        weights: BTreeMap::from([(server_part::WEIGHTS.to_owned(), FileHash::of_file(weights)?)]),
        client_files,
    };
    let bytes = server_part::write_manifest(server, &manifest)?;
    ClientPart::write_manifests(client, &manifest, &bytes)
}

impl SplitParts {
    /// Writes `DIR/client/<plan>` and `DIR/server/<plan>` and returns the model digest.
    ///
    /// Every file appears whole or not at all, the manifests last.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: impl AsRef<Path>, protocol: &ProtocolBinding) -> Result<ModelDigest> {
        let kind = self.plan.kind.as_str();
        let [client, server] = ["client", "server"].map(|side| directory.as_ref().join(side).join(kind));
        let mut writer = WeightsWriter::create(&server, &self.plan)?;
        for (spec, round) in self.plan.rounds.iter().zip(&self.server) {
            writer.write(spec, round)?;
        }
        let weights = writer.finish()?;
        let part = &self.client;
        let rows = |rows: Range<usize>| part.embedding.range(rows);
        let files = ClientFiles {
            config: &part.config,
            plan: &self.plan,
            tokenizer: &part.tokenizer,
            chat_template: part.chat_template.as_deref(),
            local: &part.local,
            scales: &part.scales,
            embedding: &rows,
        };
        let client_files = files.write(&client)?;
        write_manifests(&client, &server, &weights, &part.name, &files, protocol, client_files)
    }
}
