//! The backends of the remote linear layers: encrypted on a server, and three references in clear.
//!
//! | backend | weights | arithmetic |
//! |---|---|---|
//! | `Remote` | on the server | encrypted, see `fhe_layers` |
//! | `Simulated` | the server's int8, here | exact, plus the encrypted path's noise |
//! | `Int8` | the server's int8, here | activations rounded to 16 bits, exact products |
//! | `Dense` | the model's own, here | f32 |

mod int8;
mod simulated;

use std::time::{Duration, Instant};

use candle_core::Tensor;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;

use sotto_client::{LastBody, RemoteBackend};
use sotto_protocol::error::Error;

pub use int8::Int8Backend;
pub use simulated::SimulatedBackend;

/// The error that caused one of `models`: this crate's own where a backend of this crate raised it.
pub fn backend_error(error: sotto_models::Error) -> Error {
    match error {
        sotto_models::Error::Backend(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => Error::Models(sotto_models::Error::Backend(other)),
        },
        other => Error::Models(other),
    }
}

/// One of the backends, with the time spent in it.
pub struct Backend {
    kind: BackendKind,
    busy: Duration,
}

/// Which arithmetic carries the linear layers.
#[non_exhaustive]
pub enum BackendKind {
    /// Encrypted, on the server.
    Remote(Box<RemoteBackend>),
    /// Exact products plus simulated noise.
    Simulated(Box<SimulatedBackend>),
    /// Int8 weights, 16-bit activations.
    Int8(Box<Int8Backend>),
    /// Float.
    Dense(Box<DenseBackend>),
}

impl Backend {
    /// Wraps a backend.
    pub fn new(kind: BackendKind) -> Self {
        Self { kind, busy: Duration::ZERO }
    }

    /// The backend itself.
    pub fn kind(&self) -> &BackendKind {
        &self.kind
    }

    /// How many of `remaining` tokens to run in the next pass, at least 1: a remote backend prefers
    /// what it has masks for over waiting.
    pub fn pass_tokens(&mut self, remaining: usize) -> usize {
        match &mut self.kind {
            BackendKind::Remote(remote) => remote.pass_tokens(remaining),
            _ => remaining,
        }
    }

    /// The last body as the server saw it; `None` for the backends that send nothing.
    pub fn last_body(&self) -> Option<&LastBody> {
        match &self.kind {
            BackendKind::Remote(remote) => remote.last_body(),
            _ => None,
        }
    }

    /// Time spent in the backend since [`reset_busy`](Self::reset_busy).
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Starts counting anew.
    pub fn reset_busy(&mut self) {
        self.busy = Duration::ZERO;
    }

    fn inner(&mut self) -> &mut dyn LinearBackend {
        match &mut self.kind {
            BackendKind::Remote(backend) => &mut **backend,
            BackendKind::Simulated(backend) => &mut **backend,
            BackendKind::Int8(backend) => &mut **backend,
            BackendKind::Dense(backend) => &mut **backend,
        }
    }

    fn timed<T>(&mut self, action: impl FnOnce(&mut dyn LinearBackend) -> T) -> T {
        let start = Instant::now();
        let result = action(self.inner());
        self.busy += start.elapsed();
        result
    }
}

impl LinearBackend for Backend {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        self.timed(|backend| backend.round(round, input))
    }

    fn more_to_come(&mut self) {
        self.inner().more_to_come();
    }

    fn begin_pass(&mut self, tokens: usize) -> sotto_models::Result<()> {
        self.timed(|backend| backend.begin_pass(tokens))
    }

    fn end_pass(&mut self) {
        self.timed(|backend| backend.end_pass());
    }
}
