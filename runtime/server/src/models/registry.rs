//! The models a server answers for, by digest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::bodies::executor::{Tables, Weights};
use crate::ops::config::Role;
use sotto_protocol::error::{Error, Result};

/// How long a call waits for weights that are still being loaded.
const WEIGHTS_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a call waits for tables that are still being prepared, which may take minutes: whoever called hears so, and
/// calls again.
const TABLES_TIMEOUT: Duration = Duration::from_secs(15);

/// Shape of a round, as far as the server checks and meters it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundShape {
    /// Columns of the input: words of a body.
    pub d_in: usize,
    /// Rows of all matrices: words of a reply.
    pub rows: usize,
    /// Weights of all matrices: multiply-adds per token.
    pub weights: usize,
}

/// What the catalogue says about a model; read from the manifest without loading weights or tables.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Name of the split.
    pub name: String,
    /// SHA-256 of the server manifest.
    pub digest: [u8; 32],
    /// "plain" or "fused".
    pub plan: String,
    /// Token positions per batch.
    pub tau: usize,
    /// Rows per mask block.
    pub phi: usize,
    /// Identity of the parameter set.
    pub params_id: String,
    /// Model family.
    pub architecture: String,
    /// The rounds, in order.
    pub rounds: Vec<RoundShape>,
    /// Mask blocks of a batch.
    pub blocks: usize,
    /// Directory of the client part.
    pub client_dir: PathBuf,
    /// Bytes of the client part.
    pub client_bytes: u64,
}

impl ModelInfo {
    /// Bytes of the int8 weights.
    pub fn weight_bytes(&self) -> u64 {
        self.rounds.iter().map(|round| round.weights as u64).sum()
    }
}

/// A model and, once loaded, what computes it.
pub struct Model {
    /// What is known from the manifest.
    pub info: ModelInfo,
    weights: watch::Sender<Option<Arc<Weights>>>,
    tables: watch::Sender<Option<Arc<Tables>>>,
}

impl Model {
    pub(crate) fn new(info: ModelInfo) -> Arc<Self> {
        Arc::new(Self { info, weights: watch::Sender::default(), tables: watch::Sender::default() })
    }

    pub(crate) fn set_weights(&self, weights: Arc<Weights>) {
        self.weights.send_replace(Some(weights));
    }

    pub(crate) fn set_tables(&self, tables: Arc<Tables>) {
        self.tables.send_replace(Some(tables));
    }

    /// The weights; waits while they are being loaded.
    ///
    /// # Errors
    /// [`Error::NotReady`] if that takes too long.
    pub(crate) async fn weights(&self) -> Result<Arc<Weights>> {
        wait(&self.weights, WEIGHTS_TIMEOUT).await
    }

    /// The tables; waits while they are being prepared.
    ///
    /// # Errors
    /// [`Error::NotReady`] if that takes too long.
    pub(crate) async fn tables(&self) -> Result<Arc<Tables>> {
        wait(&self.tables, TABLES_TIMEOUT).await
    }

    pub(crate) fn weights_now(&self) -> Option<Arc<Weights>> {
        self.weights.borrow().clone()
    }

    pub(crate) fn tables_now(&self) -> Option<Arc<Tables>> {
        self.tables.borrow().clone()
    }

    /// Bytes of the tables in memory; 0 while they are not loaded.
    pub fn table_bytes(&self) -> u64 {
        self.tables.borrow().as_ref().map_or(0, |tables| tables.bytes())
    }

    pub(crate) fn has_weights(&self) -> bool {
        self.weights.borrow().is_some()
    }

    pub(crate) fn has_tables(&self) -> bool {
        self.tables.borrow().is_some()
    }
}

async fn wait<T>(slot: &watch::Sender<Option<Arc<T>>>, longest: Duration) -> Result<Arc<T>> {
    let mut receiver = slot.subscribe();
    let ready = tokio::time::timeout(longest, receiver.wait_for(Option::is_some)).await;
    match ready {
        Ok(Ok(value)) => value.clone().ok_or(Error::NotReady),
        _ => Err(Error::NotReady),
    }
}

/// All models of a process.
pub struct Registry {
    models: Vec<Arc<Model>>,
    roles: Vec<Role>,
}

impl Registry {
    /// A registry of `models` for a process with `roles`.
    ///
    /// # Errors
    /// [`Error::Usage`] if two have the same digest.
    pub fn new(models: Vec<Arc<Model>>, roles: &[Role]) -> Result<Self> {
        for (index, model) in models.iter().enumerate() {
            if models[..index].iter().any(|other| other.info.digest == model.info.digest) {
                let digest = hex::encode(model.info.digest);
                return Err(Error::Usage(format!("model {digest} is given twice")));
            }
        }
        Ok(Self { models, roles: roles.to_vec() })
    }

    /// The models, in the order given.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// Whether everything that this process's roles need of `model` is loaded.
    pub fn is_loaded(&self, model: &Model) -> bool {
        (!self.roles.contains(&Role::Body) || model.has_weights())
            && (!self.roles.contains(&Role::Mask) || model.has_tables())
    }

    /// Whether every model is loaded.
    pub fn is_ready(&self) -> bool {
        self.models.iter().all(|model| self.is_loaded(model))
    }

    /// The model with this digest.
    ///
    /// # Errors
    /// [`Error::UnknownModel`].
    pub fn find(&self, digest: &[u8; 32]) -> Result<&Arc<Model>> {
        self.models
            .iter()
            .find(|model| model.info.digest == *digest)
            .ok_or_else(|| Error::UnknownModel { digest: hex::encode(digest) })
    }
}
