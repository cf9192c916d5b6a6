//! `POST /v1/rerank`, in the form that Cohere, Jina and llama.cpp share.

use serde_json::Value;

use crate::embedding::MAX_TEXTS;
use crate::error::{ApiError, Result};
use crate::fields::RERANK;
use crate::read::Fields;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerankRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// What the documents are compared with.
    pub query: String,
    /// The documents, at least one.
    pub documents: Vec<String>,
    /// How many results to give.
    pub top_n: Option<usize>,
    /// Whether results hold the documents.
    pub return_documents: bool,
}

impl RerankRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(body: &Value) -> Result<Self> {
        let fields = Fields::of_request(body, RERANK)?;
        let query = fields.text("query")?.filter(|query| !query.is_empty());
        let query = query.ok_or_else(|| ApiError::field("query", "must be a text, and not empty"))?;
        let wrong = || {
            let expected = format!("must be an array of 1 to {} texts, none empty", MAX_TEXTS - 1);
            ApiError::field("documents", expected)
        };
        let items = fields.list("documents")?.unwrap_or_default();
        if !(1..MAX_TEXTS).contains(&items.len()) {
            return Err(wrong());
        }
        let text = |item: &Value| {
            let text = item.as_str().or_else(|| item.get("text")?.as_str());
            text.filter(|text| !text.is_empty()).map(ToOwned::to_owned).ok_or_else(wrong)
        };
        Ok(Self {
            model: fields.text("model")?.map(ToOwned::to_owned),
            query: query.to_owned(),
            documents: items.iter().map(text).collect::<Result<_>>()?,
            top_n: fields.whole("top_n", 1..=u64::from(u32::MAX))?.map(|count| count as usize),
            return_documents: fields.flag("return_documents")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_checked() {
        let read = |body: Value| RerankRequest::read(&body);
        let request = read(json!({ "query": "q", "documents": ["a", { "text": "b" }], "top_n": 1 })).unwrap();
        assert_eq!((request.documents, request.top_n), (vec!["a".to_owned(), "b".to_owned()], Some(1)));
        for (body, param) in [
            (json!({ "documents": ["a"] }), "query"),
            (json!({ "query": "", "documents": ["a"] }), "query"),
            (json!({ "query": "q" }), "documents"),
            (json!({ "query": "q", "documents": [] }), "documents"),
            (json!({ "query": "q", "documents": ["a", ""] }), "documents"),
            (json!({ "query": "q", "documents": ["a", 5] }), "documents"),
            (json!({ "query": "q", "documents": ["a"], "top_n": 0 }), "top_n"),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
