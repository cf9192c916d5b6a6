//! The trust suite: what must hold when peers fail, lie or come in numbers, and what must be nowhere.
//!
//! Tests that take longer than a unit test may are ignored by default; `cargo xtask trust` runs them and adds up the rows
//! that they report. One program for all of them: each would compile a server and its clients of its own.
#![allow(clippy::duplicate_mod, reason = "each kind of support shuts programs off from the surroundings")]

mod client;
#[path = "../client_support/mod.rs"]
mod client_support;
mod faults;
mod hostile;
mod lies;
mod load;
mod plaintext;
#[path = "../server_support/mod.rs"]
mod server_support;
mod strangers;
#[path = "../trust_support/mod.rs"]
mod trust_support;
