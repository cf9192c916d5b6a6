//! Limits on what a model file may ask for, checked before anything is allocated.

/// Transformer blocks. The largest open models have 126 (Llama 3.1 405B).
pub const MAX_BLOCKS: usize = 512;
/// Vocabulary entries. Largest in use: 262,144 (Gemma 3).
pub const MAX_VOCABULARY: usize = 1 << 20;
/// Tokens of context. Largest in use: 1 M.
pub const MAX_CONTEXT: usize = 1 << 20;
/// Length of a hidden or intermediate vector. The encrypted layer's sums stay in range up to 32,768 columns
/// (design document, "Body half"); the clear backends take no more either, so that one bound holds everywhere.
pub const MAX_WIDTH: usize = 32_768;
/// Labels of a token classifier; the largest tag sets in use have a few hundred.
pub const MAX_LABELS: usize = 4096;
/// Bytes of a JSON file (`config.json`, `tokenizer.json`, manifests). Largest tokenizer in use: 33 MB (Gemma).
pub const MAX_JSON_BYTES: u64 = 128 << 20;
/// Bytes of a chat template. Largest in use: 20 KB.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// What rendering a chat template may use up: instructions, items and 64-byte pieces of text. A long conversation under
/// the longest templates in use takes some 300 per message; this is about a second of work and 320 MB.
pub const TEMPLATE_FUEL: u64 = 5_000_000;
/// Bytes of a safetensors header. `safetensors` itself allows 100 MB.
pub const MAX_HEADER_BYTES: u64 = 100 << 20;
