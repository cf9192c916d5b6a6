//! The split: its parts hold what they should, and together compute what the whole model does.

mod equals_whole;
mod parts;
#[path = "../support/mod.rs"]
mod support;
