//! Predictors from a file or a server to predictions: trees, linear models and small networks.
//!
//! # Example
//! ```no_run
//! use sotto_engine::open::BackendSpec;
//! use sotto_engine::predict::{OpenPredictor, PredictOptions};
//! use sotto_storage::{Cache, NoProgress};
//!
//! let options = PredictOptions::new(Cache::from_env()?);
//! let file = Some("model.json".as_ref());
//! let mut predictor = OpenPredictor::open(file, &BackendSpec::Embedded, options, &NoProgress)?;
//! let rows = vec![vec![0.5; predictor.predictor().features().len()]];
//! let predictions = predictor.predict(&rows, &mut |_| ())?;
//! predictor.verdict()?;
//! println!("{predictions:?}");
//! # Ok::<(), sotto_protocol::Error>(())
//! ```

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fhe_layers::Set;
use sha2::{Digest, Sha256};
use sotto_client::accounting::{Accounting, Totals};
use sotto_client::{ChangedModel, RemoteOptions, WirePreference};
use sotto_models::classical::{self, Model, Prediction, Predictor, PredictorPart};
use sotto_models::families::ModelKind;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{LinearPart, LoadedClientPart, ServerPart};
use sotto_protocol::binding::{SetPreference, binding_of};
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, FetchProgress};

use crate::backend::{Backend, BackendKind, Int8Backend, SimulatedBackend, backend_error};
use crate::embedded::{Embedded, EmbeddedOptions, LocalModel, is_split};
use crate::open::BackendSpec;

/// How to open a predictor.
pub struct PredictOptions {
    /// Where splits and client parts are kept.
    pub cache: Cache,
    /// Rows per batch of masks, for a split made here.
    pub tau: usize,
    /// Parameter set.
    pub set: SetPreference,
    /// Wire form.
    pub wire: WirePreference,
    /// Further arguments of the embedded server's `serve`.
    pub serve_arguments: Vec<OsString>,
    /// Decides whether a server's changed model is accepted.
    pub accept_change: Box<dyn Fn(&ChangedModel) -> bool + Send>,
    /// Ends a pass at its next round when raised.
    pub cancelled: Arc<AtomicBool>,
    /// Longest wait for masks without a sign of progress.
    pub mask_timeout: Duration,
}

impl PredictOptions {
    /// 64 rows per batch, the set that suits the memory, changed models refused.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            tau: 64,
            set: SetPreference::Auto,
            wire: WirePreference::Auto,
            serve_arguments: Vec::new(),
            accept_change: Box::new(|_| false),
            cancelled: Arc::default(),
            mask_timeout: Duration::from_secs(120),
        }
    }
}

/// A predictor that is ready. Open it on the thread that uses it: an embedded server ends with that thread.
pub struct OpenPredictor {
    part: PredictorPart,
    how: How,
    accounting: Arc<Accounting>,
    description: String,
    /// Whether all products so far were what the model can give.
    sound: bool,
    /// Dropped after the backend.
    _server: Option<Embedded>,
}

/// Where predictions come from.
enum How {
    /// Rounds on a backend.
    Rounds(Backend),
    /// The model as its file says it, in the clear: what everything is compared with.
    Clear(Box<Model>),
}

impl OpenPredictor {
    /// Opens the model in `file`, or with [`BackendSpec::Remote`] the one that the server offers.
    ///
    /// # Errors
    /// [`Error::Usage`] without a file for a server of this machine; what reading, splitting and connecting fail with.
    pub fn open(
        file: Option<&Path>,
        spec: &BackendSpec,
        options: PredictOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        if let BackendSpec::Remote(connect) = spec {
            let remote = RemoteOptions {
                kind: Some(ModelKind::Predictor),
                accept_change: options.accept_change,
                cancelled: options.cancelled,
                mask_timeout: options.mask_timeout,
                wire: options.wire,
                set: options.set,
                ..RemoteOptions::new(options.cache)
            };
            let connected = sotto_client::connect::<PredictorPart>(connect, remote, progress)?;
            let description = format!("{} on {}", connected.name, connect.address);
            let backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
            return Ok(Self {
                part: connected.part,
                how: How::Rounds(backend),
                accounting: connected.accounting,
                description,
                sound: true,
                _server: None,
            });
        }
        let file =
            file.ok_or_else(|| Error::Usage("name a model file, or a server with --server".to_owned()))?;
        let local = local_predictor(file, &options, progress)?;
        match spec {
            BackendSpec::Embedded => Self::embedded(&local, options, progress),
            BackendSpec::Dense => {
                let part = PredictorPart::load(&local.client_directory())?.part;
                let model = Box::new(classical::import(file)?);
                Ok(Self::here(part, How::Clear(model), &local.name, "in clear"))
            }
            BackendSpec::Simulated => {
                let loaded = PredictorPart::load(&local.client_directory())?;
                let server = ServerPart::open(local.server_directory())?;
                let instance = Arc::new(sotto_client::instance(&loaded)?);
                let form = options.wire.on_this_machine(instance.params());
                let backend = SimulatedBackend::new(instance, &server, &loaded.part.scales, form)?;
                let how = How::Rounds(Backend::new(BackendKind::Simulated(Box::new(backend))));
                Ok(Self::here(
                    loaded.part,
                    how,
                    &local.name,
                    "in clear, with the noise of the encrypted path",
                ))
            }
            _ => {
                let LoadedClientPart { part, .. } = PredictorPart::load(&local.client_directory())?;
                let server = ServerPart::open(local.server_directory())?;
                let backend = Int8Backend::new(&server, &part.scales)?;
                let how = How::Rounds(Backend::new(BackendKind::Int8(Box::new(backend))));
                Ok(Self::here(part, how, &local.name, "in clear, with the server's weights"))
            }
        }
    }

    fn here(part: PredictorPart, how: How, name: &str, what: &str) -> Self {
        let description = format!("{name} on this machine, {what}");
        Self { part, how, accounting: Arc::default(), description, sound: true, _server: None }
    }

    fn embedded(local: &LocalModel, options: PredictOptions, progress: &dyn FetchProgress) -> Result<Self> {
        let embedded = EmbeddedOptions {
            cancelled: options.cancelled,
            mask_timeout: options.mask_timeout,
            wire: options.wire,
            serve_arguments: options.serve_arguments,
            ..EmbeddedOptions::new(options.cache)
        };
        progress.begin("starting the local server", None, false);
        let started = Embedded::start::<PredictorPart>(local, embedded, progress);
        progress.end();
        let (server, connected) = started?;
        Ok(Self {
            part: connected.part,
            how: How::Rounds(Backend::new(BackendKind::Remote(Box::new(connected.backend)))),
            accounting: connected.accounting,
            description: format!("{} on this machine, encrypted", local.name),
            sound: true,
            _server: Some(server),
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.part.name
    }

    /// One line about model and server.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Features, labels and output.
    pub fn predictor(&self) -> &Predictor {
        &self.part.predictor
    }

    /// Bytes, round trips and milliseconds so far; zero for the references.
    pub fn totals(&self) -> Totals {
        self.accounting.totals()
    }

    /// Waits until masks for `rows` rows, or a batch of them, are there: what follows then costs round trips only.
    ///
    /// # Errors
    /// [`Error::SlotTimeout`], or what made the masks fail.
    pub fn wait_ready(&self, rows: usize) -> Result<()> {
        match &self.how {
            How::Rounds(backend) => match backend.kind() {
                BackendKind::Remote(remote) => remote.wait_ready(rows.min(remote.tau())),
                _ => Ok(()),
            },
            How::Clear(_) => Ok(()),
        }
    }

    /// Whether the server's products so far were what its model can give. It depends on decrypted values: ask when all
    /// traffic has ended, and tell nobody but the local user.
    ///
    /// # Errors
    /// [`sotto_models::Error::Inexact`] if not: no prediction since the model was opened is to be trusted.
    pub fn verdict(&self) -> Result<()> {
        if self.sound { Ok(()) } else { Err(Error::Models(sotto_models::Error::Inexact)) }
    }

    /// Predicts `rows`, in as many passes as masks allow for; `done` hears after each how many rows there are. Ask for the
    /// [`verdict`](Self::verdict) after the last call, before anything is done with the predictions.
    ///
    /// # Errors
    /// A row that does not fit the features, and whatever a backend reports.
    pub fn predict(&mut self, rows: &[Vec<f64>], done: &mut dyn FnMut(usize)) -> Result<Vec<Prediction>> {
        let output = self.part.predictor.output();
        let backend = match &mut self.how {
            How::Clear(model) => {
                let width = self.part.predictor.features().len();
                if let Some(row) = rows.iter().find(|row| row.len() != width) {
                    let range = format!("{width}, one per feature");
                    return Err(Error::OutOfRange {
                        what: "values of a row",
                        range,
                        got: row.len().to_string(),
                    });
                }
                return Ok(rows.iter().map(|row| output.prediction(&model.sums(row))).collect());
            }
            How::Rounds(backend) => backend,
        };
        let mut predictions = Vec::with_capacity(rows.len());
        while predictions.len() < rows.len() {
            let rest = &rows[predictions.len()..];
            let count = backend.pass_tokens(rest.len().min(MAX_PASS_ROWS));
            let pass: Vec<&[f64]> = rest[..count].iter().map(Vec::as_slice).collect();
            let (sums, sound) = self.part.predictor.sums(backend, &pass).map_err(backend_error)?;
            self.sound &= sound;
            predictions.extend(sums.iter().map(|sums| output.prediction(sums)));
            done(predictions.len());
        }
        Ok(predictions)
    }
}

/// Rows of a pass: a body may carry no more tokens.
const MAX_PASS_ROWS: usize = sotto_protocol::limits::MAX_TOKENS_PER_BODY as usize;

/// Splits the model in `file`, unless the cache has its split.
fn local_predictor(
    file: &Path,
    options: &PredictOptions,
    progress: &dyn FetchProgress,
) -> Result<LocalModel> {
    let path = fs::canonicalize(file).map_err(|error| Error::io("reading", file, error))?;
    let bytes = fs::read(&path).map_err(|error| Error::io("reading", &path, error))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{stem}-{}", &hex::encode(Sha256::digest(&bytes))[..12]);
    drop(bytes);
    // A predictor's tables are small: the more precise set, unless another is asked for.
    let set = match options.set {
        SetPreference::Only(set) => set,
        SetPreference::Auto => Set::Default,
    };
    let binding = binding_of(set, options.tau)?;
    let directory = options.cache.split(&name).join(format!("{}-{}", binding.params_id, PlanKind::Plain));
    let local = LocalModel { name: name.clone(), source: path.clone(), directory, plan: PlanKind::Plain };
    if !is_split(&local) {
        let _lock = options.cache.lock(&format!("split-{name}"))?;
        if !is_split(&local) {
            progress.begin(&format!("splitting {name}"), None, false);
            let model = classical::import(&path)?;
            let stage = options.cache.stage(&format!("split-{name}"))?;
            classical::split_to(&model, stage.path(), &binding, &mut rand::random::<u64>)?;
            for side in ["client", "server"] {
                let part = Path::new(side).join(PlanKind::Plain.as_str());
                options.cache.install(&stage.path().join(&part), &local.directory.join(&part))?;
            }
            progress.end();
        }
    }
    Ok(local)
}
