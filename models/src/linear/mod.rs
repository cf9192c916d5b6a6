//! The trait of the remote linear layers.
//!
//! A model never multiplies by a linear weight itself: it hands the input of a whole *round* (see
//! [`crate::split::plan`]) to a [`LinearBackend`] and gets one product per matrix of the round back.

pub mod dense;
pub mod quantize;

use crate::Result;
use candle_core::Tensor;

/// Evaluates the rounds of one split plan.
///
/// A *pass* is one run of the model over some new tokens. The caller of the model brackets it with
/// [`begin_pass`](Self::begin_pass) and [`end_pass`](Self::end_pass), on error paths too; [`run_pass`] does that.
pub trait LinearBackend: Send {
    /// Evaluates round `round` of the plan.
    ///
    /// `input`: `[tokens, d_in]` f32, contiguous, on the CPU, before column scaling. Returns one f32 tensor
    /// `[tokens, rows]` per matrix of the round, in the plan's order, after row scaling. Biases are not added.
    ///
    /// `tokens` is at least 1 and at most the number given to `begin_pass`: where only the last position's
    /// logits are wanted, the rounds after the last attention carry one token. Every round is called at most
    /// once per pass.
    ///
    /// # Errors
    /// If the shape of `input` contradicts the plan, or the backend fails.
    fn round(&mut self, round: usize, input: &Tensor) -> Result<Vec<Tensor>>;

    /// Says that another pass follows the next one at once: a backend may then prepare it meanwhile.
    fn more_to_come(&mut self) {}

    /// Announces a pass over `tokens` new tokens (a backend may take that many slots).
    ///
    /// # Errors
    /// If the backend cannot serve that many tokens. The pass must then not be started; `end_pass` is still called.
    fn begin_pass(&mut self, tokens: usize) -> Result<()>;

    /// Ends the pass, successful or not. Whatever the pass took is spent.
    fn end_pass(&mut self);
}

/// Runs `pass` between `begin_pass(tokens)` and `end_pass`, whatever it returns.
///
/// # Errors
/// Those of `begin_pass` and `pass`.
pub fn run_pass<T>(
    backend: &mut dyn LinearBackend,
    tokens: usize,
    pass: impl FnOnce(&mut dyn LinearBackend) -> Result<T>,
) -> Result<T> {
    let result = backend.begin_pass(tokens).and_then(|()| pass(backend));
    backend.end_pass();
    result
}
