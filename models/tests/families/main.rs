//! Model code is right: what each family computes, against independent implementations and golden files.

mod bert_minilm;
mod bert_rampart;
mod bert_variants;
mod decoders;
mod golden;
mod gpt2_golden;
#[path = "../support/mod.rs"]
mod support;
