//! What the tests of several crates share. No program depends on it.
//!
//! | module | what |
//! |---|---|
//! | [`program`] | running a program and reading what it says |
//! | [`tiny`] | two-layer decoders with random weights, written as model directories and GGUF files |
//! | [`help`] | checks of help texts, variables, manual pages and completions that hold for every program |
//! | [`environment`] | programs started without the developer's `SOTTO_*` variables |
//!
//! # Example
//! ```
//! use sotto_testing::tiny::Tiny;
//!
//! let directory = std::env::temp_dir().join(format!("sotto-testing-example-{}", std::process::id()));
//! std::fs::create_dir_all(&directory)?;
//! Tiny::llama().write_directory(&directory);
//! assert!(directory.join("config.json").is_file());
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![allow(missing_docs, reason = "support of tests; what needs a word has one")]

pub mod environment;
pub mod help;
pub mod program;
pub mod tiny;
