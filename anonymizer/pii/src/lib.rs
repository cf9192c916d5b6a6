//! Personal data in text: find it, replace it with placeholders, restore it in what comes back.
//!
//! | module | content |
//! |---|---|
//! | [`recognizers`] | personal data recognizable by its form |
//! | [`detect`] | the token classifier, over any backend of its linear layers |
//! | [`view`] | a text as a reader sees it, with encodings undone |
//! | [`scan`] | both together, under the rules of a [`config`] |
//! | [`vault`] | placeholders and the values they stand for |
//! | [`eval`] | scores of detection on labelled documents |
//!
//! This crate has no network code and knows no server: whoever opens the model implements [`scan::TextDetector`].
//!
//! ```
//! use std::sync::Arc;
//! use sotto_pii::config::Config;
//! use sotto_pii::scan::{RecognizersOnly, Rules, Scanner};
//! use sotto_pii::vault::Vault;
//!
//! # fn main() -> sotto_pii::Result<()> {
//! // A detector that runs the model, in place of `RecognizersOnly`, finds names and places too.
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

pub mod config;
pub mod detect;
pub mod error;
pub mod eval;
mod lexicon;
pub mod recognizers;
pub mod scan;
pub mod vault;
pub mod view;

pub use error::{Error, Result};
