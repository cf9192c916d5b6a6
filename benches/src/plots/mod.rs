//! SVG pictures of a run, drawn from its raw JSON.

mod draw;
mod pictures;

pub use pictures::draw_all;
