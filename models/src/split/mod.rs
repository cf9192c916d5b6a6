//! Which tensors live where: the split of a model between client and server.
//!
//! On disk, for each plan: `DIR/client/<plan>/` and `DIR/server/<plan>/`, each with a `manifest.json`
//! ([`manifest`]). No remote linear weight is in the client part. Where embedding and head are tied, the client holds
//! that matrix, because it needs the embeddings (21 % of SmolLM2-135M's weights).

pub mod client_part;
pub mod manifest;
pub mod plan;
pub mod server_part;

pub use client_part::{ClientPart, LoadedClientPart, RoundScales};
pub use manifest::{ModelDigest, ProtocolBinding};
pub use server_part::{ServerMatrix, ServerPart};

use crate::linear::quantize::{QuantizedRound, quantize};
use crate::source::ModelSource;
use crate::weights::MemorySource;
use crate::{Error, Result};
use candle_core::Tensor;
use manifest::{FORMAT_VERSION, FileHash, ServerManifest};
use plan::{PlanKind, SplitPlan};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Both parts of a model.
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
/// # Errors
/// If a tensor is missing, misshapen or not finite.
pub fn split(source: &ModelSource, kind: PlanKind, progress: impl Fn(usize) + Sync) -> Result<SplitParts> {
    let family = source.config.split_family();
    let plan = family.plan(kind)?;
    plan.validate()?;
    let server = (0..plan.rounds.len())
        .into_par_iter()
        .map(|round| {
            let weights = family.round_weights(&*source.weights, &plan, round)?;
            let quantized = quantize(&plan.rounds[round], &weights, kind.column_power())?;
            progress(plan.rounds.len());
            Ok(quantized)
        })
        .collect::<Result<Vec<_>>>()?;
    let scales = server
        .iter()
        .map(|round| RoundScales {
            column_scale: round.column_scale.clone(),
            row_scale: round.matrices.iter().map(|matrix| matrix.row_scale.clone()).collect(),
            max_row_norm: round.max_row_norm,
        })
        .collect();
    let local = family.local_tensors(&*source.weights, kind)?;
    local.par_iter().try_for_each(|(name, tensor)| finite(name, tensor))?;
    let client = ClientPart {
        name: source.name.clone(),
        config: source.config.clone(),
        plan: plan.clone(),
        tokenizer: source.tokenizer.clone(),
        chat_template: source.chat_template.clone(),
        local: MemorySource::new(local),
        scales,
    };
    Ok(SplitParts { client, server, plan })
}

/// Refuses a tensor that would make every answer of the client nonsense.
fn finite(name: &str, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::config("weights", format!("{name} has weights that are not finite"))),
    }
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
        let client = directory.as_ref().join("client").join(kind);
        let server = directory.as_ref().join("server").join(kind);
        let client_files = self.client.write_files(&client)?;
        let weights = server_part::write_weights(&server, &self.plan, &self.server)?;
        let manifest = ServerManifest {
            format_version: FORMAT_VERSION,
            model: self.client.name.clone(),
            family: self.client.config.split_family().family(),
            protocol: protocol.clone(),
            plan: self.plan.clone(),
            weights: BTreeMap::from([(server_part::WEIGHTS.to_owned(), FileHash::of_file(&weights)?)]),
            client_files,
        };
        let bytes = server_part::write_manifest(&server, &manifest)?;
        ClientPart::write_manifests(&client, &manifest, &bytes)
    }
}
