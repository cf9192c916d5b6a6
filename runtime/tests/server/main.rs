//! The server's three services, called directly: who may call them, and what they answer.

mod access;
mod masks;
#[path = "../server_support/mod.rs"]
mod server_support;
