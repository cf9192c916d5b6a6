//! The server: catalogue, mask jobs and bodies.
//!
//! It sees evaluation keys' public halves, encrypted bodies and counts; no prompt, secret key or activation. It has no
//! path to the client's crate.
//!
//! Threads: `workers` run connections, each on a runtime of its own, so that a round trip stays on one core;
//! `mask driver` with a pool of lowest priority computes mask jobs; a second pool multiplies large bodies; one thread
//! accepts connections, one loads models, one ends leases. Nothing here knows a prompt, a secret key or an activation:
//! the server sees evaluation keys, encrypted bodies and counts.
//!
//! # Example
//! A credential with a budget: the store keeps its hash and charges it before work is handed out.
//! ```
//! use sotto_server::auth::credentials::{Grant, Store};
//!
//! # fn main() -> sotto_protocol::Result<()> {
//! let store = Store::in_memory()?;
//! let (id, credential) = store.add("a guest", 64, 64)?;
//! assert_eq!(store.authenticate(&credential)?.0, id);
//! let wanted = Grant { body_tokens: 100, mask_slots: 64 };
//! assert_eq!(store.charge(id, wanted, 64)?, Grant { body_tokens: 64, mask_slots: 64 });
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod auth;
mod bodies;
mod catalogue;
mod lifecycle;
mod masks;
pub mod models;
pub mod ops;
pub mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

pub use crate::ops::config::{Form, Role, ServerConfig};

use crate::auth::accounts::Accounts;
use crate::auth::admission::{Bounded, PerKey};
use crate::auth::credentials::{Store, UNLIMITED};
use crate::auth::leases::SigningKey;
use crate::bodies::Bodies;
use crate::catalogue::Catalogue;
use crate::lifecycle::Lifecycle;
use crate::masks::jobs::Masks;
use crate::masks::kept::{KeptBatches, KeptBudget};
use crate::masks::priority::PriorityGate;
use crate::models::loading::FoundSplit;
use crate::models::registry::{Model, Registry};
use crate::ops::metrics::Metrics;
use crate::transport::strangers::Strangers;
use crate::transport::tls::ServerIdentity;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;
use sotto_storage::available_bytes;

/// How often expired, idle and revoked leases are ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How often batch ids that are long out of use are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// Body tokens and mask slots of the credential made on the first start with a state directory: a long conversation
/// of some 700 pages. Any budget that is useful for talking is enough to extract the weights (see SECURITY.md), so
/// this bounds cost, not disclosure.
pub const FIRST_CREDENTIAL_BUDGET: u64 = 1_000_000;

/// The services of this process. Each owns its state; a service that needs another's holds it explicitly.
pub(crate) struct Services {
    pub(crate) config: ServerConfig,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    /// Open TCP connections.
    pub(crate) connections: Arc<Bounded>,
    pub(crate) connections_of: PerKey<IpAddr>,
    /// Connections that have shown no credential.
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) models: Arc<Registry>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) masks: Arc<Masks>,
    pub(crate) bodies: Arc<Bodies>,
}

impl Services {
    fn new(config: ServerConfig, models: Registry, store: Store, signing: SigningKey) -> Result<Self> {
        let lifecycle = Arc::new(Lifecycle::new());
        let metrics = Arc::new(Metrics::new());
        let models = Arc::new(models);
        let accounts = Arc::new(Accounts::new(store, &signing, &config));
        let priority = Arc::new(PriorityGate::new());
        let common = Common {
            lifecycle: Arc::clone(&lifecycle),
            metrics: Arc::clone(&metrics),
            accounts: Arc::clone(&accounts),
            models: Arc::clone(&models),
        };
        let budget = KeptBudget::new(config.batch_memory, available_bytes());
        let kept = Arc::new(KeptBatches::new(budget, Arc::clone(&metrics)));
        Ok(Self {
            catalogue: Arc::new(Catalogue::new(common.clone(), &config)),
            masks: Masks::new(common.clone(), Arc::clone(&priority), Arc::clone(&kept), signing, &config)?,
            bodies: Arc::new(Bodies::new(common, priority, kept, &config)?),
            connections: Bounded::new("the list of connections", limits::MAX_CONNECTIONS),
            connections_of: PerKey::new(
                "this address's list of connections",
                limits::MAX_CONNECTIONS_PER_ADDRESS,
            ),
            strangers: Strangers::new(limits::MAX_STRANGERS, limits::MAX_STRANGERS_PER_ADDRESS),
            config,
            lifecycle,
            metrics,
            accounts,
            models,
        })
    }

    /// Whether work is under way that a draining server waits for.
    pub(crate) fn is_busy(&self) -> bool {
        self.bodies.is_busy()
            || self.catalogue.is_busy()
            || self.masks.jobs() > 0
            || self.masks.opens_sessions()
    }
}

/// What every service needs: who pays, which models there are, whether the server drains, and where to count.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) models: Arc<Registry>,
}

/// A running server.
pub struct Server {
    services: Arc<Services>,
    addresses: Vec<SocketAddr>,
    connect_string: ConnectString,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Reads the splits' manifests, binds the addresses and starts answering; weights and tables are loaded (and
    /// prepared, if missing) meanwhile, and calls that need them wait.
    ///
    /// # Errors
    /// [`Error::NotASplit`], [`Error::PortInUse`], [`Error::Usage`], or what the state directory's files fail with.
    pub fn start(config: ServerConfig) -> Result<Self> {
        let splits = crate::models::loading::find_splits(&config.splits, &config.plans)?;
        let registry =
            Registry::new(splits.iter().map(|split| Arc::clone(&split.model)).collect(), &config.roles)?;
        let listeners = crate::transport::listen::bind(&config.listen)?;
        let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let persistent = PersistentState::open(&config)?;
        let connect_string = connect_string(
            &config,
            &addresses,
            &registry,
            &persistent.identity,
            persistent.credential.clone(),
        );
        let tls = persistent.identity.server_config()?;
        let services = Arc::new(Services::new(config, registry, persistent.store, persistent.signing)?);
        let mut threads = crate::transport::listen::spawn_all(&services, listeners, tls)?;
        threads.extend(crate::ops::health::spawn_http(&services)?);
        threads.push(spawn("sotto-sweep", {
            let services = Arc::clone(&services);
            move || sweep(&services)
        })?);
        // Not joined: it may be in the middle of a long preparation when the server stops.
        drop(spawn("sotto-load", {
            let services = Arc::clone(&services);
            move || load(&services, splits)
        })?);
        Ok(Self { services, addresses, connect_string, threads })
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
        self.services.models.is_ready()
    }

    /// Whether the server drains, asked to or because loading failed.
    pub fn is_draining(&self) -> bool {
        self.services.lifecycle.is_draining()
    }

    /// Follows whether the server drains.
    pub fn drain_signal(&self) -> watch::Receiver<bool> {
        self.services.lifecycle.drain_signal()
    }

    /// Mask jobs waiting or running.
    pub fn mask_jobs(&self) -> usize {
        self.services.masks.jobs()
    }

    /// The models.
    pub fn models(&self) -> &[Arc<Model>] {
        self.services.models.models()
    }

    /// Refuses new work and lets running work finish.
    pub fn drain(&self) {
        self.services.lifecycle.drain();
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
        self.services.masks.stop();
        self.services.accounts.sweep(true);
        self.services.lifecycle.join()
    }
}

/// State kept across restarts, if a state directory is set.
struct PersistentState {
    store: Store,
    identity: ServerIdentity,
    signing: SigningKey,
    credential: Option<String>,
}

impl PersistentState {
    fn open(config: &ServerConfig) -> Result<Self> {
        if let Some(dir) = &config.state {
            std::fs::create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        }
        let store = match &config.state {
            Some(dir) => Store::open(&dir.join(crate::ops::state::CREDENTIALS_FILE))?,
            None => Store::in_memory()?,
        };
        let (identity, signing) = match (&config.keys, &config.state) {
            (Some(keys), _) => crate::ops::state::load_keys(keys)?,
            (None, Some(state)) => crate::ops::state::load_or_generate_keys(state)?,
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

/// Loads the models; a failure stops the server.
fn load(services: &Arc<Services>, splits: Vec<FoundSplit>) {
    let expanding = Arc::clone(services);
    let keep_on: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || {
        expanding.masks.yield_to_foreground();
        !expanding.lifecycle.is_draining()
    });
    let background = |thread| services.lifecycle.keep(thread);
    if let Err(error) = crate::models::loading::load_all(&services.config, splits, &background, &keep_on) {
        services.lifecycle.fail(error);
    }
}

/// Ends leases every [`SWEEP_INTERVAL`] and forgets batches every [`FORGET_INTERVAL`], until the server drains.
fn sweep(services: &Services) {
    let slice = Duration::from_millis(100);
    let every = |interval: Duration| interval.as_millis() / slice.as_millis();
    for turn in 1_u128.. {
        if services.lifecycle.is_draining() {
            return;
        }
        std::thread::sleep(slice);
        if turn % every(SWEEP_INTERVAL) == 0 {
            services.accounts.sweep(false);
        }
        if turn % every(FORGET_INTERVAL) == 0 {
            services.accounts.forget_old_batches();
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
