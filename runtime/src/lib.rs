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
//!
//! # Example
//! What an operator hands to a user: an address, the certificate to expect, and a credential with a budget. The store
//! keeps its hash and charges it before work is handed out.
//! ```
//! use runtime::connect_string::ConnectString;
//! use runtime::server::credentials::{Grant, Store};
//! use runtime::tls::ServerIdentity;
//!
//! # fn main() -> runtime::Result<()> {
//! let store = Store::in_memory()?;
//! let (id, credential) = store.add("a guest", 64, 64)?;
//! let connect = ConnectString {
//!     address: "127.0.0.1:7443".to_owned(),
//!     pin: ServerIdentity::generate()?.pin(),
//!     model: None,
//!     credential: Some(credential),
//!     mask_addresses: Vec::new(),
//!     body_addresses: Vec::new(),
//! };
//! // This line is all that `sotto chat --server` needs.
//! let line = connect.to_string();
//! assert!(line.starts_with("sotto://127.0.0.1:7443/?pin="));
//! let parsed: ConnectString = line.parse()?;
//! assert_eq!(store.authenticate(parsed.credential.as_deref().unwrap_or_default())?.0, id);
//! let wanted = Grant { body_tokens: 100, mask_slots: 64 };
//! assert_eq!(store.charge(id, wanted, 64)?, Grant { body_tokens: 64, mask_slots: 64 });
//! # Ok(())
//! # }
//! ```
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
