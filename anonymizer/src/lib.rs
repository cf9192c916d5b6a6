//! Personal data: find it, replace it by placeholders before a text leaves, restore it in what comes back.

pub mod detect;
pub mod eval;
