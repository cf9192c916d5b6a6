//! A server of one's own: fetches a model, splits it once, and runs `serve` as a child process on
//! loopback, with TLS and a random credential like any other server.
//!
//! The child is the running executable itself (any program of this workspace whose `serve`
//! subcommand calls `sotto::serve`). It is killed and reaped when [`Embedded`] is dropped,
//! and ends by itself when this process disappears, because it watches a pipe that this process
//! holds.

mod child;
mod split;

pub use child::{Embedded, EmbeddedOptions, Pulse, Route};
pub(crate) use split::is_split;
pub use split::{LocalModel, local_model, local_model_in};
