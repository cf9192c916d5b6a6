//! Model files of every kind, and damaged ones.

mod gguf_damaged;
mod gguf_types;
mod variants;
