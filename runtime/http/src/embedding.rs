//! `POST /v1/embeddings`.

use serde_json::Value;

use crate::completion::Prompt;
use crate::error::{ApiError, Result};
use crate::fields::EMBEDDING;
use crate::read::{Fields, token_ids};

/// Largest number of texts of one request.
pub const MAX_TEXTS: usize = 2048;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// Texts or tokens, at least one.
    pub inputs: Vec<Prompt>,
    /// Whether vectors are to be base64 of little-endian f32.
    pub base64: bool,
    /// The length that vectors must have.
    pub dimensions: Option<usize>,
}

impl EmbeddingRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, EMBEDDING)?;
        let base64 = match fields.text("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(ApiError::field("encoding_format", "must be float or base64")),
        };
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            inputs: inputs(&fields)?,
            base64,
            dimensions: fields.whole("dimensions", 1..=u64::from(u32::MAX))?.map(|count| count as usize),
        })
    }
}

fn inputs(fields: &Fields<'_>) -> Result<Vec<Prompt>> {
    let wrong = || {
        let expected = format!(
            "must be a text, an array of token ids, or an array of 1 to {MAX_TEXTS} of these, none empty"
        );
        ApiError::field("input", expected)
    };
    let one = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(Prompt::Text(text.clone())),
        Value::Array(items) if !items.is_empty() => token_ids(items).map(Prompt::Tokens),
        _ => None,
    };
    let value = fields.get("input").ok_or_else(wrong)?;
    if let Some(input) = one(value) {
        return Ok(vec![input]);
    }
    let items = value.as_array().filter(|items| (1..=MAX_TEXTS).contains(&items.len())).ok_or_else(wrong)?;
    items.iter().map(|item| one(item).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_checked() {
        let read = |body: Value| EmbeddingRequest::read(&body);
        let both = read(json!({ "input": ["a", [1, 2]], "encoding_format": "base64" })).unwrap();
        assert_eq!(both.inputs, [Prompt::Text("a".to_owned()), Prompt::Tokens(vec![1, 2])]);
        assert!(both.base64);
        for (body, param) in [
            (json!({ "input": [] }), "input"),
            (json!({ "input": ["a", ""] }), "input"),
            (json!({ "input": "a", "dimensions": 0 }), "dimensions"),
            (json!({ "input": "a", "encoding_format": "int8" }), "encoding_format"),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
