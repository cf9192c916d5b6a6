//! A quantized linear classifier under encryption: `logits = W x + b` on digits, weights and inputs quantized to 8 bits
//! (`q = round(x / delta) + z`), evaluated fully levelled, one linear layer and no bootstrap.
//!
//! The client holds the image and the secret; the server holds the integer weights. With `q_x` the client's integers
//! and `q_w` the server's,
//! `sum (q_w - z_w)(q_x - z_x) = sum q_w q_x - z_x sum q_w - z_w sum q_x + n z_w z_x`: the server computes the first
//! sum only, the client the rest (the sums of `q_w` per row are constants of the model).
//!
//! The layer's exact integer mode holds `|W q| < 2^18` at 64 tokens per batch. 64 pixels of 8 bits times 8-bit weights
//! reach 2^21, so the inputs go as two 4-bit limbs, one slot each: `q_x = 16 high + low`, and `64 * 127 * 15 < 2^17`.

mod encrypted;
mod quantized;
mod regression;

pub use encrypted::{Encrypted, evaluate};
pub use quantized::{Affine, QuantizedClassifier};
pub use regression::{Classifier, train};
