//! The client side: connection, catalogue, slot pool, mask prefetch and the online link.
//!
//! [`connect`] is the paved path: it reaches a server, chooses a model, obtains its client part and
//! returns a [`RemoteBackend`] to run it with. Nothing in here logs prompts, activations or keys.

pub mod accounting;
pub(crate) mod bodies;
mod catalogue;
mod connection;
pub mod masks;
mod open;
pub mod slots;
mod status;
pub(crate) mod target;
mod trust;

pub use open::{ChangedModel, Connected, Probe, RemoteOptions, RoundsPreference, connect, instance, probe};

pub(crate) use open::connect_alive;

pub use crate::backend::RemoteBackend;
