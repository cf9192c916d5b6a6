//! What can be proven about a server, and what can be taken from it.
//!
//! * [`WeightCheck`]: a client checks every reply against the weights that the model digest names.

mod weight_check;

pub use weight_check::{CheckTally, WeightCheck};
