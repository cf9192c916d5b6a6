//! Hiding how long prompts and answers are, to a multiple.
//!
//! A server counts tokens. Where it also supplies chat template, tokenizer or weights, it can make the count speak: a
//! template that renders more text for one message than for another, an answer that ends where the text decides. Dummy
//! tokens after a prompt (the causal mask keeps them from changing its logits) and dummy passes after an answer leave it
//! the multiple alone.

use super::Session;

/// What lengths are rounded up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Tokens of a prompt's passes together are a multiple of this; 1 pads nothing.
    pub prompt: usize,
    /// Passes of an answer are a multiple of this, or as many as the longest answer has; 1 pads nothing.
    pub answer: usize,
}

impl Padding {
    /// Lengths as they are.
    pub const NONE: Self = Self { prompt: 1, answer: 1 };

    /// For a client part that only its server vouches for: 32 tokens cost a prompt little, and 64 passes cover most
    /// answers to a short question.
    pub const UNPUBLISHED: Self = Self { prompt: 32, answer: 64 };
}

impl Session {
    /// Pads prompts and answers from now on.
    pub fn set_padding(&mut self, padding: Padding) {
        self.core.padding = padding;
        self.drafter = self.core.drafter();
    }
}
