//! The proxy over real sockets.

mod browser;
mod forwarding;
mod keys;
#[path = "../support/mod.rs"]
mod support;
mod web_page;
mod with_model;
