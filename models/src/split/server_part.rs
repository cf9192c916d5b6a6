//! The server's part: int8 weights. It holds no scales: what an integer is worth, only the client knows.

use super::manifest::{
    MANIFEST, ModelDigest, ProtocolBinding, ServerManifest, expect_equal, manifest_bytes, parse_manifest,
    read_manifest, write_atomic,
};
use super::plan::{PlanMatrix, PlanRound, SplitPlan};
use crate::formats::WeightSource;
use crate::formats::safetensors::{Dtype, SafetensorsFile, SafetensorsWriter};
use crate::linear::quantize::{IntMatrix, MAX_WEIGHT, QuantizedRound};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The weights, by name of the matrix: int8 `[rows, columns.len()]`.
pub const WEIGHTS: &str = "weights.safetensors";

/// A server part on disk, its manifest read and its weights file checked for shapes.
pub struct ServerPart {
    directory: PathBuf,
    manifest: ServerManifest,
    digest: ModelDigest,
    weights: SafetensorsFile,
}

impl ServerPart {
    /// Opens `DIR/server/<plan>`: reads the manifest and checks the shapes in the weights file against its plan.
    ///
    /// The weights' hash is not computed here; [`verify`](Self::verify) does that.
    ///
    /// # Errors
    /// If a file is missing or damaged, or a shape contradicts the plan.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        let path = directory.join(MANIFEST);
        let bytes = read_manifest(&path)?;
        let manifest: ServerManifest = parse_manifest(&bytes, &path)?;
        manifest.plan.validate()?;
        let hash = manifest
            .weights
            .get(WEIGHTS)
            .ok_or_else(|| Error::malformed(&path, "weights", format!("{WEIGHTS} is missing")))?;
        let file = directory.join(WEIGHTS);
        let length = std::fs::metadata(&file).map_err(|source| Error::io(&file, source))?.len();
        expect_equal(&file, "length", &hash.bytes, &length)?;
        let weights = SafetensorsFile::open(&file)?;
        for matrix in manifest.plan.rounds.iter().flat_map(|round| &round.matrices) {
            check_matrix(&weights, &file, matrix)?;
        }
        Ok(Self { directory, manifest, digest: ModelDigest::of(&bytes), weights })
    }

    /// The manifest.
    pub fn manifest(&self) -> &ServerManifest {
        &self.manifest
    }

    /// The plan.
    pub fn plan(&self) -> &SplitPlan {
        &self.manifest.plan
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> ModelDigest {
        self.digest
    }

    /// The digest that the same split has under another `protocol`: a manifest differs in nothing else.
    ///
    /// # Errors
    /// If the manifest cannot be serialized.
    pub fn digest_under(&self, protocol: &ProtocolBinding) -> Result<ModelDigest> {
        let manifest = ServerManifest { protocol: protocol.clone(), ..self.manifest.clone() };
        Ok(ModelDigest::of(&manifest_bytes(&manifest, &self.directory.join(MANIFEST))?))
    }

    /// Checks the weights file against its hash.
    ///
    /// # Errors
    /// If it differs.
    pub fn verify(&self) -> Result<()> {
        for (name, hash) in &self.manifest.weights {
            hash.verify(&self.directory.join(name))?;
        }
        Ok(())
    }

    /// Reads the matrices of a round, in the plan's order.
    ///
    /// # Errors
    /// If the file cannot be read or holds a weight outside -127..=127.
    ///
    /// # Panics
    /// If the plan has no such round.
    pub fn round(&self, round: usize) -> Result<Vec<IntMatrix>> {
        self.manifest.plan.rounds[round]
            .matrices
            .iter()
            .map(|matrix| {
                let weights: Vec<i8> =
                    self.weights.bytes(&matrix.name)?.into_iter().map(u8::cast_signed).collect();
                if weights.iter().any(|&w| w < -MAX_WEIGHT) {
                    return Err(Error::malformed(
                        self.directory.join(WEIGHTS),
                        &matrix.name,
                        "holds the weight -128",
                    ));
                }
                Ok(IntMatrix { rows: matrix.rows, cols: matrix.columns.len(), weights })
            })
            .collect()
    }
}

/// The weights file while it is written, round by round.
pub(crate) struct WeightsWriter {
    path: PathBuf,
    file: SafetensorsWriter,
}

impl WeightsWriter {
    /// Begins the file.
    pub(crate) fn create(directory: &Path, plan: &SplitPlan) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
        let path = directory.join(WEIGHTS);
        let matrices = plan.rounds.iter().flat_map(|round| &round.matrices);
        let tensors: Vec<_> = matrices
            .map(|matrix| (matrix.name.clone(), Dtype::I8, vec![matrix.rows, matrix.columns.len()]))
            .collect();
        let file = SafetensorsWriter::create(&path, &tensors)?;
        Ok(Self { path, file })
    }

    /// Writes the matrices of a round.
    pub(crate) fn write(&mut self, round: &PlanRound, quantized: &QuantizedRound) -> Result<()> {
        for (spec, matrix) in round.matrices.iter().zip(&quantized.matrices) {
            self.file.append(&spec.name, bytemuck::cast_slice(&matrix.weights))?;
        }
        Ok(())
    }

    /// Makes the file appear, and returns its path.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        self.file.finish()?;
        Ok(self.path)
    }
}

/// Writes the manifest and returns its bytes.
pub(crate) fn write_manifest(directory: &Path, manifest: &ServerManifest) -> Result<Vec<u8>> {
    let path = directory.join(MANIFEST);
    let bytes = manifest_bytes(manifest, &path)?;
    write_atomic(&path, &bytes)?;
    Ok(bytes)
}

fn check_matrix(weights: &SafetensorsFile, path: &Path, matrix: &PlanMatrix) -> Result<()> {
    let expected = vec![matrix.rows, matrix.columns.len()];
    let got =
        weights.shape(&matrix.name).ok_or_else(|| Error::MissingTensor { name: matrix.name.clone() })?;
    if got != expected {
        return Err(Error::TensorShape { name: matrix.name.clone(), expected, got });
    }
    match weights.dtype(&matrix.name) {
        Some(Dtype::I8) => Ok(()),
        other => Err(Error::malformed(path, &matrix.name, format!("expected type I8, got {other:?}"))),
    }
}
