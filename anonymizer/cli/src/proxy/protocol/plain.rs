//! Endpoints of OpenAI that take a text: completions, embeddings, moderations.

use super::Shape::{self, *};
use super::with_settings;

pub(super) const COMPLETIONS: Shape = Fields(with_settings!(
    ("prompt", TOKENS_OR_TEXT),
    ("logit_bias", Weights),
    ("best_of", Setting),
    ("logprobs", Setting),
));

pub(super) const EMBEDDINGS: Shape =
    Fields(with_settings!(("input", TOKENS_OR_TEXT), ("encoding_format", Word), ("dimensions", Setting),));

/// Parts of a moderation's input that hold text.
const PARTS: &[(&str, &[(&str, Shape)])] = &[("text", &[("type", Word)])];

pub(super) const MODERATIONS: Shape =
    Fields(with_settings!(("input", OneOf(&[List(&Content(PARTS)), Content(PARTS)])),));

/// Texts. Lists of tokens are refused: what they spell is not known here.
const TOKENS_OR_TEXT: Shape = OneOf(&[List(&Text), Text]);
