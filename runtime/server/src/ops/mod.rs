//! Operation: configuration, files of the state directory, health and metrics.

pub(crate) mod config;
pub(crate) mod health;
pub(crate) mod metrics;
pub mod state;
