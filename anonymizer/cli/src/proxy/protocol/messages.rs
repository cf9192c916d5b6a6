//! `POST /v1/messages` of Anthropic.

use super::Shape::{self, *};
use super::with_settings;

const CACHE: Shape = Fields(&[("type", Word), ("ttl", Word)]);

const TEXT: &[(&str, Shape)] = &[("type", Word), ("cache_control", CACHE)];

/// Blocks without those that hold blocks themselves.
const INNER: &[(&str, &[(&str, Shape)])] = &[("text", TEXT)];

const BLOCKS: &[(&str, &[(&str, Shape)])] = &[
    ("text", TEXT),
    ("thinking", &[("type", Word), ("signature", Opaque)]),
    ("redacted_thinking", &[("type", Word), ("data", Opaque)]),
    ("tool_use", &[("type", Word), ("id", Identity), ("name", Name), ("cache_control", CACHE)]),
    (
        "tool_result",
        &[("type", Word), ("tool_use_id", Identity), ("content", Content(INNER)), ("cache_control", CACHE)],
    ),
];

pub(super) const REQUEST: Shape = Fields(with_settings!(
    (
        "messages",
        List(&Fields(&[
            ("role", Word),
            ("content", Content(BLOCKS)),
            ("id", Identity),
            ("type", Word),
            ("attachments", Attachment),
        ])),
    ),
    ("system", Content(INNER)),
    (
        "tools",
        List(&Fields(&[("type", Word), ("name", Name), ("input_schema", Schema), ("cache_control", CACHE)])),
    ),
    ("tool_choice", Fields(&[("type", Word), ("name", Name)])),
    ("thinking", Fields(&[("type", Word), ("budget_tokens", Setting)])),
    ("attachments", Attachment),
));
