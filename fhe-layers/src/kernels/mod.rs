//! The arithmetic that costs time, as functions of plain slices.
//!
//! | module | what | used by |
//! |---|---|---|
//! | [`planes`] | int8 matrix times byte planes, exact in `i64` | body half, clear int8 yardstick |
//! | [`hint`] | int8 matrix times a panel of residues, modulo `q` | prepare |
//! | [`mask_mac`] | prepared digits times rotated key, modulo `q` | mask half |
//! | [`ntt`] | transform of the ring | everything |
//! | [`pointwise`] | products, sums, gadget digits of polynomials | prepare, compact tables |
//!
//! Every kernel has a scalar form that is always compiled and vector forms that return the same bits. The caller
//! names the [`Isa`]; nothing here reads the environment except [`Isa::active`]. Kernels do not allocate, log or
//! lock, and their running time depends on shapes only.

pub mod hint;
mod huge;
mod isa;
mod lines;
pub mod mask_mac;
pub mod ntt;
pub mod planes;
pub mod pointwise;
#[cfg(target_arch = "x86_64")]
mod reduce52;
#[cfg(target_arch = "x86_64")]
mod reduce_float;
mod weights;

pub use huge::HugeBytes;
pub(crate) use huge::HugeWords;
pub use isa::{ISA_VARIABLE, Isa, IsaError};
pub use lines::{Aligned, AlignedBytes, AlignedWords, LINE_BYTES};
pub use weights::{MAX_COLUMNS, PackedWeights};
