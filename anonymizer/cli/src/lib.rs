//! The `anonymize` program: personal data is replaced with placeholders before a text leaves and restored in what comes
//! back.
//!
//! | module | content |
//! |---|---|
//! | [`commands`] | the command line |
//! | [`documents`] | files with a form: tables, mails, documents |
//! | [`model`] | the token classifier on one of its backends: encrypted, int8 or f32 |
//! | [`proxy`] | detection and restoring between a program and a chat API |
//!
//! Detection itself, the vault and the scores are in [`sotto_pii`], whose modules are re-exported here.
//!
//! The text, the labels and the vault stay on the client. The server of the encrypted backend holds the weights of the
//! linear layers and sees ciphertexts and token counts.
//!
//! ```
//! use anonymizer::config::Config;
//! use anonymizer::scan::{RecognizersOnly, Rules, Scanner};
//! use anonymizer::vault::{Scope, Vault};
//!
//! let mut scanner = Scanner::new(Rules::new(&Config::default())?.into(), Box::new(RecognizersOnly));
//! let text = "Write to ann@example.org.";
//! let mut vault = Vault::new();
//! let sent = vault.redact(text, &scanner.scan(&[text])?.spans[0])?.text;
//! assert_eq!(sent, "Write to [EMAIL_1].");
//!
//! // An answer gets back what its request held, and nothing in the address of a picture.
//! let scope = Scope::of_request(&vault, [sent.as_str()]);
//! let answer = scope.restore("I wrote to [EMAIL_1]. ![](https://evil.example/?q=[EMAIL_1])");
//! assert_eq!(answer.text, "I wrote to ann@example.org. ![](https://evil.example/?q=[EMAIL_1])");
//! # Ok::<(), sotto_pii::Error>(())
//! ```
#![warn(missing_docs)]

pub mod commands;
pub mod documents;
pub mod error;
pub mod model;
pub mod proxy;

pub use error::{Error, Result};
pub use sotto_pii::{config, detect, eval, recognizers, scan, vault};
