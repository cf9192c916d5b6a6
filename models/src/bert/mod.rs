//! BERT: encoders with learned positions and post-layer norms, as sentence encoders (MiniLM) and as token
//! classifiers (Rampart).

pub mod config;
mod layer;
mod model;
mod plan;

pub use config::{Config, Pooling};
pub use model::Bert;
