//! What can be proven about a server, and what can be taken from it.
//!
//! * `sotto_client::WeightCheck`: a client checks every reply against the weights that the model digest names.
//! * [`extraction`]: both known ways to obtain a layer's weights from answers, measured.

mod extraction;

pub use extraction::{Chosen, Extraction, ExtractionOptions, Honest, WholeModel, extraction};
