//! The client: keys, pads, slots, encryption and decoding. Everything secret lives here and is wiped on drop.
//!
//! [`Client`] makes a [`Batch`] (fresh secret, public [`crate::EvaluationKeys`], pads), for a [`ClientSession`] or in the
//! full form; what the server sends ahead, if the form has that, is decrypted into corrections as it arrives; then the batch
//! becomes `tau` [`Slot`]s, one per token.
//!
//! # Timing
//! Nothing here branches on a secret, and products, sums and switches take the same time for all values. Two things remain:
//! floating-point operations on subnormal activations are slower on some processors, unless the caller sets flush-to-zero;
//! and models' activation functions (outside this crate) have fast and slow ranges. Both show up, if at all, in a client's
//! think time between rounds, which the server sees.

pub(crate) mod batch;
pub(crate) mod encrypt;
mod exact;
pub mod integrity;
pub(crate) mod scale;
mod session;
mod slot;

pub use batch::{Batch, Client, ClientOptions};
pub use exact::ExactMode;
pub use scale::input_scale;
pub use session::{ClientSession, SessionDownload};
pub use slot::{PendingReply, Slot};
