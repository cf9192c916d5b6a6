//! The table of every field of every request: implemented, harmless when ignored, or refused.
//!
//! `docs/api.md` shows the same table; a test compares the two.

use crate::error::{ApiError, Result};
use serde_json::{Map, Value};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what OpenAI's reference says, or the range is refused by name.
    Implemented,
    /// It changes nothing that a client could miss.
    Ignored,
    /// 400 with the reason, unless it has the value that means "off".
    Refused(&'static str),
}

/// Whether `table` lists a field as implemented; an empty table knows all.
pub(crate) fn is_read(table: &[Field], name: &str) -> bool {
    table.is_empty() || table.iter().any(|(known, support)| *known == name && *support == Implemented)
}

/// A field and what becomes of it.
pub type Field = (&'static str, Support);

use Support::{Ignored, Implemented, Refused};

/// `POST /v1/chat/completions`.
pub const CHAT: &[Field] = &[
    ("model", Implemented),
    ("messages", Implemented),
    ("stream", Implemented),
    ("stream_options", Implemented),
    ("max_tokens", Implemented),
    ("max_completion_tokens", Implemented),
    ("temperature", Implemented),
    ("top_p", Implemented),
    ("top_k", Implemented),
    ("min_p", Implemented),
    ("repeat_penalty", Implemented),
    ("repetition_penalty", Implemented),
    ("presence_penalty", Implemented),
    ("frequency_penalty", Implemented),
    ("logit_bias", Implemented),
    ("logprobs", Implemented),
    ("top_logprobs", Implemented),
    ("seed", Implemented),
    ("stop", Implemented),
    ("n", Implemented),
    ("response_format", Implemented),
    ("tools", Implemented),
    ("tool_choice", Implemented),
    ("parallel_tool_calls", Ignored),
    ("user", Ignored),
    ("metadata", Ignored),
    ("store", Ignored),
    ("service_tier", Ignored),
    ("prompt_cache_key", Ignored),
    ("safety_identifier", Ignored),
    ("keep_alive", Ignored),
    ("verbosity", Ignored),
    ("reasoning_effort", Ignored),
    ("prediction", Ignored),
    ("modalities", Implemented),
    ("audio", Refused("the model writes text only")),
    ("functions", Refused("use tools")),
    ("function_call", Refused("use tool_choice")),
    ("web_search_options", Refused("nothing leaves this machine but ciphertext")),
    ("best_of", Refused("use n")),
    ("use_beam_search", Refused("answers are sampled")),
    ("guided_json", Refused("use response_format")),
    ("grammar", Refused("use response_format")),
];

/// `POST /v1/completions`.
pub const COMPLETION: &[Field] = &[
    ("model", Implemented),
    ("prompt", Implemented),
    ("stream", Implemented),
    ("stream_options", Implemented),
    ("max_tokens", Implemented),
    ("temperature", Implemented),
    ("top_p", Implemented),
    ("top_k", Implemented),
    ("min_p", Implemented),
    ("repeat_penalty", Implemented),
    ("repetition_penalty", Implemented),
    ("presence_penalty", Implemented),
    ("frequency_penalty", Implemented),
    ("logit_bias", Implemented),
    ("logprobs", Implemented),
    ("seed", Implemented),
    ("stop", Implemented),
    ("n", Implemented),
    ("echo", Implemented),
    ("suffix", Implemented),
    ("user", Ignored),
    ("keep_alive", Ignored),
    ("best_of", Refused("use n")),
];

/// `POST /v1/embeddings`.
pub const EMBEDDING: &[Field] = &[
    ("model", Implemented),
    ("input", Implemented),
    ("encoding_format", Implemented),
    ("dimensions", Implemented),
    ("user", Ignored),
];

/// `POST /v1/rerank`.
pub const RERANK: &[Field] = &[
    ("model", Implemented),
    ("query", Implemented),
    ("documents", Implemented),
    ("top_n", Implemented),
    ("return_documents", Implemented),
    ("user", Ignored),
];

/// `POST /v1/predict`.
pub const PREDICT: &[Field] = &[
    ("model", Implemented),
    ("rows", Implemented),
    ("columns", Implemented),
    ("proba", Implemented),
    ("user", Ignored),
];

/// `POST /v1/responses`.
pub const RESPONSE: &[Field] = &[
    ("model", Implemented),
    ("input", Implemented),
    ("instructions", Implemented),
    ("stream", Implemented),
    ("max_output_tokens", Implemented),
    ("temperature", Implemented),
    ("top_p", Implemented),
    ("top_k", Implemented),
    ("min_p", Implemented),
    ("repeat_penalty", Implemented),
    ("seed", Implemented),
    ("text", Implemented),
    ("tools", Implemented),
    ("tool_choice", Implemented),
    ("truncation", Implemented),
    ("store", Ignored),
    ("metadata", Ignored),
    ("user", Ignored),
    ("service_tier", Ignored),
    ("parallel_tool_calls", Ignored),
    ("stream_options", Ignored),
    ("include", Ignored),
    ("reasoning", Ignored),
    ("prompt_cache_key", Ignored),
    ("safety_identifier", Ignored),
    ("previous_response_id", Refused("no response is stored; send the conversation as input")),
    ("conversation", Refused("no conversation is stored; send it as input")),
    ("background", Refused("answers are given while the client waits")),
    ("prompt", Refused("no prompt is stored")),
    ("max_tool_calls", Refused("there are no built-in tools")),
    ("top_logprobs", Refused("use /v1/chat/completions for log-probabilities")),
];

/// `POST /v1/messages`.
pub const ANTHROPIC: &[Field] = &[
    ("model", Implemented),
    ("messages", Implemented),
    ("system", Implemented),
    ("max_tokens", Implemented),
    ("stop_sequences", Implemented),
    ("stream", Implemented),
    ("temperature", Implemented),
    ("top_p", Implemented),
    ("top_k", Implemented),
    ("min_p", Implemented),
    ("repeat_penalty", Implemented),
    ("seed", Implemented),
    ("tools", Implemented),
    ("tool_choice", Implemented),
    ("metadata", Ignored),
    ("service_tier", Ignored),
    ("thinking", Refused("the model does not separate thoughts")),
    ("mcp_servers", Refused("nothing leaves this machine but ciphertext")),
    ("container", Refused("there are no built-in tools")),
];

/// Values that mean that a field is off: absent, null, false, 0, and what is empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "none" || text == "auto",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.get("type").is_some_and(|kind| kind == "disabled"),
        Value::Bool(true) => false,
    }
}

/// Refuses the first field of `request` that `table` refuses. Fields that the table does not know are let through: other
/// servers' extensions come and go.
///
/// # Errors
/// 400 that names the field.
pub fn check(request: &Map<String, Value>, table: &[Field]) -> Result<()> {
    for (name, support) in table {
        if let (Refused(reason), Some(value)) = (support, request.get(*name))
            && !is_off(value)
            // One candidate of which the best is taken is the same as one answer.
            && !(*name == "best_of" && value == 1)
        {
            return Err(ApiError::unsupported(*name, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_fields_are_named_unless_they_are_off() {
        let refused = |body: Value| check(body.as_object().unwrap(), CHAT).err();
        assert_eq!(refused(serde_json::json!({ "functions": [{}] })).unwrap().param(), Some("functions"));
        for off in ["{\"functions\":[]}", "{\"audio\":null}", "{\"best_of\":1}", "{\"unheard_of\":5}"] {
            assert_eq!(refused(serde_json::from_str(off).unwrap()), None, "{off}");
        }
    }

    #[test]
    fn no_field_has_two_rows() {
        for table in [CHAT, COMPLETION, EMBEDDING, RERANK, RESPONSE, ANTHROPIC] {
            let mut names: Vec<_> = table.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
