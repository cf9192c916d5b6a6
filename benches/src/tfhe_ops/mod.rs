//! The operations that the hybrid split keeps away from encryption, measured under encryption: activation, softmax,
//! norm and products of two ciphertexts, on TFHE's programmable bootstrapping (`tfhe::core_crypto`).
//!
//! A real number `v` in `[-R, R)` is held as the torus phase `v / R * 2^62`; `R` is the *range* of the ciphertext.
//! Sums and differences are levelled (no bootstrapping) and keep the range; everything else is a [`Context::lookup`]:
//! key switch, modulus switch, blind rotation, sample extraction. A lookup reads its input in `2^precision_bits` equal
//! steps over the range and writes any real number in the range of its output, so the error of an operation is the
//! error of its inputs' steps.
//!
//! The secret key lives in [`Context`] beside the evaluation keys: this is a measurement, not a protocol.

mod context;
mod operations;
mod sets;

pub use context::{Cipher, Context, Table};
pub use operations::{
    Measured, activation, attention_scores, attention_values, exact_lookup, rms_norm, softmax,
};
pub use sets::{
    MESSAGE_2_2_2M40, MESSAGE_2_2_2M128, MESSAGE_3_3_2M40, MESSAGE_3_3_2M128, MESSAGE_4_4_2M40, TfheSet,
};
