//! The detector for scripts that the first one does not know. It is opened when a text needs it.

use std::sync::{Arc, Mutex, PoisonError};

use sotto_pii::detect::DetectOptions;
use sotto_storage::{Cache, FetchProgress, NoProgress};

use super::lane::{Lane, Served};
use super::{ModelOptions, bundled};
use crate::error::{Error, Result};
use crate::scan::Health;

/// The second detector.
pub(super) enum Second {
    /// There is none: a detector was named.
    None,
    /// It may be needed.
    Possible(Box<Possible>),
}

/// A detector that is opened when it is needed.
pub(super) struct Possible {
    options: ModelOptions,
    detect: DetectOptions,
    progress: Box<dyn FetchProgress>,
    state: State,
    /// How to ask whether its server is there, once it is open.
    health: Arc<Mutex<Option<Health>>>,
}

enum State {
    Closed,
    Open(Box<Lane>),
    /// The server does not have it.
    Missing,
}

impl Second {
    pub(super) fn later(options: ModelOptions, detect: DetectOptions) -> Self {
        Self::Possible(Box::new(Possible {
            options,
            detect,
            progress: Box::new(NoProgress),
            state: State::Closed,
            health: Arc::default(),
        }))
    }

    pub(super) fn report(&mut self, progress: Box<dyn FetchProgress>) {
        if let Self::Possible(possible) = self {
            possible.progress = progress;
        }
    }

    /// The detector, opened if it was not; `None` if there is none, or the server does not have it. The log says so, once.
    ///
    /// # Errors
    /// What opening it fails with.
    pub(super) fn opened(&mut self) -> Result<Option<&mut Lane>> {
        let Self::Possible(possible) = self else { return Ok(None) };
        if matches!(possible.state, State::Closed) {
            possible.state = possible.open()?;
        }
        Ok(match &mut possible.state {
            State::Open(lane) => Some(lane),
            _ => None,
        })
    }

    /// Asks whether its server is there; it is as long as it is not open.
    pub(super) fn health(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let health = match self {
            Self::Possible(possible) => Arc::clone(&possible.health),
            Self::None => Arc::default(),
        };
        move || {
            let asked = health.lock().unwrap_or_else(PoisonError::into_inner).clone();
            asked.is_none_or(|asked| asked())
        }
    }
}

impl Possible {
    fn open(&self) -> Result<State> {
        let cache = Cache::from_env().map_err(sotto_protocol::Error::from)?;
        let directory = bundled::unpack(&cache)?;
        let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
        let served = Served::Beside(name.unwrap_or_default());
        let opened = Lane::open(
            &directory.to_string_lossy(),
            served,
            &self.options,
            self.detect.clone(),
            &*self.progress,
        );
        match opened {
            Ok(lane) => {
                *self.health.lock().unwrap_or_else(PoisonError::into_inner) = lane.health();
                Ok(State::Open(Box::new(lane)))
            }
            Err(Error::Runtime(sotto_protocol::Error::Usage(offers))) if self.options.server.is_some() => {
                tracing::warn!(
                    "the server does not have the detector for scripts other than Latin, so names in them are not \
                     found; let it serve a split of {} as well ({offers})",
                    directory.display()
                );
                Ok(State::Missing)
            }
            Err(error) => Err(error),
        }
    }
}
