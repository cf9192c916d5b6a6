//! Bodies of the fuzz targets in `fuzz/`, one per decoder of bytes that a peer, a person or a disk provides.
//!
//! What a decoder accepts must mean the same when it is written again, or hold what it announces. On the stable toolchain
//! property tests of the crates drive the same functions with random and with damaged bytes.
//!
//! | feature and module | decoders of | property tests |
//! |---|---|---|
//! | `fhe` | keys, masks, bodies, replies, tables | `fhe-layers/tests/wire_malformed.rs` |
//! | `models` | model files and manifests | `models/tests/files_malformed.rs` |
//! | `anonymizer` | requests to chat APIs, events and placeholders of answers | `anonymizer/cli/tests/answers_malformed.rs` |
//! | `runtime` | messages, leases, connect strings | `runtime/cli/tests/frames_malformed.rs` |
//!
//! # Example
//! ```
//! # #[cfg(feature = "runtime")]
//! sotto_fuzz_bodies::runtime::connect_string(b"sotto://127.0.0.1:1/?pin=00");
//! ```
#![warn(missing_docs)]

#[cfg(feature = "anonymizer")]
pub mod anonymizer;
#[cfg(feature = "fhe")]
pub mod fhe;
#[cfg(feature = "models")]
pub mod models;
#[cfg(feature = "runtime")]
pub mod runtime;
