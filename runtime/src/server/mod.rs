//! The server: catalogue, mask jobs and bodies.

pub mod state;
