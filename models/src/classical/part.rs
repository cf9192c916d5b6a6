//! Both parts of a predictor, on disk as those of a language model: `DIR/client/plain`, `DIR/server/plain`.

use super::network::{Layers, Network};
use super::trees::{Ensemble, Trees};
use super::{MAX_FILE_BYTES, Output, lightgbm, network, onnx, trees, xgboost};
use crate::families::FamilyId;
use crate::limits::MAX_JSON_BYTES;
use crate::linear::quantize::{QuantizedRound, RoundScales};
use crate::linear::{LinearBackend, run_pass};
use crate::split::ClientPart;
use crate::split::client_part::{
    LinearPart, LoadedClientPart, SCALES, check_manifests, load_scales, write_scales,
};
use crate::split::manifest::{
    FORMAT_VERSION, FileHash, ModelDigest, ProtocolBinding, ServerManifest, manifest_bytes, write_atomic,
};
use crate::split::plan::SplitPlan;
use crate::split::server_part::{self, WeightsWriter};
use crate::tokenizer::read_limited;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What the client knows of a predictor besides the scales.
pub const PREDICTOR: &str = "predictor.json";

/// A model as its file says it.
#[derive(Clone, Debug)]
pub enum Model {
    /// Decision trees.
    Trees(Ensemble),
    /// A linear model or a network of dense layers.
    Network(Network),
}

impl Model {
    /// The sums for a row, in the clear.
    ///
    /// # Panics
    /// If there is not one value per feature.
    pub fn sums(&self, row: &[f64]) -> Vec<f64> {
        match self {
            Self::Trees(model) => model.sums(row),
            Self::Network(model) => model.sums(row),
        }
    }

    /// What the sums mean.
    pub fn output(&self) -> Output {
        match self {
            Self::Trees(model) => model.output,
            Self::Network(model) => model.output,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Trees(model) => &model.name,
            Self::Network(model) => &model.name,
        }
    }

    fn labels(&self) -> &[String] {
        match self {
            Self::Trees(model) => &model.labels,
            Self::Network(model) => &model.labels,
        }
    }
}

/// Whether a path names a file that [`import`] reads, by its ending.
pub fn is_predictor(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending
        .is_some_and(|ending| ["json", "txt", "onnx"].iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Reads a model of XGBoost (JSON), LightGBM (text) or ONNX.
///
/// # Errors
/// If the file is none of these, damaged, too large, or asks for what is not supported.
pub fn import(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    let bytes = read_limited(path, MAX_FILE_BYTES)?;
    let stem =
        path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    if lightgbm::is_one(&bytes) {
        return lightgbm::read(path, &name, &bytes);
    }
    if bytes.first() == Some(&b'{') {
        if xgboost::is_one(&bytes) {
            return xgboost::read(path, &name, &bytes);
        }
        let advice = "is JSON, but not of XGBoost; save_model(\"model.json\") writes it";
        return Err(Error::malformed(path, "model", advice));
    }
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        return onnx::read(path, &name, &bytes);
    }
    let known = "is none of XGBoost's JSON, LightGBM's text and ONNX";
    Err(Error::malformed(path, "model", known))
}

/// How a predictor computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Trees(Trees),
    Network(Layers),
}

/// What the client knows of a predictor: features, edges, scales, labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictor {
    kind: Kind,
    output: Output,
    labels: Vec<String>,
}

impl Predictor {
    /// Names of the features, in order.
    pub fn features(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Trees(trees) => trees.features().collect(),
            Kind::Network(layers) => layers.features().collect(),
        }
    }

    /// Names of the classes; empty for regression.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What the sums mean.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Whether a missing value can be read; networks have no use for one.
    pub fn reads_missing(&self) -> bool {
        matches!(self.kind, Kind::Trees(_))
    }

    fn validate(&self, plan: &SplitPlan) -> Result<()> {
        let sums = match &self.kind {
            Kind::Trees(trees) => {
                trees.validate(plan)?;
                trees.sums_len()
            }
            Kind::Network(layers) => {
                layers.validate(plan)?;
                layers.sums_len()
            }
        };
        let classes = if self.output.is_classifier() { self.labels.len() } else { sums };
        if self.output.sums(classes) != sums || (self.output.is_classifier() && classes < 2) {
            return Err(Error::config("predictor", format!("{sums} sums for {} labels", self.labels.len())));
        }
        Ok(())
    }

    /// The sums of some rows in one pass, `[rows][features]`, and whether the server's products were what its model can give.
    /// If they were not, the sums are worth nothing; that depends on decrypted values, so it is to be told
    /// ([`Error::Inexact`]) when all traffic has ended, and to the local user alone. [`output`](Self::output) makes
    /// predictions of the sums.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row of another length or a value that cannot be read, and those of the backend.
    pub fn sums(&self, backend: &mut dyn LinearBackend, rows: &[&[f64]]) -> Result<(Vec<Vec<f64>>, bool)> {
        let width = self.features().len();
        for row in rows {
            if row.len() != width {
                let range = format!("{width}, one per feature");
                return Err(Error::OutOfRange { what: "values of a row", range, got: row.len().to_string() });
            }
            let readable = |value: &&f64| value.is_finite() || self.reads_missing();
            if row.iter().any(|value| !readable(&value)) {
                let (what, range) = ("a feature of a linear model or network", "a finite number".to_owned());
                return Err(Error::OutOfRange {
                    what,
                    range,
                    got: "one that is missing or infinite".to_owned(),
                });
            }
        }
        if rows.is_empty() {
            return Ok((Vec::new(), true));
        }
        run_pass(backend, rows.len(), |backend| match &self.kind {
            Kind::Trees(trees) => trees.predict(backend, rows),
            Kind::Network(layers) => layers.predict(backend, rows),
        })
    }
}

/// The client's part of a predictor.
pub struct PredictorPart {
    /// The model's name.
    pub name: String,
    /// The rounds with their shapes.
    pub plan: SplitPlan,
    /// Scales, per round.
    pub scales: Vec<RoundScales>,
    /// What the client computes.
    pub predictor: Predictor,
}

impl LinearPart for PredictorPart {
    fn load(directory: &Path) -> Result<LoadedClientPart<Self>> {
        let (server, digest) = check_manifests(directory, &[PREDICTOR, SCALES], &[])?;
        let path = directory.join(PREDICTOR);
        let predictor: Predictor = serde_json::from_slice(&read_limited(&path, MAX_JSON_BYTES)?)
            .map_err(|source| Error::malformed_by(&path, "predictor", source))?;
        predictor.validate(&server.plan)?;
        let scales = load_scales(&directory.join(SCALES), &server.plan)?;
        let part = Self { name: server.model, plan: server.plan, scales, predictor };
        Ok(LoadedClientPart { part, digest, protocol: server.protocol })
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

/// Both parts of a predictor, in memory.
pub struct SplitPredictor {
    /// The client's part.
    pub client: PredictorPart,
    /// The server's weights.
    pub server: Vec<QuantizedRound>,
    family: FamilyId,
}

/// Splits a model. `random` shuffles leaves and draws decoys among the bin edges; it must not be guessable.
///
/// # Errors
/// If the model is not valid or too large.
pub fn split(model: &Model, random: &mut impl FnMut() -> u64) -> Result<SplitPredictor> {
    let (kind, plan, server, family) = match model {
        Model::Trees(model) => {
            let trees = trees::split(model, random)?;
            (Kind::Trees(trees.client), trees.plan, trees.rounds, FamilyId::TREES)
        }
        Model::Network(model) => {
            let (layers, plan, rounds) = network::split(model)?;
            (Kind::Network(layers), plan, rounds, FamilyId::NETWORK)
        }
    };
    let predictor = Predictor { kind, output: model.output(), labels: model.labels().to_vec() };
    predictor.validate(&plan)?;
    let scales = server.iter().map(|round| round.scales.clone()).collect();
    let client = PredictorPart { name: model.name().to_owned(), plan, scales, predictor };
    Ok(SplitPredictor { client, server, family })
}

/// Splits a model as [`split`] does and writes `DIR/client/plain` and `DIR/server/plain`, the manifests last. Returns the
/// model digest, which differs each time: leaves are shuffled anew.
///
/// # Errors
/// As [`split`], or if a file cannot be written.
pub fn split_to(
    model: &Model,
    directory: impl AsRef<Path>,
    protocol: &ProtocolBinding,
    random: &mut impl FnMut() -> u64,
) -> Result<ModelDigest> {
    let SplitPredictor { client: part, server: rounds, family } = split(model, random)?;
    let [client, server] =
        ["client", "server"].map(|side| directory.as_ref().join(side).join(part.plan.kind.as_str()));
    std::fs::create_dir_all(&client).map_err(|source| Error::io(&client, source))?;
    let mut writer = WeightsWriter::create(&server, &part.plan)?;
    for (spec, round) in part.plan.rounds.iter().zip(&rounds) {
        writer.write(spec, round)?;
    }
    let weights = writer.finish()?;
    let path = client.join(PREDICTOR);
    write_atomic(&path, &manifest_bytes(&part.predictor, &path)?)?;
    write_scales(&client.join(SCALES), &part.plan, &part.scales)?;
    let hashed =
        [PREDICTOR, SCALES].map(|name| Ok((name.to_owned(), FileHash::of_file(&client.join(name))?)));
    let manifest = ServerManifest {
        format_version: FORMAT_VERSION,
        model: part.name,
        family,
        protocol: protocol.clone(),
        plan: part.plan,
        weights: BTreeMap::from([(server_part::WEIGHTS.to_owned(), FileHash::of_file(&weights)?)]),
        client_files: hashed.into_iter().collect::<Result<_>>()?,
    };
    let bytes = server_part::write_manifest(&server, &manifest)?;
    ClientPart::write_manifests(&client, &manifest, &bytes)
}
