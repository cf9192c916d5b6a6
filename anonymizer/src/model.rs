//! The token classifier behind a scan: in clear, in int8, or with its linear layers encrypted on a server.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use models::linear::LinearBackend;
use models::linear::dense::DenseBackend;
use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::{ClientPart, ServerPart};
use runtime::backend::{Backend, BackendKind, Int8Backend};
use runtime::client::accounting::{Accounting, Totals};
use runtime::client::{RemoteOptions, RoundsPreference, connect};
use runtime::embedded::{Embedded, EmbeddedOptions, LocalModel, local_model};
use runtime::fetch::{Cache, FetchProgress, ModelRef};

use crate::detect::{DetectOptions, Detection, Detector, Span};
use crate::error::Result;
use crate::scan::TextDetector;

/// The model's name in the cache.
pub const MODEL: &str = "rampart";
/// Tokens per batch of masks: a pass of the detector.
pub const TAU: usize = 256;

/// Where and how the linear layers are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// Here, in clear, in f32
    Dense,
    /// Here, in clear, with the server's int8 weights
    Int8,
    /// On a server that sees neither text nor labels
    #[default]
    Encrypted,
}

/// Which model to open, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// How the linear layers are computed.
    pub backend: BackendChoice,
    /// Connect string of the server; without one, the encrypted backend starts its own on this machine.
    pub server: Option<String>,
    /// Program whose `serve` subcommand is that server; the running one if absent.
    pub program: Option<PathBuf>,
    /// Tokens per batch of masks of a server of one's own.
    pub tau: usize,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { backend: BackendChoice::default(), server: None, program: None, tau: TAU }
    }
}

/// The token classifier, ready to scan.
pub struct ModelDetector {
    detector: Detector,
    backend: Backend,
    accounting: Arc<Accounting>,
    embedded: Option<Embedded>,
}

impl ModelDetector {
    /// Opens the model: fetches and splits it if this machine has none, starts or reaches the server.
    ///
    /// Call it from the thread that will use it: a server of one's own ends with that thread.
    ///
    /// # Errors
    /// What fetching, splitting or connecting can fail with.
    pub fn open(options: &ModelOptions, detect: DetectOptions, progress: &dyn FetchProgress) -> Result<Self> {
        let cache = Cache::from_env()?;
        match (&options.server, options.backend) {
            (Some(server), BackendChoice::Encrypted) => {
                let remote = RemoteOptions {
                    model: Some(MODEL.to_owned()),
                    rounds: RoundsPreference::Only(PlanKind::Plain),
                    ..RemoteOptions::new(cache)
                };
                let connected = connect(&server.parse()?, remote, progress)?;
                Self::remote(connected, detect, None)
            }
            (_, BackendChoice::Encrypted) => {
                let local = local(options.tau, &cache, progress)?;
                let embedded =
                    EmbeddedOptions { program: options.program.clone(), ..EmbeddedOptions::new(cache) };
                let (embedded, connected) = Embedded::start(&local, embedded, progress)?;
                Self::remote(connected, detect, Some(embedded))
            }
            (_, choice) => Self::in_clear(choice, &local(options.tau, &cache, progress)?, detect),
        }
    }

    fn remote(
        connected: runtime::client::Connected,
        detect: DetectOptions,
        embedded: Option<Embedded>,
    ) -> Result<Self> {
        let detector = Detector::new(&connected.part, detect)?;
        let backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
        Ok(Self { detector, backend, accounting: connected.accounting, embedded })
    }

    fn in_clear(choice: BackendChoice, local: &LocalModel, detect: DetectOptions) -> Result<Self> {
        let part = ClientPart::load(local.client_directory()).map_err(runtime::Error::from)?.part;
        let kind = match choice {
            BackendChoice::Dense => {
                let source = ModelSource::open(&local.source).map_err(runtime::Error::from)?;
                let family = source.config.split_family();
                let plan = family.plan(local.plan).map_err(runtime::Error::from)?;
                let dense = DenseBackend::from_source(family, &*source.weights, plan)
                    .map_err(runtime::Error::from)?;
                BackendKind::Dense(Box::new(dense))
            }
            _ => {
                let server = ServerPart::open(local.server_directory()).map_err(runtime::Error::from)?;
                BackendKind::Int8(Box::new(Int8Backend::new(&server, &part.scales)?))
            }
        };
        let detector = Detector::new(&part, detect)?;
        Ok(Self { detector, backend: Backend::new(kind), accounting: Arc::default(), embedded: None })
    }

    /// Bytes, round trips and milliseconds of the encrypted linear layers so far; zero in clear.
    pub fn totals(&self) -> Totals {
        self.accounting.totals()
    }

    /// The detector, and the backend to run it on.
    pub fn parts_mut(&mut self) -> (&Detector, &mut dyn LinearBackend) {
        (&self.detector, &mut self.backend)
    }

    /// Starts the embedded server again if it has ended.
    fn revive(&mut self) -> Result<bool> {
        let Some(embedded) = &mut self.embedded else { return Ok(false) };
        let Some(connected) = embedded.revive()? else { return Ok(false) };
        self.backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
        self.accounting = connected.accounting;
        Ok(true)
    }
}

/// The model and its split on this machine.
///
/// # Errors
/// What fetching or splitting can fail with.
pub fn local(tau: usize, cache: &Cache, progress: &dyn FetchProgress) -> Result<LocalModel> {
    let binding = runtime::split_store::binding(tau)?;
    Ok(local_model(&ModelRef::parse(MODEL)?, PlanKind::Plain, &binding, cache, progress)?)
}

impl TextDetector for ModelDetector {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> Result<Detection> {
        match self.detector.detect(texts, recognized, &mut self.backend) {
            Ok(detection) => Ok(detection),
            Err(error) => {
                if !self.revive()? {
                    return Err(error.into());
                }
                Ok(self.detector.detect(texts, recognized, &mut self.backend)?)
            }
        }
    }
}
