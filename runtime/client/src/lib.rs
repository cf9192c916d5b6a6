//! The client: connection, catalogue, slot pool, mask prefetch, the online link and the remote linear layers.
//!
//! [`connect`] is the usual way in: it reaches a server, chooses a model, obtains its client part and returns a
//! [`RemoteBackend`] to run the model with. Batch secrets and pads live here and never leave; nothing logs prompts,
//! activations or keys. This crate has no path to the server's.
//!
//! | module | what |
//! |---|---|
//! | [`slots`] | the pool that hands out each slot once, by value |
//! | [`masks`] | fetching masks before they are needed |
//! | [`accounting`] | bytes, round trips and milliseconds by phase |
//! | [`scales`] | per-token and per-row scales around a remote product |
//! | [`tls`] | TLS 1.3 with a pinned certificate |
//!
//! # Example
//! A round trip is counted where its bytes are sent; the totals can be read at any time.
//! ```
//! use sotto_client::accounting::Accounting;
//!
//! let accounting = Accounting::default();
//! assert_eq!(accounting.totals().round_trips, 0);
//! ```
#![warn(missing_docs)]

pub mod accounting;
pub(crate) mod bodies;
mod catalogue;
mod connection;
pub mod masks;
mod open;
pub mod published;
mod remote;
pub mod scales;
mod session_cache;
pub mod slots;
mod status;
pub(crate) mod target;
pub mod terminal;
pub mod tls;
mod trust;
mod weight_check;
mod wire_form;

pub use open::{ChangedModel, Connected, Probe, RemoteOptions, RoundsPreference, connect, instance, probe};

pub use open::connect_alive;
pub use remote::{LastBody, RemoteBackend};
pub use weight_check::{CheckTally, WeightCheck};
pub use wire_form::WirePreference;
