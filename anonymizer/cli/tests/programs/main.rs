//! Programs and libraries of others, used with this one. What cannot be installed is skipped, with the reason.

mod clients;
#[path = "../documents_support/mod.rs"]
mod documents_support;
mod model_context;
mod office;
mod python;
#[path = "../support/mod.rs"]
mod support;
