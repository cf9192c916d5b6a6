//! `sotto api` as its clients see it, on the int8 reference, which needs no server.

#[path = "../client_support/mod.rs"]
mod client_support;
mod clients;
mod conversations;
mod endpoint;
mod errors;
mod forms;
mod other_protocols;
mod predict;
mod several;
mod together;
