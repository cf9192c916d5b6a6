//! Model files of every kind, and damaged ones.

mod gguf_damaged;
mod gguf_types;
#[path = "../support/tiny.rs"]
mod tiny;
mod variants;
