//! Joins `fhe_layers` (the cryptography) and `models` (the language models): the server, the client library, the
//! sessions between them and the `sotto` command line.
//!
//! | where | what | secrets |
//! |---|---|---|
//! | [`server`] | catalogue, mask jobs, bodies | none: it sees keys' public halves and encrypted bodies |
//! | [`client`], [`session`], [`backend`] | slot pool, round trips, remote linear layers | the batch secrets and pads |
//! | [`protocol`], [`tls`], [`connect_string`] | what both sides agree on | |
//! | [`split_store`] | a split on disk: client part, server part, prepared tables | |
//! | [`audit`] | what can be proven about a server, and taken from it | a client's test vectors |
//! | [`fetch`], [`embedded`] | models from elsewhere, a server of one's own | |
//! | [`cli`] | the command line | |
//!
//! `server` never uses `client` and the other way round.
#![warn(missing_docs)]

pub mod audit;
pub mod backend;
pub mod cli;
pub mod client;
pub mod connect_string;
pub mod embedded;
pub mod error;
pub mod fetch;
pub mod limits;
mod mmap;
pub mod protocol;
pub mod server;
pub mod session;
pub mod split_store;
pub mod tls;

pub use error::{Error, Result};
