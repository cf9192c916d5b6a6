//! `POST /v1/chat/completions` of OpenAI.

use super::Shape::{self, *};
use super::with_settings;

const PARTS: &[(&str, &[(&str, Shape)])] = &[
    ("text", &[("type", Word), ("cache_control", Fields(&[("type", Word), ("ttl", Word)]))]),
    ("input_text", &[("type", Word)]),
    ("output_text", &[("type", Word)]),
    ("refusal", &[("type", Word)]),
    ("thinking", &[("type", Word), ("signature", Opaque)]),
    ("reasoning", &[("type", Word)]),
];

const CALLED: Shape = Fields(&[("name", Name), ("arguments", Arguments)]);

const MESSAGE: Shape = Fields(&[
    ("role", Word),
    ("content", Content(PARTS)),
    ("tool_call_id", Identity),
    ("id", Identity),
    ("type", Word),
    ("object", Word),
    ("finish_reason", Word),
    (
        "tool_calls",
        List(&Fields(&[
            ("id", Identity),
            ("type", Word),
            ("index", Setting),
            ("function", CALLED),
            ("custom", Fields(&[("name", Name)])),
        ])),
    ),
    ("function_call", CALLED),
    ("attachments", Attachment),
    ("images", Attachment),
    ("audio", Attachment),
]);

const FUNCTION: Shape = Fields(&[("name", Name), ("parameters", Schema)]);

/// `"auto"`, or the tool by its name.
pub(super) const CHOICE: Shape =
    OneOf(&[Word, Fields(&[("type", Word), ("name", Name), ("function", Fields(&[("name", Name)]))])]);

pub(super) const REQUEST: Shape = Fields(with_settings!(
    ("messages", List(&MESSAGE)),
    (
        "tools",
        List(&Fields(&[("type", Word), ("function", FUNCTION), ("custom", Fields(&[("name", Name)]))])),
    ),
    ("functions", List(&FUNCTION)),
    ("tool_choice", CHOICE),
    ("function_call", CHOICE),
    (
        "response_format",
        Fields(&[("type", Word), ("json_schema", Fields(&[("name", Name), ("schema", Schema)]))]),
    ),
    ("prediction", Fields(&[("type", Word), ("content", Content(PARTS))])),
    ("logit_bias", Weights),
    ("reasoning_effort", Word),
    ("verbosity", Word),
    ("modalities", List(&Word)),
    ("attachments", Attachment),
));
