//! The server: catalogue, mask jobs and bodies.
//!
//! Threads: `workers` run connections, each on a runtime of its own, so that a round trip stays on one core;
//! `mask driver` with a pool of lowest priority computes mask jobs; a second pool multiplies large bodies; one thread
//! accepts connections, one loads models, one ends leases. Nothing here knows a prompt, a secret key or an activation:
//! the server sees evaluation keys, encrypted bodies and counts.

mod admission;
mod bodies;
mod catalogue;
mod config;
pub mod credentials;
pub(crate) mod engine;
mod foreground;
mod health;
mod introduction;
pub mod leases;
mod listen;
mod loading;
mod mask_jobs;
mod mask_queue;
mod memory;
mod metrics;
mod refusal;
pub mod registry;
pub mod state;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use config::{Form, Role, ServerConfig};

use admission::{Bounded, PerCredential};
use credentials::{Grant, Store, UNLIMITED};
use foreground::Foreground;
use leases::{LeaseBook, SigningKey};
use mask_jobs::MaskDriver;
use metrics::Metrics;
use registry::{Model, Registry};

use crate::connect_string::ConnectString;
use crate::error::{Error, Result};
use crate::limits;
use crate::tls::ServerIdentity;

/// How often expired, idle and revoked leases are ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How often batch ids that are long out of use are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// Body tokens and mask slots of the credential made on the first start with a state directory: a long conversation
/// of some 700 pages. Any budget that is useful for talking is enough to extract the weights (see SECURITY.md), so
/// this bounds cost, not disclosure.
pub const FIRST_CREDENTIAL_BUDGET: u64 = 1_000_000;

/// What the services share.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) store: Store,
    pub(crate) leases: LeaseBook,
    pub(crate) signing: SigningKey,
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Bounded>,
    pub(crate) downloads: Arc<Bounded>,
    pub(crate) body_streams: Arc<Bounded>,
    pub(crate) body_streams_of: PerCredential,
    pub(crate) foreground: Foreground,
    draining: watch::Sender<bool>,
    /// Threads that save and expand tables; a stopping server waits for them.
    background: Mutex<Vec<JoinHandle<()>>>,
    failure: Mutex<Option<Error>>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Follows whether the server drains.
    pub(crate) fn drain_signal(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Whether everything that this process's roles need of `model` is loaded.
    pub(crate) fn model_ready(&self, model: &Model) -> bool {
        let roles = &self.config.roles;
        (!roles.contains(&Role::Body) || model.has_weights())
            && (!roles.contains(&Role::Mask) || model.has_tables())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.registry.models().iter().all(|model| self.model_ready(model))
    }

    /// What of an unused grant this process knows to be unused: it meters a role itself if nobody else does.
    pub(crate) fn returnable(&self, mut unused: Grant) -> Grant {
        if !self.config.roles.contains(&Role::Body) || !self.config.body_addresses.is_empty() {
            unused.body_tokens = 0;
        }
        if !self.config.roles.contains(&Role::Mask) || !self.config.mask_addresses.is_empty() {
            unused.mask_slots = 0;
        }
        unused
    }

    /// Whether work is under way that a draining server waits for.
    fn is_busy(&self) -> bool {
        self.body_streams.taken() + self.downloads.taken() > 0 || self.metrics.mask_jobs.get() > 0
    }

    /// Ends leases and gives back what they did not use.
    fn sweep_leases(&self, all: bool) {
        if !self.config.roles.contains(&Role::Catalogue) {
            self.leases.sweep(Instant::now(), |_| false);
            return;
        }
        let ended =
            self.leases.sweep(Instant::now(), |who| all || self.store.is_revoked(who).unwrap_or(false));
        for (credential, unused) in ended {
            if let Err(error) = self.store.give_back(credential, self.returnable(unused)) {
                tracing::error!(%error, "cannot give back what a lease did not use");
            }
        }
    }

    /// Stops the server because of `error`.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.draining.send_replace(true);
    }
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    connect_string: ConnectString,
    driver: Arc<MaskDriver>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Reads the splits' manifests, binds the addresses and starts answering; weights and tables are loaded (and
    /// prepared, if missing) meanwhile, and calls that need them wait.
    ///
    /// # Errors
    /// [`Error::NotASplit`], [`Error::PortInUse`], [`Error::Usage`], or what the state directory's files fail with.
    pub fn start(config: ServerConfig) -> Result<Self> {
        let splits = loading::find_splits(&config.splits, &config.plans)?;
        let registry = Registry::new(splits.iter().map(|split| Arc::clone(&split.model)).collect())?;
        let listeners = listen::bind(&config.listen)?;
        let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let keeping = Keeping::open(&config)?;
        let own_only = config.roles.contains(&Role::Catalogue);
        let connect_string =
            connect_string(&config, &addresses, &registry, &keeping.identity, keeping.credential.clone());
        let shared = Arc::new(Shared {
            leases: LeaseBook::new(&keeping.signing, own_only),
            store: keeping.store,
            signing: keeping.signing,
            registry,
            metrics: Arc::new(Metrics::new()),
            connections: Bounded::new("the list of connections", limits::MAX_CONNECTIONS),
            downloads: Bounded::new("the list of downloads", limits::MAX_DOWNLOADS),
            body_streams: Bounded::new("the list of body streams", limits::MAX_BODY_STREAMS),
            body_streams_of: PerCredential::new(
                "this credential's list of body streams",
                limits::MAX_BODY_STREAMS_PER_CREDENTIAL,
            ),
            foreground: Foreground::new(),
            draining: watch::Sender::new(false),
            background: Mutex::default(),
            failure: Mutex::default(),
            config,
        });
        let driver = MaskDriver::new();
        let tls = keeping.identity.server_config()?;
        let mut threads = listen::spawn_all(&shared, &driver, listeners, tls)?;
        threads.extend(health::spawn_http(&shared)?);
        threads.push(spawn("sotto-sweep", {
            let shared = Arc::clone(&shared);
            move || sweep(&shared)
        })?);
        // Not joined: it may be in the middle of a long preparation when the server stops.
        drop(spawn("sotto-load", {
            let shared = Arc::clone(&shared);
            move || {
                let background = |thread| {
                    shared.background.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                };
                let expanding = Arc::clone(&shared);
                let keep_on: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || {
                    expanding.foreground.give_way();
                    !expanding.is_draining()
                });
                if let Err(error) = loading::load_all(&shared.config, splits, &background, &keep_on) {
                    shared.fail(error);
                }
            }
        })?);
        Ok(Self { shared, addresses, connect_string, driver, threads })
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What a client needs; holds a credential if one was made now.
    pub fn connect_string(&self) -> &ConnectString {
        &self.connect_string
    }

    /// Whether all models are loaded.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Whether the server drains, asked to or because loading failed.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Follows whether the server drains.
    pub fn drain_signal(&self) -> watch::Receiver<bool> {
        self.shared.drain_signal()
    }

    /// Mask jobs waiting or running.
    pub fn mask_jobs(&self) -> usize {
        self.driver.jobs()
    }

    /// The models.
    pub fn models(&self) -> &[Arc<Model>] {
        self.shared.registry.models()
    }

    /// Refuses new work and lets running work finish.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Waits until the server has drained, at most [`limits::DRAIN_TIMEOUT`] after [`Server::drain`].
    ///
    /// # Errors
    /// What loading a model failed with.
    pub fn join(self) -> Result<()> {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a server thread panicked");
            }
        }
        self.driver.stop();
        self.shared.sweep_leases(true);
        let background =
            std::mem::take(&mut *self.shared.background.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in background {
            if thread.join().is_err() {
                tracing::error!("saving or expanding tables panicked");
            }
        }
        match self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What outlives the process, if there is a state directory.
struct Keeping {
    store: Store,
    identity: ServerIdentity,
    signing: SigningKey,
    credential: Option<String>,
}

impl Keeping {
    fn open(config: &ServerConfig) -> Result<Self> {
        if let Some(dir) = &config.state {
            std::fs::create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        }
        let store = match &config.state {
            Some(dir) => Store::open(&dir.join(state::CREDENTIALS_FILE))?,
            None => Store::in_memory()?,
        };
        let (identity, signing) = match (&config.keys, &config.state) {
            (Some(keys), _) => state::load_keys(keys)?,
            (None, Some(state)) => state::load_or_generate_keys(state)?,
            (None, None) => {
                (ServerIdentity::generate()?, zeroize::Zeroizing::new(rand::random::<[u8; 32]>()))
            }
        };
        let credential = match () {
            () if !config.roles.contains(&Role::Catalogue) => None,
            () if config.ephemeral_credential || config.state.is_none() => {
                Some(store.add_ephemeral("this run", UNLIMITED, UNLIMITED)?.1)
            }
            () if store.list()?.is_empty() => {
                Some(store.add("first start", FIRST_CREDENTIAL_BUDGET, FIRST_CREDENTIAL_BUDGET)?.1)
            }
            () => None,
        };
        Ok(Self { store, identity, signing: SigningKey::new(signing), credential })
    }
}

fn connect_string(
    config: &ServerConfig,
    addresses: &[SocketAddr],
    registry: &Registry,
    identity: &ServerIdentity,
    credential: Option<String>,
) -> ConnectString {
    let bound = addresses.first().map_or_else(String::new, ToString::to_string);
    ConnectString {
        address: config.public_address.clone().unwrap_or(bound),
        pin: identity.pin(),
        model: match registry.models() {
            [only] => Some(only.info.digest),
            _ => None,
        },
        credential,
        mask_addresses: config.mask_addresses.clone(),
        body_addresses: config.body_addresses.clone(),
    }
}

/// Ends leases every [`SWEEP_INTERVAL`] and forgets batches every [`FORGET_INTERVAL`], until the server drains.
fn sweep(shared: &Shared) {
    let slice = Duration::from_millis(100);
    let every = |interval: Duration| interval.as_millis() / slice.as_millis();
    for turn in 1_u128.. {
        if shared.is_draining() {
            return;
        }
        std::thread::sleep(slice);
        if turn % every(SWEEP_INTERVAL) == 0 {
            shared.sweep_leases(false);
        }
        if turn % every(FORGET_INTERVAL) == 0
            && let Err(error) = shared.store.forget_old_batches()
        {
            tracing::warn!(%error, "old batches are still remembered");
        }
    }
}

/// Starts a named thread.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| Error::Io { context: format!("start thread {name}"), source })
}
