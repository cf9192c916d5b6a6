//! Personal data: find it, replace it by placeholders before a text leaves, restore it in what comes back.
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod detect;
pub mod error;
pub mod eval;
pub mod model;
pub mod proxy;
pub mod recognizers;
pub mod scan;
pub mod vault;

pub use error::{Error, Result};
