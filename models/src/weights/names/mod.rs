//! Names of the same tensors in different file formats.

pub mod llama;
