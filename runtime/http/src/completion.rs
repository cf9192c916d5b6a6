//! `POST /v1/completions`.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::fields::COMPLETION;
use crate::read::{Fields, token_ids};
use crate::sampling::{Sampling, wants_usage};

/// Largest number of prompts of one request.
const MAX_PROMPTS: usize = 32;

/// Largest number of likeliest tokens per token.
const MAX_LOGPROBS: u64 = 5;

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// The prompts, at least one; each gets `sampling.answers` answers.
    pub prompts: Vec<Prompt>,
    /// Whether to stream.
    pub stream: bool,
    /// Whether the last event of a stream counts tokens.
    pub include_usage: bool,
    /// Whether the text of an answer begins with the prompt.
    pub echo: bool,
    /// What follows the answer, which fills the gap between the prompt and this.
    pub suffix: Option<String>,
    /// Log-probabilities, with this many of the likeliest tokens each.
    pub logprobs: Option<usize>,
    /// How to generate.
    pub sampling: Sampling,
}

impl CompletionRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, COMPLETION)?;
        let mut sampling = Sampling::read(&fields, &["max_tokens"])?;
        // As OpenAI's reference has it for this endpoint.
        if fields.get("max_tokens").is_none() {
            sampling.max_tokens = Some(16);
        }
        let echo = fields.flag("echo")?;
        let logprobs = fields.whole("logprobs", 0..=MAX_LOGPROBS)?.map(|count| count as usize);
        if echo && logprobs.is_some() {
            return Err(ApiError::field("logprobs", "cannot be had together with echo"));
        }
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            prompts: prompts(&fields)?,
            stream: fields.flag("stream")?,
            include_usage: wants_usage(&fields)?,
            echo,
            suffix: fields.text("suffix")?.filter(|suffix| !suffix.is_empty()).map(ToOwned::to_owned),
            logprobs,
            sampling,
        })
    }
}

fn prompts(fields: &Fields<'_>) -> Result<Vec<Prompt>> {
    let wrong = || {
        let expected =
            format!("must be a text, an array of token ids, or an array of 1 to {MAX_PROMPTS} of these");
        ApiError::field("prompt", expected)
    };
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(items) if !items.is_empty() => token_ids(items).map(Prompt::Tokens),
        _ => None,
    };
    let value = fields.get("prompt").ok_or_else(wrong)?;
    if let Some(prompt) = one(value) {
        return Ok(vec![prompt]);
    }
    let items =
        value.as_array().filter(|items| (1..=MAX_PROMPTS).contains(&items.len())).ok_or_else(wrong)?;
    items.iter().map(|item| one(item).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prompts_come_in_four_forms() {
        let read = |prompt: Value| {
            CompletionRequest::read(&json!({ "prompt": prompt })).map(|request| request.prompts)
        };
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(read(json!("a")).unwrap(), [text("a")]);
        assert_eq!(read(json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
        assert_eq!(read(json!([1, 2])).unwrap(), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(read(json!([[1], [2]])).unwrap(), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])]);
        for bad in [Value::Null, json!([]), json!([-1]), json!({}), json!([1, "a"])] {
            assert_eq!(read(bad.clone()).unwrap_err().param(), Some("prompt"), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let param = |body: Value| CompletionRequest::read(&body).unwrap_err().param().map(ToOwned::to_owned);
        assert_eq!(param(json!({ "prompt": "a", "suffix": 5 })).as_deref(), Some("suffix"));
        let filled = |suffix: &str| {
            CompletionRequest::read(&json!({ "prompt": "a", "suffix": suffix })).unwrap().suffix
        };
        assert_eq!((filled("b").as_deref(), filled("")), (Some("b"), None));
        assert_eq!(param(json!({ "prompt": "a", "echo": true, "logprobs": 1 })).as_deref(), Some("logprobs"));
        assert_eq!(param(json!({ "prompt": "a", "best_of": 3 })).as_deref(), Some("best_of"));
    }
}
