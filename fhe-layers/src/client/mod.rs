//! The client: keys, pads, slots, encryption and decoding. Everything secret lives here and is wiped on drop.
//!
//! [`Client`] makes a [`Batch`] (fresh secret, public [`crate::EvaluationKeys`], pads); the server's mask half is
//! decrypted into corrections as it arrives; then the batch becomes `tau` [`Slot`]s, one per token.

pub(crate) mod batch;
pub(crate) mod encrypt;
mod exact;
pub mod integrity;
mod slot;

pub use batch::{Batch, Client, ClientOptions};
pub use exact::ExactMode;
pub use slot::{PendingReply, Slot};
