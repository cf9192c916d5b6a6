//! What local HTTP endpoints of this workspace share: who may ask, how errors look, event streams, OpenAI's fields.
//!
//! | module | what |
//! |---|---|
//! | [`guard`] | the key, and the hosts and origins that requests may come from |
//! | [`error`] | refusals in the form that OpenAI clients understand |
//! | [`request_id`] | an id for each request; JSON for errors of the framework |
//! | [`sse`] | server-sent events with signs of life |
//! | [`fields`] | the table of every field: implemented, ignored, refused |
//! | [`read`] | reading fields with messages that name them |
//! | [`chat`], [`completion`], [`embedding`], [`rerank`], [`predict`], [`response`], [`anthropic`] | requests |
//! | [`tool`] | tools that a model may call |
//!
//! The crate knows neither models nor servers.
//!
//! # Example
//! ```
//! use sotto_http::fields::CHAT;
//! use sotto_http::read::Fields;
//!
//! let body = serde_json::json!({ "messages": [], "audio": {} });
//! let refused = Fields::of_request(&body, CHAT).err().expect("a refusal");
//! assert_eq!(refused.param(), Some("audio"));
//! ```
#![warn(missing_docs)]

pub mod anthropic;
pub mod chat;
pub mod completion;
pub mod embedding;
pub mod error;
pub mod fields;
pub mod guard;
pub mod predict;
pub mod read;
pub mod request_id;
pub mod rerank;
pub mod response;
pub mod sampling;
pub mod sse;
pub mod tool;
