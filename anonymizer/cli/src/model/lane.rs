//! One token classifier with the backend of its linear layers.

use std::sync::Arc;

use sotto_client::accounting::Accounting;
use sotto_client::{Connected, RemoteOptions, RoundsPreference, WeightCheck, connect};
use sotto_engine::backend::{Backend, BackendKind, Int8Backend};
use sotto_engine::embedded::{Embedded, EmbeddedOptions, LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ProtocolBinding, ServerPart};
use sotto_pii::detect::route::Parts;
use sotto_pii::detect::{DetectOptions, Detector, Reading};
use sotto_protocol::connect_string::ConnectString;
use sotto_storage::{Cache, FetchProgress};

use super::{BackendChoice, ModelOptions};
use crate::error::Result;
use crate::scan::Health;

/// Where a server's model comes from.
pub(super) enum Served {
    /// The connect string may name its digest, and its name is that of a built-in model or not known.
    Named(Option<String>),
    /// It is another one than the connect string names, with this name.
    Beside(String),
}

/// A model, ready to scan.
pub(super) struct Lane {
    pub(super) detector: Detector,
    pub(super) backend: Backend,
    pub(super) accounting: Arc<Accounting>,
    embedded: Option<Embedded>,
    /// The server of another machine, to ask whether it is still there.
    server: Option<Arc<str>>,
}

impl Lane {
    /// Opens `detector`: fetches and splits it if this machine has none, starts or reaches the server.
    ///
    /// # Errors
    /// What fetching, splitting or connecting can fail with.
    pub(super) fn open(
        detector: &str,
        served: Served,
        options: &ModelOptions,
        detect: DetectOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        let cache = Cache::from_env().map_err(sotto_protocol::Error::from)?;
        match (&options.server, options.backend) {
            (Some(server), BackendChoice::Encrypted) => {
                let mut connect_string: ConnectString = server.parse()?;
                let mut remote = RemoteOptions {
                    rounds: RoundsPreference::Only(PlanKind::Plain),
                    check_weights: !options.trust_server,
                    ..RemoteOptions::new(cache.clone())
                };
                match served {
                    Served::Named(name) => remote.model = name,
                    Served::Beside(name) => {
                        connect_string.model = None;
                        remote.model = Some(name);
                        // A model that the server has had for a while only may be new here; its digest is insisted on below.
                        let trust_server = options.trust_server;
                        remote.accept_change = Box::new(move |_| !trust_server);
                    }
                }
                let mut connected = connect(&connect_string, remote, progress)?;
                if !options.trust_server {
                    insist(&mut connected, detector, &cache, progress)?;
                }
                let server = Some(connect_string.to_string().as_str().into());
                Ok(Self { server, ..Self::remote(connected, detect, None)? })
            }
            (_, BackendChoice::Encrypted) => {
                let local = local(detector, options.tau, &cache, progress)?;
                let embedded =
                    EmbeddedOptions { program: options.program.clone(), ..EmbeddedOptions::new(cache) };
                let (embedded, connected) = Embedded::start(&local, embedded, progress)?;
                Self::remote(connected, detect, Some(embedded))
            }
            (_, choice) => Self::in_clear(choice, &local(detector, options.tau, &cache, progress)?, detect),
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

    /// Reads parts of texts; starts a server of one's own again if it has ended meanwhile, and reads them once more.
    ///
    /// # Errors
    /// If nothing is known about the texts.
    pub(super) fn read(
        &mut self,
        texts: &[&str],
        parts: &Parts,
        between: &mut dyn FnMut(&Detector, &mut dyn LinearBackend),
    ) -> sotto_pii::Result<Reading> {
        match self.detector.read(texts, Some(parts), &mut self.backend, between) {
            Ok(reading) => Ok(reading),
            Err(error) if !self.restart()? => Err(error.into()),
            Err(_) => Ok(self.detector.read(texts, Some(parts), &mut self.backend, &mut |_, _| {})?),
        }
    }

    /// The detector and its backend.
    pub(super) fn lent(&mut self) -> (&Detector, &mut dyn LinearBackend) {
        (&self.detector, &mut self.backend)
    }

    /// Asks whether the server is there; `None` if nothing is asked of one.
    pub(super) fn health(&self) -> Option<Health> {
        if let Some(embedded) = &self.embedded {
            let pulse = embedded.pulse();
            return Some(Arc::new(move || pulse.answers()));
        }
        let server = self.server.clone()?;
        Some(Arc::new(move || sotto_client::probe(&server).is_ok()))
    }

    /// Whether every value that the server computed fitted the weights, as far as they are checked.
    pub(super) fn verdict(&self) -> Result<()> {
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
        let Some(connected) = embedded.restart::<sotto_models::split::ClientPart>()? else {
            return Ok(false);
        };
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

/// A model and its split on this machine.
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
    let model = ModelRef::parse(&super::reference(detector, cache)?)?;
    Ok(local_model(&model, PlanKind::Plain, binding, cache, progress)?)
}
