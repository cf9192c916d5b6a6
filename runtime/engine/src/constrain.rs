//! Answers of a given form: JSON, or JSON of a schema. The form is enforced on the client, where the logits are.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use sotto_models::tokenizer::Tokenizer;
use sotto_protocol::error::{Error, Result};

use crate::token_bytes::TokenBytes;

/// Largest schema, in bytes of JSON.
const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// The form an answer must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(Value),
}

impl Grammar {
    fn schema(&self) -> Value {
        let mut schema = match self {
            Self::JsonObject => json!({ "type": "object" }),
            Self::JsonSchema(schema) => schema.clone(),
        };
        if let Some(object) = schema.as_object_mut() {
            // A small model fills the room for white space with white space until its tokens are used up.
            object.insert("x-guidance".to_owned(), json!({ "whitespace_flexible": false }));
        }
        schema
    }
}

/// Makes constraints for one vocabulary.
pub struct Constrainer {
    factory: ParserFactory,
}

impl Constrainer {
    /// For the vocabulary of `tokenizer`; logits have `vocab_size` entries.
    ///
    /// # Errors
    /// [`Error::Usage`] if the model has no token that ends a text.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        let eos = *tokenizer.special().eos.first().ok_or_else(|| {
            Error::Usage(
                "this model has no end-of-text token, so its answers cannot be held to a form".to_owned(),
            )
        })?;
        let bytes = TokenBytes::new(tokenizer);
        let words: Vec<Vec<u8>> = (0..vocab_size as u32)
            .map(|id| match bytes.is_added(id) {
                // The marker keeps control tokens out of the text.
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.of(id).as_slice()].concat(),
                false => bytes.of(id),
            })
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, eos), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&env).map_err(|error| grammar_error(&error.to_string()))?;
        factory.quiet();
        Ok(Self { factory })
    }

    /// A constraint for one answer.
    ///
    /// # Errors
    /// [`Error::Usage`] if the schema is not supported; the message says what of it.
    pub fn constraint(&self, grammar: &Grammar) -> Result<Constraint> {
        let schema = grammar.schema();
        let size = schema.to_string().len();
        if size > MAX_SCHEMA_BYTES {
            return Err(Error::TooLong { field: "schema", got: size as u64, limit: MAX_SCHEMA_BYTES as u64 });
        }
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(grammar_error(&error)),
            None => Ok(Constraint { matcher }),
        }
    }
}

/// Follows one answer.
pub struct Constraint {
    matcher: Matcher,
}

impl Constraint {
    /// Excludes the tokens that the form does not allow next.
    ///
    /// # Errors
    /// [`Error::Usage`] if the parser gives up on the schema.
    pub fn exclude(&mut self, logits: &mut [f32]) -> Result<()> {
        let allowed =
            self.matcher.compute_mask_or_eos().map_err(|error| grammar_error(&error.to_string()))?;
        for (id, logit) in logits.iter_mut().enumerate() {
            if !allowed.is_allowed(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes note of the token that was chosen.
    ///
    /// # Errors
    /// As [`exclude`](Self::exclude).
    pub fn advance(&mut self, id: u32) -> Result<()> {
        if self.matcher.is_stopped() {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|error| grammar_error(&error.to_string()))
    }

    /// Whether the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// The first line of the library's message; the rest describes its parser.
fn grammar_error(message: &str) -> Error {
    Error::Usage(format!("schema: {}", message.lines().next().unwrap_or("not supported")))
}
