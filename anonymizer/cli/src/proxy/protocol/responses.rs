//! `POST /v1/responses` of OpenAI.

use super::Shape::{self, *};
use super::chat::CHOICE;
use super::with_settings;

const PARTS: &[(&str, &[(&str, Shape)])] = &[
    ("text", &[("type", Word)]),
    ("input_text", &[("type", Word)]),
    ("output_text", &[("type", Word)]),
    ("summary_text", &[("type", Word)]),
    ("reasoning_text", &[("type", Word)]),
    ("refusal", &[("type", Word)]),
];

/// Items of the input, by type. One without a type is a message.
const ITEMS: &[(&str, &[(&str, Shape)])] = &[
    ("message", MESSAGE),
    ("", MESSAGE),
    (
        "function_call",
        &[
            ("type", Word),
            ("id", Identity),
            ("call_id", Identity),
            ("name", Name),
            ("arguments", Arguments),
            ("status", Word),
        ],
    ),
    (
        "function_call_output",
        &[
            ("type", Word),
            ("id", Identity),
            ("call_id", Identity),
            ("output", Content(PARTS)),
            ("status", Word),
        ],
    ),
    (
        "reasoning",
        &[
            ("type", Word),
            ("id", Identity),
            ("summary", List(&Content(PARTS))),
            ("content", Content(PARTS)),
            ("encrypted_content", Opaque),
            ("status", Word),
        ],
    ),
    ("item_reference", &[("type", Word), ("id", Identity)]),
];

const MESSAGE: &[(&str, Shape)] = &[
    ("type", Word),
    ("id", Identity),
    ("role", Word),
    ("status", Word),
    ("content", Content(PARTS)),
    ("attachments", Attachment),
];

pub(super) const REQUEST: Shape = Fields(with_settings!(
    ("input", OneOf(&[List(&Tagged(ITEMS)), Data])),
    ("previous_response_id", Identity),
    ("conversation", OneOf(&[Identity, Fields(&[("id", Identity)])])),
    ("tools", List(&Fields(&[("type", Word), ("name", Name), ("parameters", Schema)]))),
    ("tool_choice", CHOICE),
    (
        "text",
        Fields(&[
            ("format", Fields(&[("type", Word), ("name", Name), ("schema", Schema)])),
            ("verbosity", Word),
        ]),
    ),
    ("reasoning", Fields(&[("effort", Word), ("summary", Word)])),
    ("truncation", Word),
    ("include", List(&Name)),
    ("attachments", Attachment),
));
