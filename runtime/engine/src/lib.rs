//! From a model's name to a conversation: fetching, splitting, backends, a server of one's own and sessions.
//!
//! | where | what | secrets |
//! |---|---|---|
//! | [`open`] | the one door to a model: fetch, split, server, client part | |
//! | [`fetch`] | model files from a path, a hub or a registry package | |
//! | [`embedded`] | a server in a child process of this machine | |
//! | [`backend`] | the remote linear layers: encrypted, or one of three references in clear | the batch secrets of the remote one |
//! | [`prompt`], [`constrain`], [`filling`], [`token_bytes`] | messages to tokens, answers of a given form, gaps, tokens to bytes | the conversation |
//! | [`session`] | a conversation: template, context, sampling, statistics | the conversation |
//! | [`predict`] | trees, linear models and small networks | the rows |
//! | [`audit`] | how many answers give weights away | |
//!
//! # Example
//! ```
//! use sotto_engine::fetch::ModelRef;
//!
//! let model = ModelRef::parse("owner/name@v1:model.Q8_0.gguf")?;
//! assert_eq!(model.slug(), "owner--name--model.Q8_0.gguf");
//! # Ok::<(), sotto_engine::fetch::FetchError>(())
//! ```
#![warn(missing_docs)]

pub mod audit;
pub mod backend;
pub mod constrain;
pub mod embedded;
pub mod fetch;
pub mod filling;
pub mod open;
mod origin;
pub mod predict;
pub mod prompt;
pub mod session;
pub mod token_bytes;
