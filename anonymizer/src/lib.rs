//! Personal data: find it, replace it by placeholders before a text leaves, restore it in what comes back.
//!
//! | where | what |
//! |---|---|
//! | [`recognizers`] | personal data that shows by its form |
//! | [`detect`] | the token classifier, its linear layers elsewhere |
//! | [`model`] | that classifier on one of its backends: encrypted, int8 or f32 |
//! | [`scan`] | both together, under the rules of a [`config`] |
//! | [`vault`] | placeholders and the values they stand for |
//! | [`proxy`] | all of it between a program and a chat API |
//! | [`eval`] | how good detection is |
//!
//! The text, the labels and the vault stay on the client. The server of the encrypted backend holds the weights of the
//! linear layers and sees ciphertexts and token counts.
//!
//! ```
//! use std::sync::Arc;
//! use anonymizer::config::Config;
//! use anonymizer::scan::{RecognizersOnly, Rules, Scanner};
//! use anonymizer::vault::Vault;
//!
//! # fn main() -> anonymizer::Result<()> {
//! // `anonymizer::model::ModelDetector` in place of `RecognizersOnly` finds names and places too.
//! let rules = Arc::new(Rules::new(&Config::default())?);
//! let mut scanner = Scanner::new(rules, Box::new(RecognizersOnly));
//! let text = "Write to ann@example.org, or call +44 7700 900923.";
//! let scan = scanner.scan(&[text])?;
//!
//! let mut vault = Vault::new();
//! let redacted = vault.redact(text, &scan.spans[0])?;
//! assert_eq!(redacted.text, "Write to [EMAIL_1], or call [PHONE_NUMBER_1].");
//!
//! let answer = vault.restore("I wrote to **[email_1]**.");
//! assert_eq!(answer.text, "I wrote to **ann@example.org**.");
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod detect;
pub mod error;
pub mod eval;
pub mod model;
pub mod proxy;
pub mod recognizers;
pub mod scan;
pub mod vault;

pub use error::{Error, Result};
