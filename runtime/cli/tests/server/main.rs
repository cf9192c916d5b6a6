//! The server's three services, called directly: who may call them, and what they answer.

mod access;
mod lean;
mod masks;
mod model;
#[path = "../server_support/mod.rs"]
mod server_support;
