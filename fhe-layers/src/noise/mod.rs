//! How much noise a result carries, and how likely it is to be too much.

pub mod bounds;
pub mod failure;
#[cfg(test)]
mod measure;
