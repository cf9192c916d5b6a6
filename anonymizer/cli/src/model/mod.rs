//! The token classifier that a scan uses: in clear, in int8, or with its linear layers encrypted on a server.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use sotto_client::accounting::{Accounting, Totals};
use sotto_client::{Connected, RemoteOptions, RoundsPreference, WeightCheck, connect};
use sotto_engine::backend::{Backend, BackendKind, Int8Backend};
use sotto_engine::embedded::{Embedded, EmbeddedOptions, LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::source::ModelSource;
use sotto_models::split::ProtocolBinding;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ServerPart};
use sotto_storage::{Cache, FetchProgress};

use crate::error::Result;
use crate::scan::{DetectNow, Health, TextDetector};
use sotto_pii::detect::{DetectOptions, Detection, Detector, Span};

/// The detector that is used when none is named.
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
    /// The token classifier: the name of a built-in model, a directory, or a hub id.
    pub detector: String,
    /// How the linear layers are computed.
    pub backend: BackendChoice,
    /// Connect string of the server; without one, the encrypted backend starts its own on this machine.
    pub server: Option<String>,
    /// Program whose `serve` subcommand is that server; the running one if absent.
    pub program: Option<PathBuf>,
    /// Tokens per batch of masks of a server of one's own.
    pub tau: usize,
    /// Whether a server is believed which model it runs, and that it runs it.
    pub trust_server: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            detector: MODEL.to_owned(),
            backend: BackendChoice::default(),
            server: None,
            program: None,
            tau: TAU,
            trust_server: false,
        }
    }
}

/// The token classifier, ready to scan.
pub struct ModelDetector {
    detector: Detector,
    backend: Backend,
    accounting: Arc<Accounting>,
    embedded: Option<Embedded>,
    /// The server of another machine, to ask whether it is still there.
    server: Option<Arc<str>>,
}

impl ModelDetector {
    /// Opens the model: fetches and splits it if this machine has none, starts or reaches the server.
    ///
    /// Call it from the thread that will use it: a server of one's own ends with that thread.
    ///
    /// # Errors
    /// What fetching, splitting or connecting can fail with.
    pub fn open(options: &ModelOptions, detect: DetectOptions, progress: &dyn FetchProgress) -> Result<Self> {
        let cache = Cache::from_env().map_err(sotto_protocol::Error::from)?;
        match (&options.server, options.backend) {
            (Some(server), BackendChoice::Encrypted) => {
                // A directory may have any name on the server; its digest is insisted on below.
                let builtin = matches!(ModelRef::parse(&options.detector)?, ModelRef::Builtin(_));
                let remote = RemoteOptions {
                    model: builtin.then(|| options.detector.clone()),
                    rounds: RoundsPreference::Only(PlanKind::Plain),
                    check_weights: !options.trust_server,
                    ..RemoteOptions::new(cache.clone())
                };
                let mut connected = connect(&server.parse()?, remote, progress)?;
                if !options.trust_server {
                    insist(&mut connected, &options.detector, &cache, progress)?;
                }
                let server = Some(server.as_str().into());
                Ok(Self { server, ..Self::remote(connected, detect, None)? })
            }
            (_, BackendChoice::Encrypted) => {
                let local = local(&options.detector, options.tau, &cache, progress)?;
                let embedded =
                    EmbeddedOptions { program: options.program.clone(), ..EmbeddedOptions::new(cache) };
                let (embedded, connected) = Embedded::start(&local, embedded, progress)?;
                Self::remote(connected, detect, Some(embedded))
            }
            (_, choice) => {
                Self::in_clear(choice, &local(&options.detector, options.tau, &cache, progress)?, detect)
            }
        }
    }

    fn remote(connected: Connected, detect: DetectOptions, embedded: Option<Embedded>) -> Result<Self> {
        let detector = Detector::new(&connected.part, detect).map_err(sotto_pii::Error::from)?;
        let backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
        Ok(Self { detector, backend, accounting: connected.accounting, embedded, server: None })
    }

    fn in_clear(choice: BackendChoice, local: &LocalModel, detect: DetectOptions) -> Result<Self> {
        let part = ClientPart::load(local.client_directory()).map_err(sotto_protocol::Error::from)?.part;
        let kind = match choice {
            BackendChoice::Dense => {
                let source = ModelSource::open(&local.source).map_err(sotto_protocol::Error::from)?;
                let family = &source.config;
                let plan = family.plan(local.plan).map_err(sotto_protocol::Error::from)?;
                let dense = DenseBackend::from_source(family, &*source.weights, plan)
                    .map_err(sotto_protocol::Error::from)?;
                BackendKind::Dense(Box::new(dense))
            }
            _ => {
                let server =
                    ServerPart::open(local.server_directory()).map_err(sotto_protocol::Error::from)?;
                BackendKind::Int8(Box::new(Int8Backend::new(&server, &part.scales)?))
            }
        };
        let detector = Detector::new(&part, detect).map_err(sotto_pii::Error::from)?;
        Ok(Self {
            detector,
            backend: Backend::new(kind),
            accounting: Arc::default(),
            embedded: None,
            server: None,
        })
    }

    /// Bytes, round trips and milliseconds of the encrypted linear layers so far; zero in clear.
    pub fn totals(&self) -> Totals {
        self.accounting.totals()
    }

    /// The detector, and the backend to run it on.
    pub fn parts_mut(&mut self) -> (&Detector, &mut dyn LinearBackend) {
        (&self.detector, &mut self.backend)
    }

    /// Whether every value that the server computed fitted the weights, as far as they are checked.
    fn verdict(&self) -> Result<()> {
        match self.backend.kind() {
            BackendKind::Remote(remote) => {
                Ok(remote.check_tally().map_or(Ok(()), |tally| tally.verdict())?)
            }
            _ => Ok(()),
        }
    }

    /// Starts the embedded server again if it has ended.
    fn restart(&mut self) -> Result<bool> {
        let Some(embedded) = &mut self.embedded else { return Ok(false) };
        let Some(connected) = embedded.restart()? else { return Ok(false) };
        self.backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
        self.accounting = connected.accounting;
        Ok(true)
    }
}

/// Insists that a server runs the detector's model: the digest that it names must be that of a split made here, and every
/// reply is checked against its weights. A server with other weights could make the model see nothing anywhere; canary
/// sentences would not notice, since it can keep exactly their words intact.
fn insist(
    connected: &mut Connected,
    detector: &str,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<()> {
    let local = local_bound(detector, &connected.protocol, cache, progress)?;
    progress.begin("drawing test vectors", None, false);
    let check = WeightCheck::of_split(&local.server_directory());
    progress.end();
    connected.backend.check_weights(Arc::new(check?))?;
    Ok(())
}

/// The model and its split on this machine.
///
/// # Errors
/// What fetching or splitting can fail with.
pub fn local(detector: &str, tau: usize, cache: &Cache, progress: &dyn FetchProgress) -> Result<LocalModel> {
    local_bound(detector, &sotto_protocol::binding::binding(tau)?, cache, progress)
}

fn local_bound(
    detector: &str,
    binding: &ProtocolBinding,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<LocalModel> {
    Ok(local_model(&ModelRef::parse(detector)?, PlanKind::Plain, binding, cache, progress)?)
}

impl TextDetector for ModelDetector {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> sotto_pii::Result<Detection> {
        self.detect_in_turns(texts, recognized, &mut |_| {})
    }

    fn detect_in_turns(
        &mut self,
        texts: &[&str],
        recognized: &[Vec<Span>],
        between: &mut dyn FnMut(&mut DetectNow<'_>),
    ) -> sotto_pii::Result<Detection> {
        let mut other = |detector: &Detector, backend: &mut dyn LinearBackend| {
            between(&mut |texts, recognized| Ok(detector.detect(texts, recognized, backend)?));
        };
        let detection = self.detector.detect_in_turns(texts, recognized, &mut self.backend, &mut other);
        let detection = match detection {
            Ok(detection) => detection,
            Err(error) => {
                if !self.restart()? {
                    return Err(error.into());
                }
                self.detector.detect(texts, recognized, &mut self.backend)?
            }
        };
        // Not before the pass has ended: when a server is told what it got wrong must not depend on the text.
        self.verdict()?;
        Ok(detection)
    }

    fn unknown_letters(&self, text: &str) -> sotto_pii::Result<usize> {
        Ok(self.detector.unknown_letters(text)?)
    }

    fn health(&self) -> Option<Health> {
        if let Some(embedded) = &self.embedded {
            let pulse = embedded.pulse();
            return Some(Arc::new(move || pulse.answers()));
        }
        let server = self.server.clone()?;
        Some(Arc::new(move || sotto_client::probe(&server).is_ok()))
    }
}
